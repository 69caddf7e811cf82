"""Mirrored layers of encoder and decoder: what is tied, and what is not."""

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.autoencoder import MirrorProbe, Pair, mirrored, mirrors
from lazyrich.errors import AutoencoderError


def test_mirrors_see_what_is_tied_and_what_is_not():
    torch.manual_seed(0)
    net, x = lzr.zoo.autoencoder(32), torch.randn(40, 64)
    assert all(abs(m.weight) < 0.2 for m in mirrors(net, x))
    with torch.no_grad():
        for encoder, decoder in mirrored(net):
            parts = dict(net.named_modules())
            parts[decoder].weight.copy_(parts[encoder].weight.T)
    tied = mirrors(net, x)
    assert [m.weight for m in tied] == pytest.approx([1.0, 1.0])
    assert [m.angle for m in tied] == pytest.approx([0.0, 0.0], abs=1e-3)
    assert [(m.encoder, m.decoder) for m in tied] == mirrored(net)
    with pytest.raises(AutoencoderError, match="no mirror images"):
        mirrored(Pair(nn.Linear(6, 2), nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 6))))


def test_the_probe_sees_halves_turn_towards_each_other_in_ensembles_too():
    """Linear halves under gradient descent with decay: W_dec and W_enc^T become one (Baldi & Hornik 1989; Kunin et al. 2019)."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, generator=draw) @ torch.diag(torch.tensor([2.0, 1.5, 1.0, 0.3, 0.2, 0.1]))
    found = {}
    for engine in ("loop", "vmap"):
        nets = [Pair(nn.Linear(6, 3, bias=False), nn.Linear(3, 6, bias=False)) for _ in range(2)]
        for i, net in enumerate(nets):
            for j, p in enumerate(net.parameters()):
                p.data = 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * i + j))
        probes = [MirrorProbe(x, every=400) for _ in nets]
        members = [
            lzr.train.Member(net, torch.optim.SGD(net.parameters(), lr=0.05, weight_decay=0.05), lambda step: (x, x), [probe])
            for net, probe in zip(nets, probes, strict=True)
        ]
        lzr.train.train_all(members, nn.functional.mse_loss, 400, engine=engine)
        found[engine] = [[row["weight"] for row in probe.rows()] for probe in probes]
    for before, after in found["loop"]:
        assert abs(before) < 0.6
        assert after > 0.98
    assert [w for run in found["vmap"] for w in run] == pytest.approx([w for run in found["loop"] for w in run], rel=1e-3)

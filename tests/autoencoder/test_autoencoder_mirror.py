"""Mirrored layers of encoder and decoder: what is tied, and what is not."""

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.autoencoder import Pair, mirrored, mirrors
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

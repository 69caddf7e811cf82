"""Alignment against explicit formulas and Jacobians in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from lazyrich.errors import TangentError
from lazyrich.tangent import JointModel, TangentDirections, contracted, laziness, ntk_velocity, onset
from lazyrich.tangent.alignment import align, layer_alignment, layer_kernels, target_alignment
from lazyrich.tangent.ntk import ntk_of

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 1])


def gram(n: int = 9, rank: int = 20) -> torch.Tensor:
    features = torch.randn(n, rank, dtype=torch.float64)
    return features @ features.T


def one_hot() -> torch.Tensor:
    return torch.nn.functional.one_hot(LABELS).double()


def test_centred_and_uncentred_are_cosines_of_matrices() -> None:
    k, n = gram(), len(LABELS)
    h = torch.eye(n, dtype=torch.float64) - 1 / n
    target = one_hot() @ one_hot().T
    centred = ((h @ k @ h) * (h @ target @ h)).sum() / (torch.linalg.norm(h @ k @ h) * torch.linalg.norm(h @ target @ h))
    uncentred = (k * target).sum() / (torch.linalg.norm(k) * torch.linalg.norm(target))
    assert target_alignment(k, LABELS) == pytest.approx(float(centred), abs=1e-12)
    assert target_alignment(k, LABELS, "uncentred") == pytest.approx(float(uncentred), abs=1e-12)
    assert abs(float(centred) - float(uncentred)) > 0.01
    assert target_alignment(k, one_hot() - 0.3) == pytest.approx(float(centred), abs=1e-12)  # centring sees no shift
    assert target_alignment(7 * k, LABELS) == pytest.approx(float(centred), abs=1e-12)


def test_the_unbiased_products_are_sums_over_distinct_indices() -> None:
    """HSIC_1 is the mean over distinct i, j, q, r of K_ij (L_ij + L_qr - 2 L_iq)."""
    k, n = gram(7, 3), 7
    target = torch.nn.functional.one_hot(LABELS[:n]).double()
    other = target @ target.T

    def slow(a: torch.Tensor, b: torch.Tensor) -> float:
        quads = [(i, j, q, r) for i in range(n) for j in range(n) for q in range(n) for r in range(n) if len({i, j, q, r}) == 4]
        return sum(float(a[i, j] * (b[i, j] + b[q, r] - 2 * b[i, q])) for i, j, q, r in quads) / len(quads)

    expected = slow(k, other) / (slow(k, k) * slow(other, other)) ** 0.5
    assert target_alignment(k, LABELS[:n], "unbiased") == pytest.approx(expected, abs=1e-10)


def test_independent_features_align_by_chance_unless_unbiased() -> None:
    labels = torch.arange(64) % 4
    kernels = [gram(64, 2048) for _ in range(20)]
    biased, unbiased = (torch.tensor([target_alignment(k, labels, kind) for k in kernels]) for kind in ("centred", "unbiased"))
    assert biased.mean() > 0.1
    assert abs(unbiased.mean()) < 0.02


def test_the_targets_own_gram_is_aligned_perfectly() -> None:
    target = one_hot() @ one_hot().T
    for kind in ("centred", "uncentred", "unbiased"):
        assert target_alignment(target, LABELS, kind) == pytest.approx(1.0, abs=1e-12)
    assert target_alignment(torch.ones(9, 9), LABELS) == 0.0  # centring takes a constant kernel away


class Net(nn.Module):
    """Tied inside, a norm, and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.last = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.frozen(self.norm(self.first(x)))))


def jacobians(net: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """By layer, (N, K, entries)."""
    own = {name: p.detach() for name, p in net.named_parameters() if p.requires_grad}
    found: dict[str, torch.Tensor] = {}
    for name, j in jacrev(lambda p: functional_call(net, p, (x,)))(own).items():
        layer, flat = name.rpartition(".")[0], j.flatten(2)
        found[layer] = torch.cat([found[layer], flat], 2) if layer in found else flat
    return found


def test_layers_are_those_of_explicit_jacobians() -> None:
    net, x = Net().double(), torch.randn(9, 4, dtype=torch.float64)
    found = layer_alignment(net, x, LABELS)
    expected = {layer: torch.einsum("nkp,mkp->nm", j, j) for layer, j in jacobians(net, x).items()}
    assert [line.layer for line in found.layers] == ["first", "norm", "last"]
    whole = sum(expected.values())
    for line in (*found.layers, found.whole):
        kernel = whole if line is found.whole else expected[line.layer]
        assert line.centred == pytest.approx(target_alignment(kernel, LABELS), abs=1e-10)
        assert line.uncentred == pytest.approx(target_alignment(kernel, LABELS, "uncentred"), abs=1e-10)
        assert line.unbiased == pytest.approx(target_alignment(kernel, LABELS, "unbiased"), abs=1e-10)
        assert line.share == pytest.approx(float(kernel.trace() / whole.trace()), abs=1e-10)
    assert found.peak == max(expected, key=lambda layer: target_alignment(expected[layer], LABELS))


def test_the_speed_is_the_residuals_in_the_layers_full_kernel() -> None:
    net, x = Net().double(), torch.randn(9, 4, dtype=torch.float64)
    r = (net(x) - one_hot()).detach().reshape(-1)
    found = layer_alignment(net, x, LABELS)
    for line in found.layers:
        j = jacobians(net, x)[line.layer].flatten(0, 1)
        assert line.speed == pytest.approx(float(r @ (j @ j.T) @ r) / 81, rel=1e-10)
    assert found.whole.speed == pytest.approx(sum(line.speed for line in found.layers), rel=1e-12)
    assert layer_alignment(net, x, torch.randn(9, 5)).whole.speed is None  # targets that are not the outputs'


def test_rates_weigh_the_tensors() -> None:
    net, x = Net().double(), torch.randn(9, 4, dtype=torch.float64)
    rates = {"first.weight": 0.0, "first.bias": 0.0, "last.weight": 3.0, "last.bias": 3.0}
    plain, weighed = layer_alignment(net, x, LABELS), layer_alignment(net, x, LABELS, rates)
    by_name = {line.layer: line for line in weighed.layers}
    assert by_name["last"].speed == pytest.approx(3 * plain.layers[-1].speed)
    assert by_name["last"].centred == pytest.approx(plain.layers[-1].centred)
    assert by_name["last"].share > plain.layers[-1].share
    assert "first" not in by_name or by_name["first"].share == 0.0


def test_results_are_records_and_a_table() -> None:
    found = layer_alignment(Net(), torch.randn(9, 4), LABELS)
    assert [row["layer"] for row in found.rows()] == ["first", "norm", "last", "(whole)"]
    assert str(found).splitlines()[-1] == f"peak: {found.peak}"


@pytest.mark.parametrize(
    ("kernel", "y", "kind", "says"),
    [
        (torch.ones(3, 2), LABELS[:3], "centred", "shape (3, 2)"),
        (torch.eye(3), LABELS, "centred", "9 targets for 3 samples"),
        (torch.eye(3), torch.tensor([1, 1, 1]), "centred", "equal"),
        (torch.eye(3), LABELS[:3], "unbiased", "at least 4"),
        (torch.eye(3), LABELS[:3], "signed", "kind 'signed'"),
        (torch.eye(3), torch.tensor([0.0, 1.0, float("nan")]), "centred", "not finite"),
        (torch.eye(3), torch.tensor([0, -1, 2]), "centred", "classes"),
        (torch.full((9, 9), float("nan")), LABELS, "centred", "the kernel has entries that are not finite"),
        (torch.eye(9), LABELS.numpy(), "centred", "type ndarray"),
        ([[1.0]], LABELS, "centred", "a kernel of type list, expected a tensor (N, N)"),
        (torch.eye(9) + 0j, LABELS, "centred", "a kernel of torch.complex64, expected real numbers"),
        (torch.eye(9), LABELS + 0j, "centred", "targets of torch.complex64, expected real numbers"),
        (torch.eye(1), torch.tensor(1), "centred", "targets without an axis for 1 samples"),
    ],
)
def test_what_has_no_alignment_is_refused(kernel: torch.Tensor, y: torch.Tensor, kind: str, says: str) -> None:
    with pytest.raises(TangentError, match=says.replace("(", r"\(").replace(")", r"\)")):
        target_alignment(kernel, y, kind)


@pytest.mark.parametrize(
    ("kernels", "says"),
    [
        ([torch.eye(9)], "got kernels list, expected a dictionary of them by layer; layer_kernels"),
        ({}, "got no kernels"),
        ({"a": torch.eye(9) * torch.nan}, "the kernel of 'a' has entries that are not finite"),
        ({"a": torch.eye(9)[..., None, None]}, r"the kernel of 'a' of shape \(9, 9, 1, 1\), expected \(N, N\); ntk_of"),
        ({"a": torch.eye(9), "b": torch.eye(8)}, "kernels of 9 samples for 'a' and 8 for 'b'.*the same x"),
        ({"a": torch.eye(9).tolist()}, "the kernel of 'a' of type list"),
        ({"a": torch.eye(9) + 0j}, "the kernel of 'a' of torch.complex64"),
    ],
)
def test_layers_that_have_no_alignment_are_refused_by_name(kernels, says) -> None:
    with pytest.raises(TangentError, match=says):
        align(kernels, LABELS)


def test_classes_may_be_any_numbers() -> None:
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)), torch.randn(9, 3)
    ids = torch.tensor([5, 7, 10**10])[LABELS]
    k = gram()
    assert target_alignment(k, ids) == pytest.approx(target_alignment(k, LABELS), abs=1e-12)
    found = layer_alignment(net, x, ids)
    assert found.whole.speed is None  # the network's outputs are other classes
    assert found.centred == pytest.approx(layer_alignment(net, x, LABELS).centred, abs=1e-9)


def test_what_has_no_room_is_refused_before_anything_is_made() -> None:
    x, net = torch.randn(100_000, 1), nn.Linear(1, 1)
    with pytest.raises(TangentError, match="needs .* GiB"):
        layer_alignment(net, x, x)
    with pytest.raises(TangentError, match=r"one-hot rows of 100000 classes needs .* GiB; ask for numbers \(y.float\(\)\)"):
        layer_alignment(net, x, torch.arange(len(x)))
    for call in (onset, laziness, ntk_velocity):
        with pytest.raises(TangentError, match="GiB; ask for fewer samples$"):
            call(net, x, x)
    with pytest.raises(TangentError, match="GiB; ask for fewer samples, or keep=1$"):
        contracted(net, x, x, keep=2)
    with pytest.raises(TangentError, match="the tangent kernel of 100000 inputs needs .* GiB"):
        TangentDirections(JointModel(1, 2), x, 1)


def test_layers_come_in_the_order_of_their_first_calls():
    class Normed(nn.Module):
        """A norm that is registered last and used before each layer."""

        def __init__(self):
            super().__init__()
            self.first, self.attention, self.last = (
                nn.Linear(4, 4),
                nn.MultiheadAttention(4, 2, batch_first=True),
                nn.Linear(4, 1),
            )
            self.norm = nn.LayerNorm(4)

        def forward(self, x):
            h = self.norm(self.first(self.norm(x)))[:, None]
            return self.last(self.norm(self.attention(h, h, h)[0][:, 0]))

    model = Normed()
    found = list(layer_kernels(model, torch.randn(5, 4)))
    assert found == ["norm", "first", "attention", "attention.out_proj", "last"]
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_tensors_of_the_network_itself_are_named_for_people_and_keyed_by_the_empty_path() -> None:
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.last = nn.Parameter(torch.randn(4, 5)), nn.Linear(5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.tanh(x @ self.w))

    model, x = Raw(), torch.randn(len(LABELS), 4)
    assert list(layer_kernels(model, x)) == ["", "last"]
    assert list(ntk_of(model, x, outputs="trace", per="layer")) == ["", "last"]
    model.last.requires_grad_(False)
    found = layer_alignment(model, x, LABELS)
    assert found.peak == found.rows()[0]["layer"] == ""
    lines = str(found).splitlines()
    assert lines[2].startswith("(network)  ")
    assert lines[-1] == "peak: (network)"

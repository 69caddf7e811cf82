"""layer + passthrough + interaction = total, for every kind of block."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lazyrich.errors import LazyrichError
from lazyrich.family.zoo.residual import Branch
from lazyrich.measure import decompose
from lazyrich.measure.decompose import from_corners
from lazyrich.measure.movement import feature_movement


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.branch = Branch(width)

    def forward(self, x):
        return x + self.branch(x)


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


BLOCKS = {
    "dense": (lambda: nn.Linear(16, 16), (8, 16)),
    "conv": (lambda: nn.Conv2d(4, 6, 3, padding=1), (8, 4, 6, 6)),
    "attention": (lambda: Attention(16), (4, 5, 16)),
    "residual": (lambda: Residual(16), (8, 16)),
    "lstm": (lambda: nn.LSTM(16, 16, batch_first=True), (4, 5, 16)),
    "batchnorm": (lambda: nn.BatchNorm1d(16), (8, 16)),
}


def moved(block, shape, dtype, size=0.1):
    torch.manual_seed(0)
    block = block.to(dtype)
    old = {k: v.detach().clone() for k, v in block.named_parameters()}
    new = {k: v + size * torch.randn_like(v) for k, v in old.items()}
    x0 = torch.randn(shape, dtype=dtype)
    return block, old, new, x0, x0 + size * torch.randn_like(x0)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_the_terms_sum_to_the_total(kind, dtype, bound):
    make, shape = BLOCKS[kind]
    block, old, new, x0, x1 = moved(make(), shape, dtype)
    parts = decompose(block, old, new, x0, x1, dtype=None)
    assert parts.total.dtype == dtype
    assert parts.error < bound
    outside = torch.func.functional_call(block, new, (x1,)), torch.func.functional_call(block, old, (x0,))
    change = (outside[0][0] - outside[1][0]) if isinstance(outside[0], tuple) else outside[0] - outside[1]
    assert (parts.total - change).norm() / change.norm() < 10 * bound  # the total is the block's own change


def test_a_dense_layer_gives_the_three_products():
    block, old, new, x0, x1 = moved(nn.Linear(7, 5), (3, 7), torch.float64)
    parts = decompose(block, old, new, x0, x1)
    dw, db, dx = new["weight"] - old["weight"], new["bias"] - old["bias"], x1 - x0
    assert torch.allclose(parts.layer, x0 @ dw.T + db, atol=1e-12)
    assert torch.allclose(parts.passthrough, dx @ old["weight"].T, atol=1e-12)
    assert torch.allclose(parts.interaction, dx @ dw.T, atol=1e-12)


def test_a_convolution_gives_the_three_products():
    block, old, new, x0, x1 = moved(nn.Conv2d(3, 4, 3), (2, 3, 5, 5), torch.float64)
    parts = decompose(block, old, new, x0, x1)
    dw, dx = new["weight"] - old["weight"], x1 - x0
    assert torch.allclose(parts.passthrough, F.conv2d(dx, old["weight"]), atol=1e-12)
    assert torch.allclose(parts.interaction, F.conv2d(dx, dw), atol=1e-12)


def test_nothing_of_the_block_changes():
    block, old, new, x0, x1 = moved(nn.BatchNorm1d(16), (8, 16), torch.float32)
    before = {k: v.clone() for k, v in block.state_dict().items()}
    decompose(block, old, new, x0, x1)
    assert all(torch.equal(v, before[k]) for k, v in block.state_dict().items())


def test_the_seed_is_that_of_random_layers():
    block, old, new, x0, x1 = moved(nn.Sequential(nn.Linear(7, 5), nn.Dropout(0.5)), (3, 7), torch.float64)
    one, same, other = (decompose(block, old, new, x0, x1, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.total, same.total)
    assert not torch.equal(one.total == 0, other.total == 0)


def test_small_updates_keep_their_digits_in_float64():
    block, old, _, x0, _ = moved(nn.Linear(64, 64), (8, 64), torch.float32)
    new = {k: v.double() * (1 + 1e-9) for k, v in old.items()}
    parts = decompose(block, {k: v.double() for k, v in old.items()}, new, x0, x0)
    assert parts.error < 1e-6
    assert parts.layer.norm() / (1e-9 * F.linear(x0.double(), old["weight"].double()).norm()) == pytest.approx(1, abs=0.2)


def test_where_nothing_moves_the_error_and_the_movement_are_zero():
    nothing = torch.zeros(3, 2)
    assert from_corners(nothing, nothing, nothing, nothing).error == 0
    assert feature_movement(nothing, nothing) == 0
    assert feature_movement(nothing, nothing + 1) == float("inf")


def test_what_the_block_does_not_take_is_refused():
    block, old, new, x0, x1 = moved(nn.Linear(3, 3), (6, 3), torch.float32)
    for given, words in [
        ((block, old, new, x0[:, :2], x1[:, :2]), "the block Linear does not take its input"),
        ((block, old, new, x0, x1[:5]), r"outputs \(6, 3\) before and \(5, 3\) after"),
        ((block, {"weight": old["weight"]}, new, x0, x1), "before lacks 'bias'"),
        ((block, old, new | {"weight": torch.zeros(2, 2)}, x0, x1), "after has another name or shape for 'weight'"),
        ((block, None, new, x0, x1), "got before NoneType"),
        ((None, old, new, x0, x1), "got block NoneType"),
    ]:
        with pytest.raises(LazyrichError, match=words):
            decompose(*given)


@pytest.mark.parametrize("phi", [torch.relu, F.gelu, torch.tanh])
def test_the_terms_behind_a_nonlinearity_sum_to_its_change(phi):
    torch.manual_seed(0)
    old, new = nn.Linear(6, 40).double(), nn.Linear(6, 40).double()
    with torch.no_grad():
        for a, b in zip(old.parameters(), new.parameters(), strict=True):
            b[:10] = a[:10]  # units that stay
    x = torch.randn(9, 6, dtype=torch.float64)
    moved = x.clone()
    moved[:3] += torch.randn(3, 6, dtype=torch.float64)
    d = decompose(old, dict(old.named_parameters()), dict(new.named_parameters()), x, moved)
    behind = d.through(phi, old(x))
    assert behind.error < 1e-12
    torch.testing.assert_close(behind.total, phi(new(moved)) - phi(old(x)), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(behind.layer * d.total, d.layer * behind.total, rtol=1e-6, atol=1e-12)  # shares are kept
    assert bool((d.total[3:, :10] == 0).all())
    assert bool((behind.total[3:, :10] == 0).all())


def test_terms_too_small_for_a_secant_take_the_tangent():
    y, small = torch.tensor([0.3, -2.0], dtype=torch.float64), torch.full((2,), 1e-13, dtype=torch.float64)
    behind = from_corners(y, y + small, y, y + small).through(torch.tanh, y)
    torch.testing.assert_close(behind.total, (y + small - y) * (1 - y.tanh() ** 2), rtol=1e-12, atol=0)

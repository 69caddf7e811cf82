"""Kernels by compiled loops against the same by torch's operations, which are held to networks elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich import compiled
from lazyrich.gaussian import rectifier_loop
from lazyrich.lazy.rule import affine_loop, convolution, linear

pytestmark = pytest.mark.skipif(not compiled.start(), reason="numba, or torch's OpenMP library, is not here")


class Mean(nn.Module):
    """Global average pooling, which reads all pairs of positions."""

    def forward(self, x):
        """Mean over positions."""
        return x.flatten(2).mean(2)


def depthwise(n):
    """Between two layers that mix channels."""
    return nn.Sequential(nn.Conv2d(n, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 4, 1))


CONVOLUTIONS = {
    "1d, five taps": ((3, 2, 9), lambda n: nn.Conv1d(n, 4, 5, padding=2)),
    "1d, dilated": ((3, 2, 11), lambda n: nn.Conv1d(n, 4, 3, padding=3, dilation=3)),
    "1d, causal": ((3, 2, 8), lambda n: nn.Sequential(nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(n, 4, 3))),
    "1d, two taps": ((3, 2, 8), lambda n: nn.Conv1d(n, 4, 2, padding="same")),
    "2d": ((3, 2, 5, 4), lambda n: nn.Conv2d(n, 4, 3, padding=1)),
    "2d, windows of other sizes": ((3, 2, 6, 7), lambda n: nn.Conv2d(n, 4, (3, 5), padding=(1, 2))),
    "2d, flat window": ((3, 2, 5, 4), lambda n: nn.Conv2d(n, 4, (1, 3), padding=(0, 1))),
    "2d, strides": ((3, 2, 7, 5), lambda n: nn.Conv2d(n, 4, 3, padding=1, stride=2)),
    "2d, depthwise": ((3, 4, 5, 4), depthwise),
    "2d, larger than the image": ((3, 2, 3, 3), lambda n: nn.Conv2d(n, 4, 7, padding=3)),
    "3d": ((3, 2, 3, 4, 2), lambda n: nn.Conv3d(n, 4, 3, padding=1)),
}


def network(kind, end):
    shape, layer = CONVOLUTIONS[kind]
    inner = [layer(shape[1]), nn.ReLU(), layer(4), nn.ReLU()]
    with torch.no_grad():
        size = nn.Sequential(*inner, end)(torch.randn(shape)).shape[1]
    return nn.Sequential(*inner, end, nn.Linear(size, 1)), torch.randn(shape, dtype=torch.float64)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kind", [*CONVOLUTIONS])
@pytest.mark.parametrize("end", [nn.Flatten(), Mean()], ids=["flat", "mean"])
def test_convolutions(kind, end, monkeypatch):
    net, x = network(kind, end)
    k = lzr.kernel(net, init=lzr.init.variance(2.0, 0.1))
    y = torch.randn(2, *x.shape[1:], dtype=torch.float64)
    plain = [k.ntk(x), k.nngp(x), k.ntk(x, y)]
    calls, before = [], convolution.slide
    monkeypatch.setattr(convolution, "slide", lambda *a: calls.append(0) or before(*a))
    assert compiled.start()
    torch.testing.assert_close([k.ntk(x), k.nngp(x), k.ntk(x, y)], plain, rtol=1e-12, atol=1e-13)
    one_by_one = ("causal", "flat window", "strides", "larger")  # sizes change, or an axis has one tap, or taps that never meet
    assert bool(calls) != any(word in kind for word in one_by_one)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.3)], ids=["relu", "leaky"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_dense_layers(activation, dtype):
    net = nn.Sequential(nn.Linear(6, 8), activation, nn.Linear(8, 8), activation, nn.Linear(8, 1))
    k, x = lzr.kernel(net, init=lzr.init.variance(2.0, 0.1)), torch.randn(60, 6, dtype=dtype)
    x[1] = x[0]
    x[2] = -x[0]
    plain = [k.ntk(x), k.nngp(x)]
    assert compiled.start()
    digits = 2e-6 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close([k.ntk(x), k.nngp(x)], plain, rtol=digits, atol=digits)


class Branches(nn.Module):
    """One nonlinearity that two layers read, and their sum."""

    def __init__(self):
        super().__init__()
        self.first, self.left, self.right, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x):
        """The sum's own nonlinearity below the last layer."""
        h = torch.relu(self.first(x))
        return self.last(torch.relu(self.left(h) + self.right(torch.relu(self.left(h)))))


def test_arrays_that_two_layers_read_are_not_written_over(monkeypatch):
    k, x, over = lzr.kernel(Branches(), init=lzr.init.variance(2.0, 0.1)), torch.randn(9, 6, dtype=torch.float64), []
    plain, combine = [k.ntk(x), k.nngp(x), k.ntk(x, -x)], linear.combine
    monkeypatch.setattr(linear, "combine", lambda *a, **words: over.append(words["over"]) or combine(*a, **words))
    assert compiled.start()
    torch.testing.assert_close([k.ntk(x), k.nngp(x), k.ntk(x, -x)], plain, rtol=1e-13, atol=1e-13)
    assert {*over} == {True, False}


def test_gradients_flow_as_before():
    net = nn.Sequential(nn.Conv1d(2, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 5, 1))
    k, x = lzr.kernel(net), torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    assert compiled.start()
    (made,) = torch.autograd.grad(k.ntk(x).sum(), x)
    step = 1e-6 * torch.randn_like(x)
    with torch.no_grad():
        change = float(k.ntk(x + step).sum() - k.ntk(x - step).sum()) / 2
    assert math.isclose(change, float((made * step).sum()), rel_tol=1e-6)


def test_without_a_working_compiler_kernels_are_as_before(monkeypatch):
    net, x = network("2d", nn.Flatten())
    k = lzr.kernel(net)
    plain, tried = k.ntk(x), []

    def broken(dtype):
        tried.append(dtype)
        raise ImportError("Numba needs another NumPy")

    for module, name in ((rectifier_loop, "_loop"), (affine_loop, "_loop"), (convolution, "loop")):
        monkeypatch.setattr(module, name, broken)
    assert compiled.start()
    torch.testing.assert_close(k.ntk(x), plain, rtol=0, atol=0)
    assert tried


def test_windows_that_no_loop_takes_are_not_counted_for_one(monkeypatch):
    asked, due = [], compiled.due
    monkeypatch.setattr(compiled, "due", lambda loop, *arrays: asked.append(loop) or due(loop, *arrays))
    net = nn.Sequential(nn.Conv2d(2, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(8 * 6, 1))
    lzr.kernel(net).ntk(torch.randn(3, 2, 2, 3, dtype=torch.float64))
    assert asked
    assert convolution.loop not in asked


@pytest.mark.parametrize("over", [True, False])
def test_a_layers_numbers_go_to_their_places_and_arrays_of_two_layouts_are_left_alone(over):
    k, theta = torch.rand(6, 5, dtype=torch.float64), torch.rand(6, 5, dtype=torch.float64)
    right = 2.0 * k + 0.5, 2.0 * theta + 3.0 * k + 0.25
    assert compiled.start()
    assert affine_loop.combine(k, theta.T.contiguous().T, (2.0, 0.5, 3.0, 0.25), over) is None
    torch.testing.assert_close(affine_loop.combine(k, theta, (2.0, 0.5, 3.0, 0.25), over), right)

"""The compiled rectifier against torch's operations, which are held to quadrature elsewhere."""

from __future__ import annotations

import math

import pytest
import torch

from lazyrich import compiled
from lazyrich.gaussian.rectifier import Rectifier
from lazyrich.gaussian.rectifier_loop import _arctangent, rectify

pytestmark = pytest.mark.skipif(not compiled.start(), reason="numba, or torch's OpenMP library, is not here")
SHAPES = {
    "pairs of samples": ((7, 1), (1, 9)),
    "positions, equal ones": ((4, 1, 5, 3), (1, 6, 5, 3)),
    "positions, all pairs": ((4, 1, 5, 3, 1, 1), (1, 6, 1, 1, 5, 3)),
    "one sample with itself, all pairs of positions": ((4, 5, 1), (4, 1, 5)),
    "one sample": ((1, 1), (1, 9)),
    "more axes than a loop has": ((4, 1, 5, 1, 3), (1, 6, 1, 2, 3)),
}


def drawn(shapes, dtype, scale=1.0):
    """Covariances of correlations in (-1, 1), equal and opposite ones among them, and the variances."""
    shape = torch.broadcast_shapes(*shapes)
    q1, q2 = (scale * (0.5 + torch.rand(s, dtype=torch.float64)) for s in shapes)
    rho = 2 * torch.rand(shape, dtype=torch.float64) - 1
    rho.view(-1)[::5] = 1.0
    rho.view(-1)[1::7] = -1.0
    rho.view(-1)[2::7] = 1 - 1e-9
    return (rho * (q1 * q2).sqrt()).to(dtype), q1.to(dtype), q2.to(dtype)


def both(dual, c, q1, q2, below=None):
    """Without loops and with them."""
    first, second = dual.prepared(q1)[1:], dual.prepared(q2)[1:]
    compiled._done = 0
    plain = dual.between(c, first, second, True, below)
    assert compiled.start()
    return plain, dual.between(c, first, second, True, below)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", [*SHAPES])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_loop_gives_what_torch_gives(kind, dtype, scale):
    dual = Rectifier("leaky", 0.2, 1.0)
    c, q1, q2 = drawn(SHAPES[kind], dtype, scale)
    (kernel, slope), (made, tilt) = both(dual, c, q1, q2)
    digits = 2e-6 if dtype == torch.float32 else 4e-15
    torch.testing.assert_close(made, kernel, rtol=digits, atol=digits * scale)
    torch.testing.assert_close(tilt, slope, rtol=digits, atol=digits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", [*SHAPES])
def test_slope_comes_times_what_is_below(kind, dtype):
    dual = Rectifier("leaky", 0.2, 1.0)
    c, q1, q2 = drawn(SHAPES[kind], dtype)
    below = torch.randn(c.shape, dtype=torch.float64).to(dtype)
    (_, slope), _ = both(dual, c, q1, q2)
    for given in (below, below.new_tensor([3.0]).expand(c.shape)):  # the second has no entries of its own to walk
        for _, found in both(dual, c, q1, q2, given):
            digits = 2e-6 if dtype == torch.float32 else 4e-15
            torch.testing.assert_close(found, slope * given, rtol=digits, atol=4 * digits)


def test_loop_is_taken(monkeypatch):
    def never(*arrays):
        raise AssertionError("torch's operations were taken")

    monkeypatch.setattr(Rectifier, "_walk", never)
    assert compiled.start()
    c, q1, q2 = drawn(SHAPES["positions, all pairs"], torch.float64)
    dual = Rectifier("relu")
    for below in (None, torch.ones_like(c)):
        dual.between(c, dual.prepared(q1)[1:], dual.prepared(q2)[1:], True, below)


def test_float32_keeps_its_digits_near_equal_and_opposite_inputs():
    dual, angles = Rectifier("relu"), torch.tensor([1e-3, 1e-2, 1.0, math.pi - 1e-2, math.pi - 1e-3], dtype=torch.float64)
    x = torch.stack([angles.cos(), angles.sin()], 1)
    x, y = x.float(), torch.tensor([[1.0, 0.0]])
    c, q1, q2 = y @ x.T, (y * y).sum(1)[:, None], (x * x).sum(1)[None]
    _, (_, slope) = both(dual, c, q1, q2)
    exact = dual.both(c.double(), q1.double(), q2.double())[1]
    torch.testing.assert_close(slope.double(), exact, rtol=0, atol=2e-7)


def test_non_finite_covariances_stay_so():
    c, q1, q2 = drawn(SHAPES["pairs of samples"], torch.float64)
    c[0, 0], c[1, 1] = math.nan, math.inf
    dual = Rectifier("relu")
    _, (kernel, _) = both(dual, c, q1, q2)
    assert not kernel[[0, 1], [0, 1]].isfinite().any()
    assert kernel.isfinite().sum() == kernel.numel() - 2


def test_arrays_that_no_loop_walks_are_left_alone():
    c = torch.ones(4, 6, dtype=torch.float64).T  # rows do not lie in one piece
    roots = [torch.ones(6, 1), torch.zeros(6, 1), torch.ones(1, 4), torch.zeros(1, 4), torch.ones(1, 4)]
    kernel, slope = torch.zeros(6, 4, dtype=torch.float64), torch.zeros(6, 4, dtype=torch.float64)
    assert not rectify(c, [r.double() for r in roots], None, (0.5, 0.1), kernel, slope)
    assert not kernel.any()
    c, q1, q2 = drawn(((6, 1), (1, 4)), torch.float64)
    (kernel, slope), (made, tilt) = both(Rectifier("relu"), c.T.contiguous().T, q1, q2)
    torch.testing.assert_close((made, tilt), (kernel, slope), rtol=0, atol=0)


@pytest.mark.parametrize("which", ["first", "second"])
def test_variances_that_lie_in_no_one_piece_are_read_where_they_lie(which):
    shapes = {"first": ((7, 18), (1, 9)), "second": ((1, 5, 3), (8, 1, 3))}[which]
    q1, q2 = (0.5 + torch.rand(s, dtype=torch.float64) for s in shapes)
    dual = Rectifier("relu")
    first, second = dual.prepared(q1)[1:], dual.prepared(q2)[1:]
    if which == "first":
        q1, first = q1[:, ::2], [part[:, ::2] for part in first]
    else:
        q2, second = q2[::2], [part[::2] for part in second]
    c = 0.3 * (q1 * q2).sqrt()
    assert compiled.start()
    found = dual.between(c, first, second, True)
    torch.testing.assert_close(found, dual.both(c, q1, q2), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("degree", "error"), [(9, 4e-9), (20, 1e-15)])
def test_polynomial_is_the_arc_tangent(degree, error):
    r = torch.linspace(1e-9, 1, 10_001, dtype=torch.float64)
    found = sum(float(a) * (r - 0.5) ** i for i, a in enumerate(_arctangent(degree)))
    assert (found * r.sqrt() / r.sqrt().atan() - 1).abs().max() < error

"""Loops: taken once they pay, by torch's own threads, and never where they cannot be."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from lazyrich import compiled

loops = pytest.mark.skipif(not compiled.start(), reason="numba, or torch's OpenMP library, is not here")


@pytest.fixture
def _fresh():
    compiled._possible.cache_clear()
    yield
    compiled._possible.cache_clear()


@loops
def test_loops_are_due_once_as_much_was_computed_without_as_compiling_takes(monkeypatch):
    monkeypatch.setattr(compiled, "PRICE", 1000)
    assert [compiled.due(str, torch.empty(100)) for _ in range(4)] == [False, False, True, True]


UNREAD = [
    torch.empty(9, device="meta"),
    torch.empty(9, dtype=torch.float16),
    torch.empty(9, dtype=torch.float64),  # beside single precision
    torch.empty(9, requires_grad=True),
]


@loops
@pytest.mark.parametrize("other", UNREAD)
def test_loops_are_not_due_for_what_they_cannot_read(other):
    assert compiled.start()
    assert not compiled.due(str, torch.empty(9), other)
    assert other.dtype == torch.float64 or not compiled.due(str, other)


@loops
def test_loops_are_not_due_where_forward_derivatives_are_carried_along():
    assert compiled.start()
    with forward_ad.dual_level():
        carried = forward_ad.make_dual(torch.ones(9), torch.ones(9))
        assert not compiled.due(str, carried)
        assert compiled.due(str, forward_ad.unpack_dual(carried).primal)


@loops
@pytest.mark.parametrize("error", [ImportError, SystemError, TypeError])
def test_a_loop_that_does_not_compile_is_tried_once_and_not_taken(error):
    tried = []

    def loop(dtype):
        tried.append(dtype)
        raise error("Numba needs another NumPy")

    assert compiled.start()
    assert not any(compiled.due(loop, torch.empty(9)) for _ in range(3))
    assert tried == [torch.float32]


@loops
def test_threads_are_torchs_beside_other_openmp_libraries_and_behind_links(monkeypatch, tmp_path):
    import sklearn.cluster  # noqa: F401  brings a libgomp of its own

    monkeypatch.setattr(torch, "__file__", str(tmp_path / "torch" / "__init__.py"))
    assert compiled.team.__wrapped__() is not None


@pytest.mark.usefixtures("_fresh")
def test_without_numba_nothing_is_due(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not compiled.start()
    assert not compiled.due(str, torch.empty(100))


@pytest.mark.usefixtures("_fresh")
def test_without_the_library_of_torchs_threads_nothing_is_due(monkeypatch):
    monkeypatch.setattr(compiled, "team", lambda: None)
    assert not compiled.start()
    assert not compiled.due(str, torch.empty(100))


@loops
@pytest.mark.parametrize(("threads", "rows"), [(1, 5), (2, 1), (2, 2), (3, 100_000)])
def test_threads_share_all_rows_and_no_row_twice(threads, rows):
    from numba import carray

    share = compiled.share()

    def count(data):
        n = carray(data[1], 1, np.int64)[0]
        start, stop = share(n)
        seen = carray(data[0], n, np.int64)
        for i in range(start, stop):
            seen[i] += 1

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        seen = np.zeros(rows, dtype=np.int64)
        compiled.loop(count)((seen, np.array([rows])), rows * compiled.LEAST)
    finally:
        torch.set_num_threads(before)
    assert (seen == 1).all()

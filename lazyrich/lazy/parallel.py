"""Tiles of a matrix, and working on several at once.

Tiles are small enough for a processor's cache, where one thread a tile does better than all threads on each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")


def squares(rows: int, columns: int, size: int, symmetric: bool) -> Iterator[tuple[slice, slice]]:
    """Tiles of a matrix in rows; of a symmetric one those on and above the diagonal.

    Example:
        >>> [(r.start, c.start) for r, c in squares(4, 4, 2, symmetric=True)]
        [(0, 0), (0, 2), (2, 2)]
    """
    for i in range(0, rows, size):
        for j in range(i if symmetric else 0, columns, size):
            yield slice(i, min(i + size, rows)), slice(j, min(j + size, columns))


def in_parallel(function: Callable[[Item], Result], items: Sequence[Item], like: Tensor) -> Iterator[Result]:
    """Results in order, worked out by as many threads as torch may use; few are held at a time.

    On other devices, with gradients or with one thread, one after the other.
    """
    threads = min(torch.get_num_threads(), len(items))
    if threads < 2 or like.device.type != "cpu" or torch.is_grad_enabled():
        yield from map(function, items)
        return
    whole = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=_single)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(whole)


def _single() -> None:
    """A worker works alone, and needs no gradients (the setting belongs to a thread)."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)

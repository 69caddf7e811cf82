"""Batches: decided by a seed and a step and nothing else, every sample once an epoch."""

from __future__ import annotations

import pytest
import torch

from lazyrich.data import ArrayData


def numbered(n: int) -> ArrayData:
    return ArrayData(torch.arange(float(n)), torch.arange(n))


def epoch_of(data: ArrayData, size: int, epochs: int, seed: int = 0) -> list[list[int]]:
    """The samples in the order in which they come, cut into epochs."""
    n, steps = len(data), -(-len(data) * epochs // size)
    stream = torch.cat([data.batch(size, step, seed)[1] for step in range(steps)]).tolist()
    return [stream[i * n : (i + 1) * n] for i in range(epochs)]


@pytest.mark.parametrize(("n", "size"), [(12, 3), (10, 3), (10, 7), (7, 7), (5, 1), (64, 10)])
def test_every_epoch_visits_every_sample_once(n: int, size: int) -> None:
    for epoch in epoch_of(numbered(n), size, 4):
        assert sorted(epoch) == list(range(n))


def test_epochs_and_seeds_have_their_own_order() -> None:
    data = numbered(50)
    first, second, third = epoch_of(data, 8, 3)
    other = epoch_of(data, 8, 1, seed=1)[0]
    orders = {tuple(order) for order in (first, second, third, other)}
    assert len(orders) == 4
    assert tuple(range(50)) not in orders


def test_seeds_and_epochs_are_not_confused() -> None:
    data = numbered(50)
    assert epoch_of(data, 50, 2, seed=0)[1] != epoch_of(data, 50, 1, seed=1)[0]
    assert epoch_of(data, 50, 2, seed=1)[0] != epoch_of(data, 50, 2, seed=11)[0]


@pytest.mark.parametrize("size", [1, 5, 9])
def test_every_batch_has_its_size_also_over_the_end_of_an_epoch(size: int) -> None:
    assert {len(numbered(10).batch(size, step)[0]) for step in range(25)} == {size}


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    for step in range(3):
        assert sorted(numbered(6).batch(100, step)[1].tolist()) == list(range(6))


def test_inputs_and_targets_stay_together() -> None:
    for step in range(8):
        x, y = numbered(20).batch(6, step)
        assert x.long().tolist() == y.tolist()


def test_a_step_does_not_depend_on_the_steps_asked_for_before() -> None:
    data = numbered(30)
    forward = [data.batch(7, step)[1].tolist() for step in range(12)]
    backward = [data.batch(7, step)[1].tolist() for step in reversed(range(12))][::-1]
    assert forward == backward


def test_batches_and_subsets_leave_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    numbered(20).batch(5, 2)
    numbered(20).subset(5)
    assert torch.equal(torch.rand(4), expected)


def test_batches_do_not_depend_on_the_global_generator() -> None:
    torch.manual_seed(0)
    first = numbered(20).batch(5, 2)[1]
    torch.manual_seed(1)
    assert torch.equal(numbered(20).batch(5, 2)[1], first)


def test_the_order_of_a_seed_is_the_same_on_every_machine() -> None:
    assert numbered(10).batch(10, 0, seed=0)[1].tolist() == [9, 4, 1, 3, 2, 8, 6, 5, 7, 0]

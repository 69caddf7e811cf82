"""Batches depend on seed and step alone, and unsound data is refused."""

import pytest
import torch

from lazyrich.data import ArrayData
from lazyrich.errors import DataError


def counted(n: int) -> ArrayData:
    """Sample i is the number i, its label too, so that a batch tells which samples it took."""
    return ArrayData(torch.arange(float(n)).unsqueeze(1), torch.arange(n))


def visited(data: ArrayData, size: int, steps: range, seed: int = 0) -> list[int]:
    return torch.cat([data.batch(size, step, seed)[1] for step in steps]).tolist()


def test_the_same_seed_and_step_give_the_same_batch_in_any_order():
    data = counted(50)
    late, early = data.batch(8, 9, seed=3), data.batch(8, 0, seed=3)
    assert torch.equal(counted(50).batch(8, 0, seed=3)[1], early[1])
    assert torch.equal(counted(50).batch(8, 9, seed=3)[1], late[1])


def test_batches_are_pinned_so_that_a_stored_run_can_be_resumed():
    assert visited(counted(6), 3, range(3), seed=1) == [3, 2, 4, 5, 1, 0, 0, 3, 1]


def test_seeds_and_epochs_each_change_the_order():
    data = counted(50)
    first = visited(data, 50, range(1))
    assert visited(data, 50, range(1), seed=1) != first
    assert visited(data, 50, range(1, 2)) != first
    assert first != list(range(50))


@pytest.mark.parametrize("size", [1, 5, 10])
def test_every_sample_is_visited_once_an_epoch(size):
    data, steps = counted(10), 10 // size
    for epoch in range(3):
        seen = visited(data, size, range(epoch * steps, (epoch + 1) * steps))
        assert sorted(seen) == list(range(10))


def test_batches_that_cross_epochs_still_visit_every_sample_once_in_each():
    seen = visited(counted(10), 4, range(10))
    assert len(seen) == 40
    for epoch in range(4):
        assert sorted(seen[10 * epoch : 10 * epoch + 10]) == list(range(10))


def test_a_batch_larger_than_the_data_is_all_of_it():
    assert sorted(visited(counted(5), 99, range(2, 3))) == [0, 1, 2, 3, 4]


def test_inputs_and_targets_stay_paired():
    data = counted(30)
    for x, y in (data.batch(7, 11, 5), (data.subset(9, 2).x, data.subset(9, 2).y)):
        assert torch.equal(x[:, 0].long(), y)


def test_the_global_generator_is_neither_used_nor_moved():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    once = counted(20).batch(5, 3)[1], counted(20).subset(6).y
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    again = counted(20).batch(5, 3)[1], counted(20).subset(6).y
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize(("size", "step"), [(0, 0), (-1, 0), (4, -1)])
def test_a_batch_that_cannot_be_is_refused(size, step):
    with pytest.raises(DataError, match=f"batch size {size} at step {step}"):
        counted(10).batch(size, step)


def test_a_subset_is_deterministic_without_repeats_and_keeps_the_number_of_classes():
    data = counted(20)
    few = data.subset(5, seed=4)
    assert torch.equal(few.y, data.subset(5, seed=4).y)
    assert not torch.equal(few.y, data.subset(5, seed=5).y)
    assert len(set(few.y.tolist())) == 5
    assert few.classes == 20
    assert sorted(data.subset(20).y.tolist()) == list(range(20))


@pytest.mark.parametrize("n", [0, -1, 21])
def test_a_subset_larger_than_the_data_is_refused(n):
    with pytest.raises(DataError, match=f"n = {n}, expected between 1 and the 20"):
        counted(20).subset(n)


def test_standardize_gives_mean_zero_variance_one_over_all_entries_together():
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 9.0]) + 7
    done = ArrayData(x, torch.zeros(200)).standardize().x
    assert abs(done.mean().item()) < 1e-6
    assert done.var(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert done.square().sum(1).mean().item() == pytest.approx(3, rel=1e-5)  # ||x||^2 is about d
    ratio = (x[1] - x[0]) / (done[1] - done[0])  # one scale for all columns
    assert torch.allclose(ratio, ratio[0].expand(3), rtol=1e-4)


def test_standardize_refuses_what_has_no_scale():
    with pytest.raises(DataError, match="all inputs of 'arrays' are equal"):
        ArrayData(torch.full((5, 3), 0.1), torch.zeros(5)).standardize()
    with pytest.raises(DataError, match="tokens"):
        ArrayData(torch.arange(6).reshape(3, 2), torch.zeros(3)).standardize()


def test_flatten_and_autoencoder_keep_the_samples_in_order():
    images = torch.arange(24.0).reshape(2, 1, 3, 4)
    data = ArrayData(images, torch.tensor([0, 3]))
    assert torch.equal(data.flatten().x, images.reshape(2, 12))
    assert data.flatten().classes == 4
    auto = data.as_autoencoder()
    assert torch.equal(auto.y, images.reshape(2, 12))
    assert torch.equal(auto.x, images)
    assert auto.classes is None


def test_one_dimensional_inputs_flatten_to_a_column():
    data = ArrayData(torch.arange(3.0), torch.arange(3))
    assert data.flatten().x.shape == data.as_autoencoder().y.shape == (3, 1)


def test_the_fingerprint_follows_content_and_nothing_else():
    data = counted(10)
    assert data.fingerprint() == counted(10).fingerprint()
    assert data.fingerprint() == ArrayData(data.x, data.y, "another name").fingerprint()
    nudged, relabelled = data.x.clone(), data.y.clone()
    nudged[3, 0] += 1e-6
    relabelled[0] = 1
    others = [
        ArrayData(nudged, data.y),
        ArrayData(data.x, relabelled),
        ArrayData(data.x.squeeze(1), data.y),
        ArrayData(data.x.double(), data.y),
        ArrayData(data.x.bfloat16(), data.y),
    ]
    assert len({data.fingerprint(), *(other.fingerprint() for other in others)}) == 6


def test_the_fingerprint_does_not_depend_on_memory_layout():
    x = torch.arange(6.0).reshape(2, 3)
    turned = x.t().contiguous().t()
    assert not turned.is_contiguous()
    assert ArrayData(x, torch.arange(2)).fingerprint() == ArrayData(turned, torch.arange(2)).fingerprint()


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        (torch.tensor([[1.0], [float("nan")]]), torch.arange(2), "inputs of 'arrays' hold NaN or infinity in 1 of 2"),
        (torch.tensor([[1.0], [float("inf")]]), torch.arange(2), "inputs of 'arrays' hold NaN"),
        (torch.ones(2, 1), torch.tensor([0.0, float("nan")]), "targets of 'arrays' hold NaN"),
        (torch.ones(3, 1), torch.arange(2), "give one target for each input"),
        (torch.ones(3, 1), torch.tensor(1), "give one target for each input"),
        (torch.ones(3, 1), torch.ones(3, 0), "give one target for each input"),
        (torch.ones(0, 4), torch.arange(0), "is empty"),
        (torch.ones(4, 0), torch.arange(4), "is empty"),
        (torch.tensor(1.0), torch.arange(1), "is empty"),
        (torch.ones(2, 1), torch.tensor([0, -1]), "label -1, expected labels that count from 0"),
        (torch.ones(2, 1, dtype=torch.complex64), torch.arange(2), "inputs of 'arrays' are torch.complex64"),
        (torch.ones(2, 1, dtype=torch.uint8), torch.arange(2), "inputs of 'arrays' are torch.uint8"),
        (torch.ones(2, 1), torch.arange(2, dtype=torch.int32), "targets of 'arrays' are torch.int32"),
    ],
)
def test_unsound_data_is_refused(x, y, told):
    with pytest.raises(DataError, match=told):
        ArrayData(x, y)


def test_classes_may_be_told_but_must_fit_the_labels():
    assert ArrayData(torch.ones(2, 1), torch.tensor([0, 2]), classes=10).classes == 10
    with pytest.raises(DataError, match="label 2, expected labels below classes = 2"):
        ArrayData(torch.ones(2, 1), torch.tensor([0, 2]), classes=2)
    with pytest.raises(DataError, match="leave classes out"):
        ArrayData(torch.ones(2, 1), torch.ones(2), classes=2)


@pytest.mark.parametrize("shape", [(4,), (4, 3)])
def test_numbers_are_fine_as_targets_and_have_no_classes(shape):
    assert ArrayData(torch.ones(4, 2), torch.full(shape, -0.5)).classes is None


def test_comparing_two_data_sets_does_not_crash():
    assert counted(3) != counted(3)  # identity; contents are compared by fingerprint
    assert len({counted(3), counted(3)}) == 2

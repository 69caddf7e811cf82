"""Data in memory: what it becomes, what tells it apart, and what is refused."""

import pytest
import torch

from lazyrich.data import ArrayData
from lazyrich.errors import DataError


def counted(n: int) -> ArrayData:
    """Sample i is the number i, its label too, so that a batch tells which samples it took."""
    return ArrayData(torch.arange(float(n)).unsqueeze(1), torch.arange(n))


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
        (torch.ones(3, 1), torch.arange(2), "3 inputs and 2 targets; they must pair up"),
        (torch.ones(3, 1), torch.tensor(1), "targets of shape .*one for each input"),
        (torch.ones(3, 1), torch.ones(3, 0), "targets of shape .*one for each input"),
        (torch.ones(0, 4), torch.arange(0), "is empty"),
        (torch.ones(4, 0), torch.arange(4), "is empty"),
        (torch.tensor(1.0), torch.arange(1), "is empty"),
        (torch.ones(2, 1), torch.tensor([0, -1]), "label -1; labels count from 0"),
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


def test_only_some_classes_in_the_order_given():
    data = ArrayData(torch.arange(20.0), torch.arange(20) % 5, "toy")
    pair = data.only([4, 1])
    assert pair.x.tolist() == [1.0, 4.0, 6.0, 9.0, 11.0, 14.0, 16.0, 19.0]
    assert pair.y.tolist() == [1, 0, 1, 0, 1, 0, 1, 0]
    assert (pair.classes, pair.name) == (2, "toy 4 1")


@pytest.mark.parametrize(
    ("classes", "words"),
    [([1], "two or more different ones"), ([1, 1], "different ones"), ([0, 7], "no sample of class 7; its classes are 0 to 4")],
)
def test_classes_that_are_not_there_are_refused(classes, words):
    data = ArrayData(torch.arange(20.0), torch.arange(20) % 5, "toy")
    with pytest.raises(DataError, match=words):
        data.only(classes)
    with pytest.raises(DataError, match="no classes to choose from"):
        ArrayData(torch.arange(4.0), torch.arange(4.0)).only([0, 1])


def test_what_is_no_tensor_or_no_number_is_refused():
    data = ArrayData(torch.ones(6, 2), torch.arange(6) % 3)
    for call, words in [
        (lambda: ArrayData("3", data.y), "the inputs of 'arrays' are str, expected a tensor"),
        (lambda: ArrayData(data.x, None), "the targets of 'arrays' are NoneType, expected a tensor"),
        (lambda: ArrayData(data.x, data.y, classes="x"), "got classes = 'x'"),
        (lambda: data.subset("3"), "got n = '3'"),
        (lambda: data.batch("3", 0), "got batch size '3'"),
        (lambda: data.only(3), "got classes 3, expected two or more labels"),
        (lambda: data.only(["a", "b"]), "expected two or more labels"),
    ]:
        with pytest.raises(DataError, match=words):
            call()
    assert data.only(torch.tensor([2, 0])).y.tolist() == data.only([2, 0]).y.tolist()

"""One verb for all data: names, references, tensors, arrays and data sets, and what is refused of each."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from lazyrich.data import ArrayData, load
from lazyrich.errors import DataError, UsageError

X = torch.arange(24.0).reshape(6, 4)
Y = torch.tensor([0, 1, 2, 0, 1, 2])


class Pairs(Dataset[Any]):
    """A map-style data set of whatever it is given."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.reads = 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        return self.items[index]


SAME = {
    "tensors": (X, Y),
    "list": [X, Y],
    "arrays": (X.numpy(), Y.numpy()),
    "double arrays": (X.double().numpy(), Y.int().numpy()),
    "nested lists": (X.tolist(), Y.tolist()),
    "data": ArrayData(X, Y),
    "TensorDataset": TensorDataset(X, Y),
    "Dataset of tensors": Pairs([(x, y) for x, y in zip(X, Y, strict=True)]),
    "Dataset of numbers": Pairs([(x.numpy(), int(y)) for x, y in zip(X, Y, strict=True)]),
    "Dataset of lists": Pairs([[x.tolist(), int(y)] for x, y in zip(X, Y, strict=True)]),
}


@pytest.mark.parametrize("form", SAME)
def test_every_form_of_the_same_data_is_read_the_same(form: str) -> None:
    data = load(SAME[form])
    assert data.x.dtype == torch.float32
    assert data.y.dtype == torch.int64
    assert torch.equal(data.x, X)
    assert torch.equal(data.y, Y)
    assert data.classes == 3


def test_ones_own_arrays_are_not_standardised() -> None:
    assert torch.equal(load((X * 100, Y)).x, X * 100)


def test_a_data_set_is_read_once() -> None:
    dataset = Pairs([(x, y) for x, y in zip(X, Y, strict=True)])
    data = load(dataset)
    for step in range(10):
        data.batch(4, step)
    assert dataset.reads == 6


@pytest.mark.parametrize("y", [torch.rand(6), torch.rand(6, 3).double(), np.linspace(0, 1, 6)])
def test_targets_that_are_numbers_stay_numbers(y: Any) -> None:
    data = load((X, y))
    assert data.y.dtype == torch.float32
    assert data.classes is None
    assert np.allclose(data.y.numpy(), np.asarray(y))


def test_tokens_stay_integers_and_integer_images_become_numbers() -> None:
    assert load((torch.arange(12).reshape(6, 2), Y)).x.dtype == torch.int64
    assert load((torch.zeros(6, 1, 3, 3, dtype=torch.uint8), Y)).x.dtype == torch.float32


def test_inputs_alone_are_an_autoencoders_data() -> None:
    images = torch.randn(6, 1, 2, 2)
    for value in (images, images.numpy()):
        data = load(value, target="input")
        assert torch.equal(data.x, images)
        assert torch.equal(data.y, images.flatten(1))
    with pytest.raises(
        DataError, match=r"inputs without targets; give a pair \(x, y\), or lazyrich.data.load\(x, target=.input.\)"
    ):
        load(images)


def test_target_input_replaces_labels_by_the_flattened_inputs() -> None:
    data = load("digits", target="input", n=10, flatten=False)
    assert data.x.shape == (10, 1, 8, 8)
    assert torch.equal(data.y, data.x.flatten(1))
    assert data.classes is None


def test_digits_are_whole_standardised_and_known() -> None:
    data = load("digits")
    assert data.x.shape == (1797, 64)
    assert data.y[:6].tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.bincount(data.y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert data.x.mean().item() == pytest.approx(0, abs=1e-5)
    assert data.x.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert data.name == "digits"


def test_a_subset_is_chosen_by_its_seed_alone() -> None:
    first, again, other = load("digits", n=50), load("digits", n=50), load("digits", n=50, seed=1)
    assert len(first) == 50
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x)
    whole = {(tuple(x.tolist()), int(y)) for x, y in zip(*(lambda d: (d.x, d.y))(load("digits")), strict=True)}
    assert {(tuple(x.tolist()), int(y)) for x, y in zip(first.x, first.y, strict=True)} <= whole
    assert len({tuple(x.tolist()) for x in first.x}) == 50


@pytest.mark.parametrize("n", [0, -1, 7])
def test_a_subset_larger_than_the_data_or_empty_is_refused(n: int) -> None:
    with pytest.raises(DataError, match=f"got n = {n}, expected between 1 and the 6 samples"):
        load((X, Y), n=n)


def test_a_subset_of_all_is_all() -> None:
    assert sorted(load((X, Y), n=6).x[:, 0].tolist()) == X[:, 0].tolist()


def with_entry(value: float) -> torch.Tensor:
    x = X.clone()
    x[3, 2] = value
    return x


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ((with_entry(float("nan")), Y), "the inputs of 'tuple' hold NaN or infinity"),
        ((with_entry(float("inf")), Y), "the inputs of 'tuple' hold NaN or infinity"),
        ((X, torch.tensor([0.0, 1, float("nan"), 0, 1, 0])), "the targets of 'tuple' hold NaN or infinity"),
        ((X, Y[:5]), "has 6 inputs and 5 targets; they must pair up"),
        ((X, Y - 1), "has the label -1; labels count from 0"),
        ((X[:0], Y[:0]), "is empty"),
        ((torch.tensor(1.0), torch.tensor(1)), "is empty"),
        (([["a", "b"]], [0]), "no array of numbers"),
        (([[1.0], [1.0, 2.0]], [0, 1]), "no array of numbers"),
        (([{1: 2}], [0]), "no array of numbers"),
        (Pairs([]), "is empty"),
        (Pairs([X[0], X[1]]), "is Tensor, expected a pair"),
        (Pairs([(X[0], 1, 2)]), "expected a pair"),
        (Pairs([(X[0], 0), (X[0][:2], 1)]), "do not stack"),
        (Pairs([("a", 0), ("b", 1)]), "holds str, which is no array of numbers"),
        (3, "got data of type int"),
        (None, "got data of type NoneType"),
        ((x for x in X), "got data of type generator"),
        ("minst", "got data 'minst', expected digits, mnist, fashion_mnist, or module:function"),
        ("", "got data '', expected digits"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_data_that_is_not_what_it_should_be_is_refused_in_one_line(value: Any, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        load(value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_of_ones_own_are_refused_with_the_function_that_brings_them(tmp_path: Path) -> None:
    x, y = np.arange(12, dtype=np.float32).reshape(6, 2), np.array([0, 1, 2, 0, 1, 2])
    np.savetxt(tmp_path / "a.csv", np.c_[x, y], delimiter=",")
    np.savetxt(tmp_path / "a.tsv", np.c_[x, y], delimiter="\t")
    np.save(tmp_path / "a.npy", np.c_[x, y])
    np.savez(tmp_path / "a.npz", x=x, y=y)
    torch.save((torch.tensor(x), torch.tensor(y)), tmp_path / "a.pt")
    for ending in ("csv", "tsv", "npy", "npz", "pt"):
        with pytest.raises(DataError, match="a file, expected digits, mnist") as caught:
            load(str(tmp_path / f"a.{ending}"))
        line = re.search(r"give own.py:data; own.py is then: (def data.*)$", str(caught.value))
        assert line, caught.value
        (tmp_path / f"own_{ending}.py").write_text(line[1], encoding="utf-8")
        found = load(f"{tmp_path / f'own_{ending}.py'}:data")
        assert found.x.tolist() == x.tolist()
        assert found.y.tolist() == y.tolist()
        assert found.classes == 3


def test_equal_inputs_cannot_be_standardised() -> None:
    with pytest.raises(DataError, match="all inputs of 'arrays' are equal"):
        ArrayData(torch.ones(4, 2), torch.zeros(4).long()).standardize()


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(DataError, match="got target 'label', expected one of labels, input"):
        load("digits", target="label")


def test_a_reference_to_a_function_is_called_for_its_data(tmp_path: Path) -> None:
    file = tmp_path / "my_data.py"
    file.write_text("import torch\ndef data():\n    return torch.ones(3, 2), torch.tensor([0, 1, 1])\n")
    data = load(f"{file}:data")
    assert data.x.shape == (3, 2)
    assert data.name == f"{file}:data"
    with pytest.raises(UsageError, match="has no 'dat'; did you mean data"):
        load(f"{file}:dat")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda x, y: (x.clone(), y.clone()), True),
        (lambda x, y: (x.t().contiguous().t(), y), True),
        (lambda x, y: (with_entry(0.5), y), False),
        (lambda x, y: (x, 2 - y), False),
        (lambda x, y: (x.reshape(6, 2, 2), y), False),
        (lambda x, y: (x, y.float()), False),
        (lambda x, y: (x.flip(0), y), False),
    ],
)
def test_the_fingerprint_changes_with_the_content_and_with_nothing_else(change: Callable[..., Any], same: bool) -> None:
    first, other = ArrayData(X, Y, "one"), ArrayData(*change(X, Y), "other")
    assert (first.fingerprint() == other.fingerprint()) is same
    assert len(first.fingerprint()) == 16

"""The published MNIST and Fashion-MNIST, where the machine has them ($LAZYRICH_DATA or a usual place)."""

from __future__ import annotations

from pathlib import Path

import pytest

from lazyrich.data import load
from lazyrich.data.images import places
from lazyrich.errors import DataError


@pytest.mark.parametrize(
    ("name", "first", "counts"),
    [("mnist", [5, 0, 4, 1, 9], {0: 5923, 1: 6742}), ("fashion_mnist", [9, 0, 0, 3, 0], dict.fromkeys(range(10), 6000))],
)
def test_the_published_images_are_read_as_published(name: str, first: list[int], counts: dict[int, int]) -> None:
    try:
        train, test = load(name), load(name, split="test")
    except DataError as error:
        pytest.skip(f"{name} is not on this machine: {error}")
    assert train.x.shape == (60000, 784)
    assert test.x.shape == (10000, 784)
    assert train.y[:5].tolist() == first
    assert {label: int((train.y == label).sum()) for label in counts} == counts
    assert train.x.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_fashion_in_a_folder_for_mnist_is_told_apart(tmp_path: Path) -> None:
    found = [place for place in places("fashion_mnist") if any(place.glob("train-labels-idx1-ubyte*"))]
    if not found:
        pytest.skip("Fashion-MNIST is not on this machine")
    (tmp_path / "mnist").symlink_to(found[0].resolve())
    with pytest.raises(DataError, match="holds the labels of fashion_mnist train, expected mnist train"):
        load("mnist", root=tmp_path)

"""One's own data, in its odder shapes, and the corners of the one verb."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from lazyrich.data import ArrayData, load
from lazyrich.errors import DataError, UsageError


def test_digits_have_no_test_split_and_do_not_pretend():
    with pytest.raises(DataError, match="split 'test' for data that comes whole; hold samples out"):
        load("digits", split="test")


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, np.uint8, np.int16, np.uint16, bool, ">f4"])
def test_arrays_of_any_real_kind_become_float32(kind):
    values = np.array([[0, 1, 1], [1, 0, 0]], dtype=np.int64).astype(kind)
    data = load((values, [0, 1]))
    assert data.x.dtype == torch.float32
    assert data.x.tolist() == [[0, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_a_table_of_whole_numbers_is_tokens_and_stays_whole(kind):
    data = load((torch.tensor([[3, 1], [2, 0]], dtype=kind), torch.tensor([0, 1])))
    assert data.x.dtype == torch.int64
    assert data.x.tolist() == [[3, 1], [2, 0]]


@pytest.mark.parametrize("kind", [np.uint8, np.int32, bool])
def test_labels_of_any_whole_kind_become_int64(kind):
    assert load((np.ones((2, 2)), np.array([0, 1], dtype=kind))).y.dtype == torch.int64


def test_array_data_passes_through():
    data = ArrayData(torch.ones(3, 2), torch.arange(3), "mine", classes=7)
    assert load(data) is data
    assert load(data, n=2).classes == 7


def test_what_is_loaded_carries_no_graph():
    x = torch.ones(3, 2, requires_grad=True)
    assert not load((x, x.sum(1))).y.requires_grad
    assert not load(x, target="input").x.requires_grad


class Squares(Dataset):
    """Item i is made when it is asked for."""

    def __init__(self, n: int = 5, item=lambda i: (torch.tensor([i, i * i]).float(), i)):
        self.n, self.item = n, item

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int):
        return self.item(index)


def test_torchs_own_datasets_are_read():
    x, y = torch.randn(6, 3), torch.arange(6)
    assert torch.equal(load(TensorDataset(x, y)).x, x)
    assert load(Subset(TensorDataset(x, y), [4, 1])).y.tolist() == [4, 1]  # length 2, yet no pair (x, y)


def test_a_dataset_of_inputs_alone_serves_an_autoencoder():
    dataset = Squares(3, lambda i: torch.full((2,), float(i)))
    assert load(dataset, target="input").y.tolist() == [[0, 0], [1, 1], [2, 2]]
    with pytest.raises(DataError, match="item 0 of 'Squares' is Tensor, expected a pair"):
        load(dataset)


def crash(index: int):
    raise KeyError(index)


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        (Squares(0), "'Squares' is empty"),
        (Squares(3, lambda i: {"x": i}), "item 0 of 'Squares' is dict, expected a pair"),
        (Squares(3, lambda i: (i, i, i)), "item 0 of 'Squares' is 3 things, expected a pair"),
        (Squares(3, lambda i: (i, i) if i else (i,)), "item 0 of 'Squares' is 1 things"),
        (Squares(3, lambda i: (torch.ones(i + 1), i)), "items of 'Squares' do not stack"),
        (Squares(3, lambda i: (torch.ones(2), "cat")), "'Squares' holds str, which is no array of numbers"),
        (Squares(3, crash), "item 0 of 'Squares' cannot be read: KeyError: 0"),
        (type("Stream", (IterableDataset,), {"__iter__": lambda self: iter([])})(), "got data of type Stream"),
    ],
)
def test_a_dataset_that_cannot_be_data_is_refused(dataset, told):
    with pytest.raises(DataError, match=told):
        load(dataset)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ((np.array([[1, None]], dtype=object), [0]), "no array of numbers"),
        (([[1.0, 2.0], [3.0]], [0, 1]), "no array of numbers"),
        ((np.array([["a"]]), [0]), "no array of numbers"),
        ((np.array([[1j]]), [0]), "complex"),
        ((np.array([[1.0], [np.nan]]), [0, 1]), "NaN"),
        ((np.array([[1e300]]), [0]), "infinity"),  # too large for float32
        ((np.ones((3, 2)), [0, 1]), "they must pair up"),
        ((np.ones((2, 2)), [0, -1]), "label -1"),
        ((np.ones((0, 2)), []), "is empty"),
        ((np.ones((2, 2)), None), "no array of numbers"),
        ({"x": np.ones((2, 2))}, "got data of type dict"),
        ({"y": [0, 1], "x": np.ones((2, 2))}, r"which holds 'y', 'x', expected a pair.*return \(d\['x'\], d\['y'\]\)"),
        (42, "got data of type int"),
        (None, "got data of type NoneType"),
        ("cifar", r"got data 'cifar', expected digits, mnist, fashion_mnist, or module:function .path/to/file.py:function"),
    ],
)
def test_what_is_no_data_is_refused(spec, told):
    with pytest.raises(DataError, match=told):
        load(spec)


@pytest.mark.parametrize(
    "returned",
    [
        "torch.ones(4, 2), torch.arange(4)",
        "numpy.ones((4, 2)), [0, 1, 2, 3]",
        "torch.utils.data.TensorDataset(torch.ones(4, 2), torch.arange(4))",
        "ArrayData(torch.ones(4, 2), torch.arange(4))",
    ],
)
def test_a_function_in_a_file_gives_data(tmp_path, returned):
    file = tmp_path / "mine.py"
    file.write_text(f"import numpy, torch\nfrom lazyrich.data import ArrayData\ndef data():\n    return {returned}\n")
    data = load(f"{file}:data", n=3)
    assert data.x.tolist() == [[1, 1]] * 3
    assert data.classes == 4


def test_a_function_that_gives_an_archive_is_told_what_to_return(tmp_path):
    np.savez(tmp_path / "d.npz", images=np.ones((2, 2)), labels=[0, 1])
    (tmp_path / "mine.py").write_text(f"import numpy as np\ndef make():\n    return np.load({str(tmp_path / 'd.npz')!r})\n")
    with pytest.raises(DataError, match=r"'images', 'labels', .*return \(d\['images'\], d\['labels'\]\)"):
        load(f"{tmp_path / 'mine.py'}:make")


def test_a_function_that_crashes_or_gives_no_data_is_told_by_its_reference(tmp_path):
    file = tmp_path / "faulty.py"
    file.write_text(
        "def crash():\n    raise ValueError('no disk')\ndef needs(x):\n    pass\ndef word():\n    return 'digits'\n"
    )
    with pytest.raises(DataError, match=r"faulty\.py:crash' crashed .*ValueError: no disk"):
        load(f"{file}:crash")
    with pytest.raises(DataError, match=r"faulty\.py:needs' crashed .*TypeError"):
        load(f"{file}:needs")
    with pytest.raises(DataError, match=r"got data of type str for '.*faulty\.py:word'"):
        load(f"{file}:word")
    with pytest.raises(UsageError, match="no 'absent'; its callables are crash, needs, word"):
        load(f"{file}:absent")


def test_a_loader_of_batches_is_sent_to_its_data_set():
    pairs = torch.utils.data.TensorDataset(torch.ones(6, 2), torch.arange(6))
    loader = torch.utils.data.DataLoader(pairs, 2, shuffle=True)
    with pytest.raises(DataError, match=r"got a DataLoader for 'DataLoader'.*give its data set, loader\.dataset"):
        load(loader)
    assert len(load(loader.dataset)) == 6

"""A Gram matrix on disk: equal to the one in memory, continued after a kill, refused when it is another one."""

import functools
import json
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import KernelError, LazyrichError
from lazyrich.inference import Streamed, conjugate_gradients, posterior
from lazyrich.lazy import write_gram


@functools.cache  # its trace is made once
def network(bias=0.1):
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    return lzr.kernel(net, init=lzr.init.variance(2.0, bias))


def inputs(n=23, dtype=torch.float64):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize(
    ("get", "dtype", "block"),
    [("ntk", torch.float64, 4), ("ntk", torch.float32, 10), ("nngp", torch.float64, 23), ("ntk", torch.float64, 100)],
)
def test_the_file_holds_the_kernel(tmp_path, get, dtype, block):
    x = inputs(dtype=dtype)
    gram = write_gram(network(), x, tmp_path / "gram.npy", get, block=block)
    want = getattr(network(), get)(x).numpy()
    assert gram.dtype == want.dtype
    np.testing.assert_allclose(gram, want, rtol=1e-12 if dtype == torch.float64 else 2e-6)
    assert np.array_equal(gram, gram.T)


def counting(kernel, monkeypatch):
    calls = []
    whole = type(kernel).__call__

    def counted(self, *args, **kwargs):
        calls.append(len(args[0]))
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(type(kernel), "__call__", counted)
    return calls


def test_only_blocks_on_and_above_the_diagonal_are_computed_and_each_once(tmp_path, monkeypatch):
    calls = counting(network(), monkeypatch)
    write_gram(network(), inputs(), tmp_path / "gram.npy", block=6)
    assert len(calls) == 10 + 1, "4 blocks a side: 10 of 16, and the corner that tells whose matrix it is"


KILLED = """
import os, signal, sys
sys.path.insert(0, {here!r})
from test_lazy_stream import inputs, network
from lazyrich.lazy import write_gram

def stop(done, total, what):
    if done == 4:
        os.kill(os.getpid(), signal.SIGKILL)

write_gram(network(), inputs(), {path!r}, block=6, progress=stop)
"""


def test_a_killed_run_is_continued_where_it_stopped(tmp_path, monkeypatch):
    path = tmp_path / "gram.npy"
    script = KILLED.format(here=str(__file__).rpartition("/")[0], path=str(path))
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == -9, found.stderr
    assert len(json.loads((tmp_path / "gram.npy.json").read_text())["done"]) == 4
    calls = counting(network(), monkeypatch)
    gram = write_gram(network(), inputs(), path, block=6)
    assert len(calls) == 6 + 1, "four of ten blocks were done"
    np.testing.assert_allclose(gram, network().ntk(inputs()), rtol=1e-12)


@pytest.mark.parametrize(
    ("again", "says"),
    [
        (lambda p: write_gram(network(0.5), inputs(), p, block=6), "other inputs, or of another network or law"),
        (lambda p: write_gram(network(), inputs() + 1, p, block=6), "other inputs, or of another network or law"),
        (lambda p: write_gram(network(), inputs(), p, block=5), "got block 6 there, expected 5"),
        (lambda p: write_gram(network(), inputs(), p, "nngp", block=6), "got get 'ntk' there, expected 'nngp'"),
        (lambda p: write_gram(network(), inputs(20), p, block=6), r"got shape \[23, 23\] there, expected \[20, 20\]"),
        (lambda p: write_gram(network(), inputs().float(), p, block=6), "float64, expected .* float32; give another path"),
    ],
)
def test_another_matrix_does_not_continue_this_one(tmp_path, again, says):
    path = tmp_path / "gram.npy"
    before = write_gram(network(), inputs(), path, block=6).copy()
    with pytest.raises(KernelError, match=says):
        again(path)
    assert np.array_equal(np.load(path), before)


BLIND = {"zeros": torch.zeros(6, 5, dtype=torch.float64), "alike": torch.ones(6, 5, dtype=torch.float64)}
BLIND["first"] = torch.cat([torch.zeros(5, 5), inputs(1, torch.float32)])


@pytest.mark.parametrize("data", BLIND)
def test_data_that_is_blind_to_the_network_does_not_continue_another_one(tmp_path, data):
    x = BLIND[data]
    ours, other = (lzr.kernel(nn.Sequential(nn.Linear(5, 8), f, nn.Linear(8, 1))) for f in (nn.ReLU(), nn.LeakyReLU(0.3)))
    write_gram(ours, x, tmp_path / "gram.npy")
    write_gram(ours, x, tmp_path / "gram.npy")
    with pytest.raises(KernelError, match="holds another matrix: got one of other inputs, or of another network"):
        write_gram(other, x, tmp_path / "gram.npy")


class Words(nn.Module):
    """Reads token indices: the first two of the samples below look the same in any table."""

    def __init__(self, slope):
        super().__init__()
        self.table, self.first, self.last = nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        self.slope = slope

    def forward(self, x):
        return self.last(nn.functional.leaky_relu(self.first(self.table(x).mean(1)), self.slope))


def test_token_indices_tell_networks_apart_by_their_operations(tmp_path):
    x = torch.zeros(12, 3, dtype=torch.long)
    x[1] = 4  # between the samples that are looked at
    torch.manual_seed(0)
    write_gram(lzr.kernel(Words(0.1)), x, tmp_path / "gram.npy")
    write_gram(lzr.kernel(Words(0.1)), x, tmp_path / "gram.npy")
    with pytest.raises(KernelError, match="holds another matrix"):
        write_gram(lzr.kernel(Words(0.2)), x, tmp_path / "gram.npy")


def test_a_network_that_reads_no_random_numbers_is_known_by_its_data(tmp_path):
    class Lookup(Words):
        def forward(self, x):
            return super().forward(x.long())

    x = torch.arange(8.0).reshape(4, 2)
    write_gram(lzr.kernel(Lookup(0.1)), x, tmp_path / "gram.npy")
    with pytest.raises(KernelError, match="holds another matrix"):
        write_gram(lzr.kernel(Lookup(0.2)), x, tmp_path / "gram.npy")


def test_a_lack_of_memory_gives_a_network_no_other_name(tmp_path, monkeypatch):
    identity, calls = sys.modules["lazyrich.lazy.identity"], []
    square = identity._square

    def full(*args):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory")
        return square(*args)

    monkeypatch.setattr(identity, "_square", full)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        write_gram(network(), inputs(), tmp_path / "gram.npy")
    assert not list(tmp_path.iterdir())


def truncated(path):
    path.write_bytes(path.read_bytes()[:1000])


SPOILT = {
    "truncated": (truncated, r"got .*gram.npy of 1000 bytes that is no whole .npy file .*expected \(23, 23\) float64"),
    "empty": (lambda path: path.write_bytes(b""), "of 0 bytes that is no whole .npy file"),
    "shape": (lambda path: np.save(path, np.zeros((23, 4))), r"of shape \(23, 4\) float64, expected \(23, 23\) float64"),
    "dtype": (lambda path: np.save(path, np.zeros((23, 23), np.float32)), r"\(23, 23\) float32, expected \(23, 23\) float64"),
}


@pytest.mark.parametrize("done", [10, 4])
@pytest.mark.parametrize("spoil", SPOILT)
def test_a_file_that_was_spoilt_is_not_trusted(tmp_path, spoil, done):
    path, (change, says) = tmp_path / "gram.npy", SPOILT[spoil]
    write_gram(network(), inputs(), path, block=6)
    record = tmp_path / "gram.npy.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"done": list(range(done))}))
    change(path)
    with pytest.raises(KernelError, match=says + ".*delete it to begin afresh"):
        write_gram(network(), inputs(), path, block=6)
    path.unlink()
    np.testing.assert_allclose(write_gram(network(), inputs(), path, block=6), network().ntk(inputs()), rtol=1e-12)


def test_a_file_of_somebody_else_is_not_written_over(tmp_path):
    np.save(tmp_path / "gram.npy", np.eye(3))
    with pytest.raises(KernelError, match="not a matrix of ours"):
        write_gram(network(), inputs(), tmp_path / "gram.npy")
    assert np.array_equal(np.load(tmp_path / "gram.npy"), np.eye(3))


def test_a_disk_that_cannot_hold_it_is_refused_at_once_and_nothing_is_left(tmp_path):
    """The file's whole size is claimed before the first block, so the disk cannot fill while streaming into it."""
    kernel, x, path, limit = network(), inputs(), tmp_path / "gram.npy", resource.getrlimit(resource.RLIMIT_FSIZE)
    kernel.ntk(x)  # nothing else is written below
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))  # Python ignores its signal
    try:
        with pytest.raises(KernelError) as refused:
            write_gram(kernel, x, path, block=6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "cannot make" in str(refused.value)
    assert "free space or give another path" in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["_reserve", "write_json", "os.replace"])
def test_a_stop_while_the_file_is_made_is_continued(tmp_path, monkeypatch, where):
    def stopped(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"lazyrich.lazy.stream.{where}", stopped)
        with pytest.raises(KeyboardInterrupt):
            write_gram(network(), inputs(), tmp_path / "gram.npy", block=6)
    gram = write_gram(network(), inputs(), tmp_path / "gram.npy", block=6)
    np.testing.assert_allclose(gram, network().ntk(inputs()), rtol=1e-12)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gram.npy", "gram.npy.json"]


def test_a_disk_that_fills_under_the_list_of_blocks_keeps_what_is_done(tmp_path, monkeypatch):
    path = tmp_path / "gram.npy"
    stream = sys.modules["lazyrich.lazy.stream"]
    whole, written = stream.write_json, []

    def full(where, value):
        written.append(1)
        if len(written) == 5:
            raise OSError(28, "No space left on device")
        return whole(where, value)

    monkeypatch.setattr(stream, "write_json", full)
    with pytest.raises(LazyrichError, match=r"No space left on device.*blocks are kept.*same call again"):
        write_gram(network(), inputs(), path, block=6)
    monkeypatch.setattr(stream, "write_json", whole)
    np.testing.assert_allclose(write_gram(network(), inputs(), path, block=6), network().ntk(inputs()), rtol=1e-12)


def test_a_posterior_from_the_file_is_the_posterior(tmp_path):
    x, y, k = inputs(), torch.sin(inputs()[:, :2]), network()
    write_gram(k, x, tmp_path / "gram.npy", block=6)
    found = conjugate_gradients(Streamed.mapped(tmp_path / "gram.npy", block=7), y, noise=1e-2, preconditioner="cholesky")
    test = inputs(40)[23:]
    want = posterior(k.ntk(x), y, k.ntk(test, x), noise=1e-2).mean
    torch.testing.assert_close(k.ntk(test, x) @ found.x, want, rtol=1e-6, atol=1e-8)


def test_a_half_written_file_is_not_solved_with(tmp_path):
    path, record = tmp_path / "gram.npy", tmp_path / "gram.npy.json"
    gram = write_gram(network(), inputs(), path, block=6)
    assert Streamed.mapped(gram[:5, :5]).shape == (5, 5)
    whole = json.loads(record.read_text())
    record.write_text(json.dumps(whole | {"done": [0, 1, 2, 3, 4]}))
    for given in (path, gram):
        with pytest.raises(KernelError, match="with 5 of its 10 blocks missing.*same call of write_gram finishes it"):
            Streamed.mapped(given)
    record.write_text(json.dumps(whole | {"done": None}))
    with pytest.raises(KernelError, match="gram.npy.json, expected the record of a matrix's blocks"):
        Streamed.mapped(path)
    for own in ('{"made by": "hand"}', "[]", "no json"):
        record.write_text(own)
        assert Streamed.mapped(path).shape == (23, 23)
    record.unlink()
    assert Streamed.mapped(path).shape == (23, 23)


def test_a_file_that_is_no_gram_is_refused(tmp_path):
    np.save(tmp_path / "thin.npy", np.zeros((3, 4)))
    (tmp_path / "text.npy").write_text("hello")
    for name, says in (("thin.npy", r"shape \(3, 4\)"), ("text.npy", "cannot read"), ("none.npy", "cannot read")):
        with pytest.raises(KernelError, match=says):
            Streamed.mapped(tmp_path / name)


def test_what_is_asked_for_must_exist():
    with pytest.raises(KernelError, match="got get='gram'"):
        write_gram(network(), inputs(), "nowhere.npy", "gram")


def test_a_network_with_outputs_at_positions_is_refused_before_anything_is_written(tmp_path):
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    with pytest.raises(KernelError, match=r"outputs at \(3,\) positions, expected one number a pair.*end it with a readout"):
        write_gram(lzr.kernel(net), torch.randn(4, 3, 5), tmp_path / "gram.npy")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda found: [], "got .*gram.npy.json with a list, expected the record of a matrix; remove both files"),
        (
            lambda found: {k: v for k, v in found.items() if k != "done"},
            "with 'done': None, expected the numbers of the blocks",
        ),
        (lambda found: found | {"done": [0.5]}, r"with 'done': \[0.5\], expected the numbers of the blocks"),
    ],
)
def test_a_record_that_is_none_is_refused_in_words(tmp_path, change, says):
    write_gram(network(), inputs(), tmp_path / "gram.npy", block=12)
    record = tmp_path / "gram.npy.json"
    record.write_text(json.dumps(change(json.loads(record.read_text()))))
    with pytest.raises(KernelError, match=says):
        write_gram(network(), inputs(), tmp_path / "gram.npy", block=12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_refused_dtype_leaves_nothing_behind(tmp_path, dtype):
    with pytest.raises(KernelError, match="expected float32 or float64"):
        write_gram(network(), inputs().to(dtype), tmp_path / "gram.npy", block=6)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_no_block_reached_is_removed_and_one_that_some_did_stays(tmp_path):
    def stop(at):
        def look(done, total, what):
            if done == at:
                raise RuntimeError("stop")

        return look

    for at, left in ((0, 0), (3, 2)):
        with pytest.raises(RuntimeError, match="stop"):
            write_gram(network(), inputs(), tmp_path / "gram.npy", block=6, progress=stop(at))
        assert len(list(tmp_path.iterdir())) == left
    np.testing.assert_allclose(
        write_gram(network(), inputs(), tmp_path / "gram.npy", block=6), network().ntk(inputs()), rtol=1e-12
    )


def test_inputs_are_a_tensor(tmp_path):
    with pytest.raises(KernelError, match="got inputs ndarray, expected a tensor"):
        write_gram(network(), inputs().numpy(), tmp_path / "gram.npy")


@pytest.mark.parametrize("block", [-1, 0, 2.5, True, "6"])
def test_a_block_is_a_whole_number_of_samples(tmp_path, block):
    with pytest.raises(KernelError, match=f"got block={block!r}, expected a whole number"):
        write_gram(network(), inputs(), tmp_path / "gram.npy", block=block)
    assert not list(tmp_path.iterdir())

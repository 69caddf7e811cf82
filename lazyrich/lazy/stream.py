"""A Gram matrix too large for memory: written to disk tile by tile, continued after a stop."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyrich.errors import KernelError, LazyrichError
from lazyrich.files import read_json, write_json
from lazyrich.lazy.identity import identity_of
from lazyrich.lazy.kernel import Kernel
from lazyrich.lazy.tile import squares

Progress = Callable[[int, int, str], None]


def write_gram(
    kernel: Kernel,
    x: Tensor,
    path: str | Path,
    get: str = "ntk",
    *,
    block: int = 2000,
    progress: Progress | None = None,
) -> np.memmap:
    """Write the kernel of a batch with itself to ``path`` (an .npy file) in blocks; the same call continues after a kill.

    Only the blocks on and above the diagonal are computed, one at a time. Which are done is kept beside the file in
    ``path.json``, written after each block has reached the disk, so a kill costs one block's time. What follows needs no more
    memory either: ``inference.conjugate_gradients(inference.Streamed.mapped(path), y, noise)`` gives the weights of the
    posterior mean, ``kernel.ntk(x_test, x) @ weights`` the mean itself.

    Args:
        kernel: of the network.
        x: inputs (N, ...).
        path: of the matrix, (N, N) in the inputs' dtype.
        get: 'nngp' or 'ntk'.
        block: samples a side of a block.
        progress: called with (blocks done, blocks in all, what is next).

    Returns:
        The matrix, mapped from disk, read-only.

    Raises:
        KernelError: if the file holds another matrix or was spoilt, the disk is full (finished blocks stay), or the network
            returns more than one number a sample.

    Example:
        >>> import lazyrich as lzr, tempfile, os
        >>> k = lzr.kernel(torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)))
        >>> x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> from lazyrich.inference import Streamed, conjugate_gradients
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "gram.npy")
        ...     gram = write_gram(k, x, path, block=2)
        ...     found = conjugate_gradients(Streamed.mapped(path), x.sum(1), noise=0.1)
        >>> bool(np.allclose(gram, k.ntk(x))), found.residual < 1e-8
        (True, True)
    """
    if get not in ("nngp", "ntk"):
        raise KernelError(f"got get='{get}', expected 'nngp' or 'ntk'")
    if isinstance(block, bool) or not isinstance(block, (int, np.integer)) or block < 1:
        raise KernelError(f"got block={block!r}, expected a whole number of samples a side, at least 1; the default is 2000")
    path, n, block = Path(path), len(x), int(block)
    blocks = list(squares(n, n, block, symmetric=True))
    settings = {"shape": [n, n], "get": get, "block": block, "identity": identity_of(kernel, x, get)}
    done = _begin(path, _dtype(x), settings)
    try:
        gram = np.lib.format.open_memmap(path, mode="r+")
        for i, (rows, columns) in enumerate(blocks):
            if i in done:
                continue
            if progress:
                progress(len(done), len(blocks), f"rows {rows.start}, columns {columns.start}")
            values = kernel(x[rows], None if rows == columns else x[columns], get=(get,))[0].detach().cpu().numpy()
            gram[rows, columns] = values
            if rows != columns:
                gram[columns, rows] = values.T
            gram.flush()
            done.add(i)
            write_json(_beside(path), settings | {"done": sorted(done)})
    except OSError as error:
        raise KernelError(
            f"cannot write {path}: {error.strerror or error}; {len(done)} of {len(blocks)} blocks are kept, free space and "
            "give the same call again"
        ) from error
    finally:
        if not done:
            _forget(path)
    if progress:
        progress(len(blocks), len(blocks), "done")
    return np.load(path, mmap_mode="r")


def _dtype(x: Tensor) -> np.dtype[Any]:
    """Of the matrix; what has no kernel is refused before a file is made for it."""
    found = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    if found not in (torch.float32, torch.float64):
        raise KernelError(f"got inputs in {found}, expected float32 or float64; cast them first: x.double()")
    return np.dtype(str(found).removeprefix("torch."))


def _begin(path: Path, dtype: np.dtype[Any], settings: dict[str, Any]) -> set[int]:
    """Blocks that are done already; a new file is made with its whole size reserved, so a full disk shows at once."""
    beside = _beside(path)
    if beside.exists() and path.exists():
        found = _record(beside)
        for key in ("shape", "get", "block"):
            if found.get(key) != settings[key]:
                raise _other(path, f"got {key} {found.get(key)!r} there, expected {settings[key]!r}")
        _check_file(path, dtype, tuple(settings["shape"]))
        if found.get("identity") != settings["identity"]:
            raise _other(path, f"got one of other inputs, or of another network or law, expected that of this call, "
                         f"whose identity is {settings['identity']}, not {found.get('identity')}")  # fmt: skip
        return set(found["done"])
    if path.exists():
        raise KernelError(f"{path} exists and is not a matrix of ours (no {beside.name}); give another path")
    part = path.with_name(path.name + ".part")  # the name comes last, after the record: a kill in between begins afresh
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        gram = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=tuple(settings["shape"]))
        gram.flush()
        _reserve(part)
        write_json(beside, settings | {"done": []})
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise KernelError(f"cannot make {path}: {error.strerror or error}; free space or give another path") from error
    return set()


def _other(path: Path, what: str) -> KernelError:
    return KernelError(f"{path} holds another matrix: {what}; give another path, or remove both files")


def _forget(path: Path) -> None:
    """Remove a file that no block was written to: it would only stand in the way of a mended call."""
    with suppress(OSError, LazyrichError):  # as on Windows, where a file that is mapped stays
        if not _record(_beside(path))["done"]:
            path.unlink(missing_ok=True)
            _beside(path).unlink(missing_ok=True)


def _record(beside: Path) -> dict[str, Any]:
    """What stands beside a matrix."""
    found = read_json(beside)
    if not isinstance(found, dict):
        raise KernelError(f"got {beside} with a {type(found).__name__}, expected the record of a matrix; remove both files")
    done = found.get("done")
    if not isinstance(done, list) or not all(type(i) is int and i >= 0 for i in done):
        raise KernelError(
            f"got {beside} with 'done': {done!r}, expected the numbers of the blocks that are done; remove both files, to begin "
            "afresh"
        )
    return found


def _check_file(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Refuse a file that is no longer what was begun: cut short by a copy, or written over."""
    mend = "give another path, or delete it to begin afresh"
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise KernelError(
            f"got {path} of {path.stat().st_size} bytes that is no whole .npy file ({error}), expected {shape} {dtype}; {mend}"
        ) from error
    if (found.shape, found.dtype) != (shape, dtype):
        raise KernelError(f"got {path} of shape {found.shape} {found.dtype}, expected {shape} {dtype}; {mend}")


def _reserve(path: Path) -> None:
    """Claim the file's blocks: writing into a hole of a mapped file on a full disk would kill the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")

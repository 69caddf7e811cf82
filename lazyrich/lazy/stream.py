"""A Gram matrix too large for memory: written to disk block by block, continued after a stop."""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from lazyrich.errors import KernelError, StoreError
from lazyrich.files import read_json, write_json
from lazyrich.lazy.kernel import Kernel
from lazyrich.lazy.tile import squares

Progress = Callable[[int, int, str], None]

_ALIKE = {"float64": 1e-9}  # how far a kernel may round apart from itself, relative; elsewhere 1e-4


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

    Only the blocks on and above the diagonal are computed, one at a time. Until the matrix is whole it is ``path.part``; which
    blocks are done is kept in ``path.json``, written after each block has reached the disk, so a kill or a full disk costs
    one block's time. What is returned goes straight into ``lazyrich.posterior``, which reads it block by block too.

    Args:
        kernel: of the network.
        x: inputs (N, ...).
        path: of the matrix, (N, N) in the kernel's dtype.
        get: 'nngp' or 'ntk'.
        block: samples a side of a block; memory is a few times block^2 numbers.
        progress: called with (blocks done, blocks in all, what is next).

    Returns:
        The matrix, mapped from disk, read-only.

    Raises:
        KernelError: if the file holds another matrix, cannot be written, or the disk is full (finished blocks stay).

    Example:
        >>> import lazyrich as lzr, tempfile
        >>> k = lzr.kernel(torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)))
        >>> x = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> train, test = x[:5], x[5:]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     gram = write_gram(k, train, f"{folder}/gram.npy", block=2)
        ...     found = lzr.posterior(gram, train.sum(1), (k.ntk(some, train) for some in test.split(2)), noise=0.1)
        >>> in_memory = lzr.posterior(k.ntk(train), train.sum(1), k.ntk(test, train), noise=0.1)
        >>> torch.allclose(found.mean, in_memory.mean)
        True
    """
    if get not in ("nngp", "ntk") or block < 1:
        raise KernelError(f"got get='{get}' and block {block}, expected 'nngp' or 'ntk', and at least one sample a block")
    path, n = Path(path), len(x)
    settings = _settings(kernel, x, get, block)
    blocks = list(squares(n, n, block, symmetric=True))
    start, done = len(_header(settings)), _begun(path, settings, len(blocks))
    try:
        if not path.exists():
            with _part(path).open("r+b") as file:
                for i, (rows, columns) in enumerate(blocks):
                    if i in done:
                        continue
                    if progress:
                        progress(len(done), len(blocks), f"rows {rows.start}, columns {columns.start}")
                    values = kernel(x[rows], None if rows == columns else x[columns], get=(get,))[0].detach().cpu().numpy()
                    _write(file, start, n, rows, columns, values)
                    write_json(_beside(path), settings | {"done": sorted(done | {i})})
                    done.add(i)
            os.replace(_part(path), path)
    except (OSError, StoreError) as error:
        raise KernelError(
            f"cannot write {path}: {_reason(error)}; {len(done)} of {len(blocks)} blocks are kept in "
            f"{_part(path).name}; free space and give the same call again"
        ) from error
    if progress:
        progress(len(blocks), len(blocks), "done")
    return np.load(path, mmap_mode="r")


def _write(file: BinaryIO, start: int, n: int, rows: slice, columns: slice, values: np.ndarray) -> None:
    """A block and its mirror image, down to the disk, in a file whose numbers begin at ``start``.

    Plainly, not into a mapping: a mapped file that the disk cannot hold kills the process, and its pages count as memory.
    """
    both = [(rows, columns, values)] + ([] if rows == columns else [(columns, rows, values.T)])
    for down, across, part in both:
        for i, line in zip(range(down.start, down.stop), part, strict=True):
            file.seek(start + (i * n + across.start) * values.itemsize)
            file.write(line.tobytes())
    file.flush()
    os.fsync(file.fileno())


def _begun(path: Path, settings: dict[str, Any], blocks: int) -> set[int]:
    """Blocks that are done already; for a new matrix its whole size is claimed, so a disk too small shows at once."""
    beside, part, header = _beside(path), _part(path), _header(settings)
    size = len(header) + math.prod(settings["shape"]) * np.dtype(settings["dtype"]).itemsize
    if there := next((file for file in (path, part) if file.exists()), None):
        done = _listed(there, beside, settings, blocks)
        damaged = there.stat().st_size != size or (there == path and len(done) < blocks)
        if damaged and (done or there == path):
            raise KernelError(f"{there} has been cut or changed; remove it and start anew")
        if done:
            return done
    try:
        write_json(beside, settings | {"done": []})
        with part.open("wb") as file:
            file.write(header)
            file.truncate(size)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
    except (OSError, StoreError) as error:
        for made in (part, beside):
            made.unlink(missing_ok=True)
        raise KernelError(
            f"cannot make {path} of {size / 1e9:.2g} GB: {_reason(error)}; free space or give another path"
        ) from error
    return set()


def _listed(there: Path, beside: Path, settings: dict[str, Any], blocks: int) -> set[int]:
    """The blocks in the list beside the file, which must be that of this very matrix."""
    if not beside.exists():
        raise KernelError(f"{there} is there without its list {beside.name}, so it may be anybody's; give another path")
    found = read_json(beside)
    found = found if isinstance(found, dict) else {}
    if odd := [key for key, value in settings.items() if not _alike(found.get(key), value, settings["dtype"])]:
        raise KernelError(f"{there} holds another matrix (its {odd[0]} differs); give another path, or remove it")
    done = found.get("done")
    if not isinstance(done, list) or any(i not in range(blocks) for i in done):
        raise KernelError(f"{beside} does not list blocks 0 to {blocks - 1}; remove {there.name} and start anew")
    return set(done)


def _settings(kernel: Kernel, x: Tensor, get: str, block: int) -> dict[str, Any]:
    """What makes this matrix this one: the inputs by their hash, the network by its kernel at three of them."""
    n = len(x)
    corner = kernel(x[torch.linspace(0, n - 1, min(n, 3)).long()], get=(get,))[0].detach().cpu()
    if corner.dim() != 2:
        raise KernelError(
            f"got a network with outputs at {tuple(corner.shape[2:])} positions, expected none; end it with a readout"
        )
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise KernelError(f"the inputs {tuple(x.shape)} hold values that are not finite; clean them")
    data = x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return {
        "shape": [n, n],
        "get": get,
        "block": block,
        "dtype": str(corner.dtype).removeprefix("torch."),
        "inputs": hashlib.sha256(data).hexdigest()[:16],
        "kernel": corner.double().flatten().tolist(),
    }


def _alike(found: Any, wanted: Any, dtype: str) -> bool:
    if not (isinstance(wanted, list) and isinstance(found, list) and len(found) == len(wanted)):
        return found == wanted
    return np.allclose(found, wanted, rtol=0, atol=_ALIKE.get(dtype, 1e-4) * float(np.abs(wanted).max()))


def _header(settings: dict[str, Any]) -> bytes:
    """The beginning of the .npy file."""
    header, descr = io.BytesIO(), np.lib.format.dtype_to_descr(np.dtype(settings["dtype"]))
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": tuple(settings["shape"])})
    return header.getvalue()


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")

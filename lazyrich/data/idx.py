"""The IDX format of MNIST: two zero bytes, a type byte, the number of axes, the sizes, then the numbers, big-endian."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from lazyrich.errors import DataError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | Path) -> np.ndarray:
    """Read an IDX file, gzipped or plain.

    Raises:
        DataError: if it cannot be read, or its length does not fit its header.

    Example:
        >>> import tempfile, os
        >>> path = os.path.join(tempfile.mkdtemp(), "three-idx1-ubyte")
        >>> _ = Path(path).write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]))
        >>> read_idx(path).tolist()
        [5, 0, 4]
    """
    path = Path(path)
    raw = _bytes(path)
    mend = "it is no complete IDX file; fetch it again"
    if len(raw) < 4 or raw[:2] != b"\x00\x00" or raw[2] not in TYPES:
        raise DataError(f"{path} starts with bytes {raw[:4].hex(' ') or 'none'}, expected 00 00, a type and axes: {mend}")
    axes, kind = raw[3], np.dtype(TYPES[raw[2]])
    start = 4 + 4 * axes
    if axes == 0 or len(raw) < start:
        raise DataError(f"{path} ends inside its header ({len(raw)} bytes, {axes} axes): {mend}")
    shape = struct.unpack(f">{axes}I", raw[4:start])
    expected = math.prod(shape) * kind.itemsize
    if len(raw) - start != expected:
        raise DataError(f"{path} holds {len(raw) - start} bytes of data, its header {shape} says {expected}: {mend}")
    return np.frombuffer(raw, dtype=kind, offset=start).reshape(shape)


def _bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); fetch it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error

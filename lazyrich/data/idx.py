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
_MEND = "it is no complete IDX file; delete it and fetch it again"


def read_idx(path: str | Path) -> np.ndarray:
    """Read an IDX file, gzipped or plain, whatever its name says.

    Args:
        path: the file.

    Returns:
        An array of the header's shape and type, in the byte order of this machine.

    Raises:
        DataError: if it cannot be read, is damaged, or its length does not fit its header.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "three-idx1-ubyte"
        >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]))
        >>> read_idx(path).tolist()
        [5, 0, 4]
    """
    path = Path(path)
    raw = _bytes(path)
    shape, kind, start = _header(raw, path)
    got, expected = len(raw) - start, math.prod(shape) * kind.itemsize
    if got != expected:
        fault = "truncated" if got < expected else "trailing bytes"
        raise DataError(f"{path} holds {got} bytes of data, its header {shape} says {expected} ({fault}): {_MEND}")
    return np.frombuffer(raw, dtype=kind, offset=start).reshape(shape).astype(kind.newbyteorder("="))


def _header(raw: bytes, path: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type and length of the header."""
    if len(raw) < 4 or raw[:2] != b"\x00\x00" or raw[2] not in TYPES:
        types = " ".join(f"{t:02x}" for t in TYPES)
        raise DataError(
            f"{path} starts with bytes {raw[:4].hex(' ') or 'none'}, "
            f"expected 00 00, a type ({types}) and a number of axes: {_MEND}"
        )
    axes = raw[3]
    start = 4 + 4 * axes
    if axes == 0 or len(raw) < start:
        raise DataError(f"{path} ends inside its header ({len(raw)} bytes, {axes} axes): {_MEND}")
    return struct.unpack(f">{axes}I", raw[4:start]), np.dtype(TYPES[raw[2]]), start


def _bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}), expected a whole gzip file; delete it and fetch it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; give a file that you may read") from error

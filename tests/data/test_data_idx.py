"""IDX files: what is whole is read, what is not is refused with the reason and the file."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from lazyrich.data.idx import TYPES, read_idx
from lazyrich.errors import DataError


def idx_bytes(array: np.ndarray, code: int = 0x08) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, code, array.ndim]) + sizes + array.astype(TYPES[code]).tobytes()


def written(folder: Path, raw: bytes) -> Path:
    path = folder / "some-idx"
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("code", sorted(TYPES))
@pytest.mark.parametrize("shape", [(7,), (2, 3), (4, 3, 2)])
def test_every_type_and_shape_is_read_back(tmp_path: Path, code: int, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape) * (100 if code in (0x0B, 0x0C) else 1)
    read = read_idx(written(tmp_path, idx_bytes(array, code)))
    assert read.shape == shape
    assert read.dtype == np.dtype(TYPES[code]).newbyteorder("=")
    assert read.dtype.isnative
    assert np.array_equal(read, array)


def test_gzipped_and_plain_files_read_the_same_whatever_they_are_called(tmp_path: Path) -> None:
    array = np.arange(24).reshape(2, 3, 4)
    plain = read_idx(written(tmp_path, idx_bytes(array)))
    zipped = read_idx(written(tmp_path, gzip.compress(idx_bytes(array))))
    assert np.array_equal(plain, array)
    assert np.array_equal(zipped, array)


def test_multi_byte_numbers_are_big_endian(tmp_path: Path) -> None:
    assert read_idx(written(tmp_path, bytes([0, 0, 0x0B, 1, 0, 0, 0, 1, 1, 2]))).tolist() == [0x0102]


WHOLE = idx_bytes(np.arange(6).reshape(2, 3))
ZIPPED = gzip.compress(bytes(range(256)) * 40, mtime=0)  # the clock would give every worker another test


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (WHOLE[:-1], "holds 5 bytes of data, its header (2, 3) says 6"),
        (WHOLE[:12], "holds 0 bytes of data, its header (2, 3) says 6"),
        (WHOLE + b"\x00", "holds 7 bytes of data, its header (2, 3) says 6"),
        (WHOLE[:9], "ends inside its header"),
        (WHOLE[:4], "ends inside its header"),
        (bytes([0, 0, 8, 0]), "ends inside its header"),
        (b"\x01" + WHOLE[1:], "starts with bytes 01 00 08 02"),
        (b"\x00\x01" + WHOLE[2:], "starts with bytes 00 01 08 02"),
        (b"\x00\x00\x07" + WHOLE[3:], "starts with bytes 00 00 07 02"),
        (b"<!DOCTYPE html>", "starts with bytes"),
        (b"\x00\x00", "starts with bytes 00 00,"),
        (b"", "starts with bytes none"),
        (gzip.compress(WHOLE[:-1], mtime=0), "holds 5 bytes"),
        (gzip.compress(b"", mtime=0), "starts with bytes none"),
        (ZIPPED[:-30], "is damaged"),
        (ZIPPED[:5], "is damaged"),
        (ZIPPED[:-8] + bytes(8), "is damaged"),
        (ZIPPED[:10] + b"\xff" * 40, "is damaged"),
        (b"\x1f\x8b", "is damaged"),
        (b"\x1f\x8b\x07" + bytes(20), "is damaged"),
        (bytes([0, 0, 0x0E, 3]) + b"\xff" * 12, "holds 0 bytes"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_with_the_reason(tmp_path: Path, raw: bytes, reason: str) -> None:
    path = written(tmp_path, raw)
    with pytest.raises(DataError) as caught:
        read_idx(path)
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)
    assert "fetch it again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read .*no-such: No such file"):
        read_idx(tmp_path / "no-such")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read .*directory"):
        read_idx(tmp_path)


def test_a_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, WHOLE)

    def closed(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", closed)
    with pytest.raises(DataError, match="cannot read .*some-idx: Permission denied"):
        read_idx(path)

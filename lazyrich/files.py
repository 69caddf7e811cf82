"""Files that are either wholly there or not at all, and numbers as JSON knows them."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from lazyrich.errors import StoreError


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file atomically: a reader sees the old content or the new, never half.

    Raises:
        StoreError: if the folder cannot be written.
    """
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file atomically, as ``write_text`` does.

    Raises:
        StoreError: if the folder cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}; give a folder that you may write to") from error
    finally:  # also on Ctrl-C; after the move there is nothing left to remove
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """Write a value as JSON, atomically."""
    return write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        StoreError: if it is missing, unreadable or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} is not JSON ({error}); was it written by lazyrich?") from error


def finite(value: float | None) -> float | None:
    """A number as JSON has it, which knows no NaN and no infinity: None for these, and for None.

    Example:
        >>> finite(0.5), finite(math.nan), finite(-math.inf), finite(None)
        (0.5, None, None, None)
    """
    return float(value) if value is not None and math.isfinite(value) else None

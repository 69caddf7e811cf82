"""A store's file before its first trial: wholly there or not at all, so that an empty file is one that was cut off."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

from lazyrich.errors import StoreError

PATIENCE = 60.0  # seconds to wait for another process's lock


def blank(file: Path) -> None:
    """Make the file where it is not, under another name first: SQLite's own begins empty, as one that lost its trials.

    Raises:
        StoreError: where there is a folder instead, or a file without content, or none can be made.

    Example:
        >>> file = Path(tempfile.mkdtemp(), "trials.sqlite")
        >>> blank(file), file.stat().st_size > 0
        (None, True)
    """
    if file.is_dir():
        raise StoreError(f"{file} is a folder, expected a file of trials; move it away, or give a new folder for the trials")
    if not file.exists():
        try:
            _make(file)
        except (OSError, sqlite3.OperationalError) as error:
            raise StoreError(
                f"cannot write in {file.parent}: {error}; give a folder that you may write to, with room"
            ) from error
    elif not file.stat().st_size:
        raise StoreError(
            f"{file} is empty (0 bytes), expected a file of trials: what was in it is lost; restore it from a copy, or remove "
            "it to begin anew"
        )


def is_draft(item: Path, name: str) -> bool:
    """Whether an item of a folder is a file in the making that a killed process left.

    Example:
        >>> is_draft(Path("store/.trials.sqlite.x1y2"), "trials.sqlite"), is_draft(Path("store/trials.sqlite"), "trials.sqlite")
        (True, False)
    """
    return item.name.startswith(f".{name}.")


def _make(file: Path) -> None:
    handle, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    os.close(handle)
    try:
        with closing(sqlite3.connect(draft, timeout=PATIENCE, isolation_level=None)) as db:
            write_ahead(db)
        with suppress(OSError):  # another process was first; or a disk without links, where SQLite makes the file itself
            os.link(draft, file)
    finally:
        os.unlink(draft)


def write_ahead(db: sqlite3.Connection) -> None:
    """Switch to WAL. SQLite does not wait for other processes here, so this does."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)

"""Outcomes on disk: an SQLite file in WAL mode with arrays beside it, each outcome durable as soon as it is there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lazyrich.errors import StoreError
from lazyrich.sweep.blank import PATIENCE, blank, is_draft, write_ahead
from lazyrich.sweep.process import start_of
from lazyrich.sweep.row import COLUMNS, outcomes_of
from lazyrich.sweep.trial import Outcome, Trial

VERSION = "1"
FILE = "trials.sqlite"
SILENT = 120.0  # seconds without a sign of life after which another machine's process counts as gone
DAY = 86_400.0  # seconds of silence after which it is forgotten
TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID",
    "CREATE TABLE trials (key TEXT PRIMARY KEY, function TEXT, code TEXT, settings TEXT, status TEXT, value TEXT, arrays TEXT, "
    "error TEXT, seconds REAL, attempts INTEGER, finished REAL) WITHOUT ROWID",
    "CREATE TABLE owners (owner TEXT PRIMARY KEY, host TEXT, pid INTEGER, born TEXT, beat REAL) WITHOUT ROWID",
    "CREATE TABLE claims (key TEXT PRIMARY KEY, owner TEXT) WITHOUT ROWID",
)
ASKED = "CREATE TABLE IF NOT EXISTS asked (function TEXT PRIMARY KEY, code TEXT, at REAL) WITHOUT ROWID"  # not in old stores


class Store:
    """Finished trials in a folder, by key.

    Several processes may use one store at a time: a trial is claimed before it is run, and the claims of a process that is
    gone are void. SQLite's locks want a local disk; on network file systems give every machine its own store and ``merge``.

    Args:
        path: a folder; made when it is not there.

    Raises:
        StoreError: if the folder holds something else, a store of another version, or cannot be written.

    Example:
        >>> import tempfile
        >>> from lazyrich.sweep.trial import Outcome
        >>> store = Store(tempfile.mkdtemp() + "/store")
        >>> store.put(Outcome("k", {"lr": 0.1}, "done", {"loss": 2.0}), "train", "v1")
        True
        >>> store.get(["k", "other"])["k"].value
        {'loss': 2.0}
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.file = self.path / FILE
        taken = self.path.exists() and (not self.path.is_dir() or any(not is_draft(item, FILE) for item in self.path.iterdir()))
        if taken and not self.file.exists():  # looked for last: another process may have made the store just now
            raise StoreError(f"{self.path} exists and is no store of trials; give a new folder, or remove this one")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make {self.path}: {error.strerror}; give a folder that you may write to") from error
        self.owner = uuid.uuid4().hex
        self._shut = f"{self.path} can be read but not written; give a folder that you may write to"
        self._copy = None if os.access(self.path, os.W_OK) else self._copied()
        with self._said():
            try:
                self._begin()
            except (sqlite3.OperationalError, StoreError) as error:
                if self._copy is not None or not self.file.exists() or not _no_room(cause := error.__cause__ or error):
                    raise
                self._shut, self._copy = _full(self.path, cause), self._copied()  # what is kept can be read all the same
                self._begin()

    def _copied(self) -> tempfile.TemporaryDirectory[str]:
        """A copy of the trials of a folder that cannot be written, since SQLite writes beside what it reads."""
        copy = tempfile.TemporaryDirectory()
        try:
            for file in self.path.glob(f"{FILE}*"):
                if not file.name.endswith("-shm"):  # SQLite makes it anew, and a full disk cuts it short
                    shutil.copyfile(file, Path(copy.name) / file.name)  # without its mode, which forbids writing
        except OSError as error:
            raise StoreError(
                f"cannot copy {self.path} to {copy.name} to read it: {error.strerror}; make room there, or set TMPDIR to a folder "
                "that has some"
            ) from error
        self.file = Path(copy.name) / FILE
        if not self.file.exists():
            raise StoreError(f"{self.path} cannot be written and holds no store; give a folder that you may write to")
        return copy

    def _refuse_copy(self) -> None:
        if self._copy is not None:
            raise StoreError(self._shut)

    def _begin(self) -> None:
        """Open and sign in, or close again."""
        blank(self.path / FILE)
        self._db = sqlite3.connect(self.file, timeout=PATIENCE, isolation_level=None)
        try:
            write_ahead(self._db)
            self._db.execute("PRAGMA synchronous=FULL")  # an outcome outlives a power cut, not only a kill
            self._enter()
        except BaseException:
            self._db.close()
            raise

    def _enter(self) -> None:
        """Make the tables of a new store, refuse those of another version, and sign in."""
        with self._transaction() as db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name='meta'").fetchone():
                for table in TABLES:
                    db.execute(table)
                db.execute("INSERT INTO meta VALUES ('version', ?)", (VERSION,))
            found = db.execute("SELECT value FROM meta WHERE name='version'").fetchone()
            if found is None or found[0] != VERSION:
                raise StoreError(
                    f"{self.file} was written by another version of lazyrich (store version {found[0] if found else '?'}, "
                    f"expected {VERSION}); use that version, or give a new folder"
                )
            db.execute(ASKED)
            self._forget_the_gone()
            me = (self.owner, socket.gethostname(), os.getpid(), start_of(os.getpid()), time.time())
            db.execute("INSERT INTO owners VALUES (?, ?, ?, ?, ?)", me)

    def _forget_the_gone(self) -> None:
        """Processes that were killed never sign out; those of other machines may only be slow, so they are given a day."""
        for owner, host, beat in self._db.execute("SELECT owner, host, beat FROM owners").fetchall():
            if not self._alive(owner) and (host == socket.gethostname() or time.time() - beat > DAY):
                self._db.execute("DELETE FROM claims WHERE owner=?", (owner,))
                self._db.execute("DELETE FROM owners WHERE owner=?", (owner,))

    def close(self) -> None:
        """Give up what this process had claimed, and close."""
        with self._said():
            self._db.execute("DELETE FROM claims WHERE owner=?", (self.owner,))
            self._db.execute("DELETE FROM owners WHERE owner=?", (self.owner,))
            self._db.close()
        if self._copy is not None:
            self._copy.cleanup()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(self, outcome: Outcome, function: str, code: str) -> bool:
        """Keep an outcome, durably; False where its trial is done already (the first outcome stays). Failures are replaced.

        Raises:
            StoreError: if the disk is full or gone; what was kept before stays.
        """
        self._refuse_copy()
        row = (
            outcome.key, function, code, json.dumps(outcome.settings), outcome.status, json.dumps(outcome.value),
            json.dumps(list(outcome.arrays)), outcome.error, outcome.seconds, outcome.attempts, time.time(),
        )  # fmt: skip
        with self._drafted(outcome) as draft, self._transaction() as db:
            new = not db.execute("SELECT 1 FROM trials WHERE key=? AND status='done'", (outcome.key,)).fetchone()
            if new and draft:
                _moved(draft, self._array_file(outcome.key))
            if new:
                db.execute(f"INSERT OR REPLACE INTO trials VALUES ({', '.join('?' * len(row))})", row)
            db.execute("DELETE FROM claims WHERE key=?", (outcome.key,))
        return new

    def claim(self, trial: Trial, again: bool = False) -> bool:
        """Whether this process is to run the trial: it is not finished and no living process has claimed it.

        Args:
            trial: to be run.
            again: failures count as not finished.
        """
        self._refuse_copy()
        with self._transaction() as db:
            status = db.execute("SELECT status FROM trials WHERE key=?", (trial.key,)).fetchone()
            if status and (status[0] == "done" or not again):
                return False
            held = db.execute("SELECT owner FROM claims WHERE key=?", (trial.key,)).fetchone()
            if held and held[0] != self.owner and self._alive(held[0]):
                return False
            db.execute("INSERT OR REPLACE INTO claims VALUES (?, ?)", (trial.key, self.owner))
        return True

    def beat(self) -> None:
        """A sign of life, for processes on other machines; callable from any thread."""
        with self._said(), closing(sqlite3.connect(self.file, timeout=PATIENCE)) as db, db:
            db.execute("UPDATE owners SET beat=? WHERE owner=?", (time.time(), self.owner))

    def _alive(self, owner: str) -> bool:
        row = self._db.execute("SELECT host, pid, born, beat FROM owners WHERE owner=?", (owner,)).fetchone()
        if row is None:
            return False
        host, pid, born, beat = row
        if host == socket.gethostname():
            return start_of(pid) == born != ""
        return time.time() - beat < SILENT

    def running(self) -> bool:
        """Whether a living process is at work on a trial."""
        with self._said():
            owners = self._db.execute("SELECT DISTINCT owner FROM claims").fetchall()
        return any(self._alive(owner) for (owner,) in owners)

    def status(self, keys: Sequence[str]) -> dict[str, str]:
        """Status by key, of those that are finished."""
        return {key: status for chunk in _chunks(keys) for key, status in self._select("key, status", chunk)}

    def get(self, keys: Sequence[str]) -> dict[str, Outcome]:
        """Outcomes by key, of those that are finished. Arrays are read from disk when they are asked for by ``array``."""
        return {o.key: o for chunk in _chunks(keys) for o in outcomes_of(self._select(COLUMNS, chunk))}

    def all(self, function: str | None = None) -> list[Outcome]:
        """All outcomes, of one function where it is named, in the order in which they finished."""
        where, words = ("WHERE function=?", (function,)) if function else ("", ())
        with self._said():
            return outcomes_of(self._db.execute(f"SELECT {COLUMNS} FROM trials {where} ORDER BY finished", words).fetchall())

    def latest(self, function: str | None = None) -> list[Outcome]:
        """All outcomes of the function and code that were asked for last, or of one function's code that was."""
        codes = self.codes()
        name = function or next(reversed(codes), None)
        return [outcome for outcome in self.all(name) if outcome.code == codes[outcome.function]] if name else []

    def codes(self) -> dict[str, str]:
        """Of every function that has outcomes, the code asked for last, or that finished last where nobody asked; in order."""
        with self._said():
            asked = {name: (code, at) for name, code, at in self._db.execute("SELECT function, code, at FROM asked")}
            rows = self._db.execute("SELECT function, code, MAX(finished) FROM trials GROUP BY function, code").fetchall()
        last: dict[str, tuple[bool, float, str]] = {}
        for name, code, finished in rows:
            wanted, at = asked.get(name, ("", 0.0))
            here = (code == wanted, at if code == wanted else finished, code)
            last[name] = max(last.get(name, here), here)
        return {name: code for name, (_, _, code) in sorted(last.items(), key=lambda item: item[1][1])}

    def ask(self, function: str, code: str) -> None:
        """Say whose outcomes are wanted, which need not be those that finish last: earlier code may be asked for again."""
        self._ask(function, code, time.time())

    def _ask(self, *row: Any) -> None:
        new = "ON CONFLICT(function) DO UPDATE SET code=excluded.code, at=excluded.at WHERE excluded.at > at"
        with self._transaction() as db:
            db.execute(f"INSERT INTO asked VALUES (?, ?, ?) {new}", row)

    def functions(self) -> dict[tuple[str, str], int]:
        """How many outcomes there are of each function's name and code."""
        with self._said():
            rows = self._db.execute("SELECT function, code, COUNT(*) FROM trials GROUP BY function, code").fetchall()
        return {(function, code): count for function, code, count in rows}

    def array(self, key: str, name: str) -> np.ndarray:
        """An array of an outcome.

        Raises:
            StoreError: if there is none of that name.
        """
        file = self._array_file(key)
        try:
            names = json.loads(self._select("arrays", [key])[0][0])
            with file.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
                return arrays[f"arr_{names.index(name)}"]
        except (OSError, IndexError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise StoreError(f"there is no array '{name}' of trial {key} in {file} ({error})") from error

    def array_names(self, keys: Sequence[str]) -> list[str]:
        """Names of the arrays that these outcomes have."""
        rows = [json.loads(row[0]) for chunk in _chunks(keys) for row in self._select("arrays", chunk)]
        return list(dict.fromkeys(name for names in rows for name in names))

    def forget(self, keys: Sequence[str]) -> int:
        """Remove outcomes and their arrays, all at once or none; how many there were. Their trials run again when asked for.

        Example:
            >>> import tempfile
            >>> store = Store(tempfile.mkdtemp() + "/store")
            >>> store.put(Outcome("k", {"lr": 0.1}, "done", {"loss": 2.0}), "train", "v1")
            True
            >>> store.forget(["k", "other"]), store.all()
            (1, [])
        """
        self._refuse_copy()
        with self._transaction() as db:
            gone = sum(db.execute("DELETE FROM trials WHERE key=?", (key,)).rowcount for key in keys)
        with self._transaction():  # once the rows are gone for good, and while nobody puts the same trial again
            there = self.status(keys)
            for key in keys:
                if key not in there:
                    self._array_file(key).unlink(missing_ok=True)
        return gone

    def merge(self, *others: str | Path) -> int:
        """Take over the outcomes of other stores that are not done here; how many were new. They are only read.

        Raises:
            StoreError: if one of them is no store; or, once all else is taken over, if arrays of some outcomes cannot be read.
        """
        damaged: list[str] = []
        new = sum(self._merge_one(Path(other), damaged) for other in others)
        if damaged:
            more = f" (and {len(damaged) - 1} more such)" if len(damaged) > 1 else ""
            raise StoreError(
                f"{new} new trials were taken over, {len(damaged)} left out: {damaged[0]}{more}; run what is left out again"
            )
        return new

    def _merge_one(self, path: Path, damaged: list[str]) -> int:
        new = 0
        with Store(store_in(path)) as other:
            for row in other._db.execute("SELECT function, code, at FROM asked").fetchall():
                self._ask(*row)
            rows = other._db.execute(f"SELECT {COLUMNS} FROM trials ORDER BY finished").fetchall()
            done = {key for key, status in self.status([row[0] for row in rows]).items() if status == "done"}
            for row, outcome in zip(rows, outcomes_of(rows), strict=True):
                if outcome.key in done:
                    continue
                try:
                    arrays = {name: other.array(row[0], name) for name in json.loads(row[4])}
                except StoreError as error:
                    damaged.append(str(error))
                    continue
                new += self.put(replace(outcome, arrays=arrays), outcome.function, outcome.code)
        return new

    def _select(self, columns: str, keys: Sequence[str]) -> list[tuple[Any, ...]]:
        with self._said():
            marks = ", ".join("?" * len(keys))
            return self._db.execute(f"SELECT {columns} FROM trials WHERE key IN ({marks})", keys).fetchall()

    def _array_file(self, key: str) -> Path:
        return self.path / "arrays" / f"{key}.npz"

    @contextmanager
    def _drafted(self, outcome: Outcome) -> Iterator[str]:
        """The arrays in a file of another name, wholly there before the row that names them; whoever keeps the row moves it."""
        draft = ""
        try:
            if outcome.arrays:
                folder = self._array_file(outcome.key).parent
                folder.mkdir(exist_ok=True)
                handle, draft = tempfile.mkstemp(dir=folder, suffix=".part")
                with os.fdopen(handle, "wb") as stream:
                    np.savez(stream, *outcome.arrays.values())  # by number: names may be anything
                    stream.flush()
                    os.fsync(stream.fileno())
            yield draft
        except OSError as error:
            raise StoreError(_full(self.path, error)) from error
        finally:
            if draft and os.path.exists(draft):
                os.unlink(draft)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._said():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and not ("no such" in str(error) or " columns but" in str(error)):
                raise StoreError(_full(self.path, error)) from error
            raise StoreError(f"{self.file} is no store of trials ({error}); give a new folder, or restore this file") from error


def store_in(folder: str | Path) -> Path:
    """The store that a folder is or, as ``trials``, holds.

    Raises:
        StoreError: if there is none.
    """
    path = Path(folder)
    for place in (path, path / "trials"):
        if (place / FILE).is_file():
            return place
    raise StoreError(f"{path} is no store of trials, and holds none; expected {path / FILE} or {path / 'trials' / FILE}")


def _moved(draft: str, file: Path) -> None:
    """Under its name for good: also the folder is brought to the disk."""
    os.replace(draft, file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _no_room(error: BaseException) -> bool:
    """As SQLite says that a disk is full: of its own file, or of the one that it writes beside it."""
    return any(word in str(error) for word in ("is full", "disk I/O error"))


def _full(path: Path, error: BaseException) -> str:
    mends = {"locked": "end the process that holds it", "readonly": "make the folder and its files writable"}
    mend = next((mend for word, mend in mends.items() if word in str(error)), "make room")
    return f"cannot write in {path}: {error}; finished trials are kept: {mend}, then repeat the same command"


def _chunks(keys: Sequence[str], size: int = 30_000) -> Iterable[Sequence[str]]:
    return (keys[i : i + size] for i in range(0, len(keys), size))

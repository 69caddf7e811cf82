"""A run folder: finished trials are durable at once, and the same command continues where it stopped.

``settings.json`` says which run the folder belongs to, ``trials/`` holds one JSON file a finished trial.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lazyrich import __version__
from lazyrich.errors import StoreError
from lazyrich.files import read_json, write_json


class RunFolder:
    """Finished trials on disk, keyed by name, all of one run.

    Args:
        path: the folder; made when it is not there.
        settings: whatever decides the numbers of a trial. A folder that holds another run is refused, and one of another version
            of lazyrich; one in which nothing was finished is taken over.

    Raises:
        StoreError: if the folder holds something else, another run, or cannot be written.

    Example:
        >>> import tempfile
        >>> folder = RunFolder(tempfile.mkdtemp() + "/run", {"lr": 0.1})
        >>> folder.put("width64-seed0", {"loss": 2.3})
        >>> RunFolder(folder.path, {"lr": 0.1}).get("width64-seed0")
        {'loss': 2.3}
    """

    def __init__(self, path: str | Path, settings: dict[str, Any]) -> None:
        self.path = Path(path)
        settings = settings | {"lazyrich": __version__}  # another version may give other numbers
        known = self.path / "settings.json"
        if known.exists() and not _unused(self.path):
            _same_run(self.path, read_json(known), settings)
        elif self.path.exists() and not known.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise StoreError(f"{self.path} exists and is no run folder of lazyrich; give a new folder, or remove this one")
        else:
            write_json(known, settings)
        if not os.access(self.path, os.W_OK):
            raise StoreError(f"cannot write in {self.path}; give a folder that you may write to")
        self._settings = known.read_bytes()

    def get(self, key: str) -> Any | None:
        """A finished trial, or None; a file that was damaged counts as not finished."""
        file = self._file(key)
        if not file.exists():
            return None
        try:
            return read_json(file)
        except StoreError:
            return None

    def put(self, key: str, value: Any) -> None:
        """Keep a finished trial.

        Raises:
            StoreError: if another run has taken over the folder, in which nothing was finished yet, or it cannot be written.
        """
        known = self.path / "settings.json"
        if known.exists() and known.read_bytes() != self._settings:
            raise StoreError(f"another run began in {self.path} meanwhile; give each run a folder of its own")
        write_json(self._file(key), value)

    def _file(self, key: str) -> Path:
        return self.path / "trials" / f"{key}.json"


def kept(folder: RunFolder | None, key: str, make: Callable[[], Any]) -> Any:
    """What a folder has under a key, or what is made now and kept there; without a folder it is made.

    Example:
        >>> kept(None, "width64", lambda: {"loss": 2.3})
        {'loss': 2.3}
    """
    found = folder.get(key) if folder else None
    if found is None:
        found = make()
        if folder:
            folder.put(key, found)
    return found


def _unused(path: Path) -> bool:
    """Whether a run was begun here, and nothing of it finished: a command that was refused, or mended, leaves that."""
    others = [item for item in path.iterdir() if item.name != "settings.json"]
    return isinstance(read_json(path / "settings.json"), dict) and not any(
        item.name != "trials" or any(item.iterdir()) for item in others
    )


def _same_run(path: Path, had: Any, want: dict[str, Any]) -> None:
    if not isinstance(had, dict):
        raise StoreError(f"{path}/settings.json was not written by lazyrich; give a new folder")
    had, want = _flat(had), _flat(want)
    unlike = [k for k in had.keys() | want.keys() if had.get(k) != want.get(k)]
    changed = sorted(unlike, key=lambda k: (k not in had or k not in want, k))  # what both have tells more
    if changed:
        told = [f"{k}: {_told(had, k)} there, {_told(want, k)} now" for k in changed[:3]]
        more = [f"and {len(changed) - 3} more"] if len(changed) > 3 else []
        what = ", ".join(told + more)
        raise StoreError(f"{path} holds another run ({what}); give a new folder, or repeat the run with its settings")


def _told(settings: dict[str, Any], key: str) -> str:
    return repr(settings[key]) if key in settings else "absent"


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with tables among them as one table, so that what differs can be named."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= {f"{key} {k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return found

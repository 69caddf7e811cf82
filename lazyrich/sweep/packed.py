"""A function as bytes, to be called in another process."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pickletools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cloudpickle

from lazyrich.errors import SweepError
from lazyrich.fingerprint import first_seen, installed
from lazyrich.sweep.trial import Outcome, Trial, attempt, name_of


def packed(function: Callable[..., Any]) -> bytes:
    """A function and what it closes over as bytes.

    Functions of modules that another process could import travel by name, with a digest of their files; those of scripts and
    of files named by path, by value.

    Raises:
        SweepError: if it holds something that cannot travel, such as an open file or a lock.

    Example:
        >>> unpacked(packed(lambda lr: lr + 1))(1)
        2
    """
    registered = [module for name, module in list(sys.modules.items()) if _here_alone(name, module)]
    for module in registered:
        cloudpickle.register_pickle_by_value(module)
    try:
        data = cloudpickle.dumps(function)
        return cloudpickle.dumps((data, _digests(_named(data))))
    except Exception as error:  # whatever its parts raise
        raise SweepError(
            f"{name_of(function)} cannot be sent to another process: {type(error).__name__}: {error}; open files, locks and "
            "generators inside the function, or run in process"
        ) from error
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)


def attempt_packed(data: bytes, trial: Trial) -> Outcome:
    """``attempt`` with a packed function: what clusters are asked to do, which may do it again without a word."""
    try:
        function = unpacked(data)
    except SweepError as error:
        return Outcome(trial.key, trial.settings, "failed", error=str(error), attempts=0)
    return dataclasses.replace(attempt(function, trial), attempts=0)


@functools.lru_cache(maxsize=4)
def unpacked(data: bytes) -> Callable[..., Any]:
    """The function again.

    Raises:
        SweepError: if a module that it is of, or that its parts are of, is imported here from a file of another content.
    """
    inner, sent = cloudpickle.loads(data)
    function = cloudpickle.loads(inner)
    here = _digests(sent)
    if edited := [name for name in here if here[name] != sent[name]]:
        raise SweepError(
            f"'{sys.modules[edited[0]].__file__}' is not what the sweep started with: it was edited while the sweep ran, or the "
            "worker imported it before; start the same command again; a cluster that stays up needs new workers first"
        )
    return function


def _named(data: bytes) -> set[str]:
    """Modules that a pickle may name: all its texts that are one."""
    return {text for _, text, _ in pickletools.genops(data) if isinstance(text, str) and text in sys.modules}


def _digests(names: Iterable[str]) -> dict[str, str]:
    """Of modules that a person may edit: what their files held when they were looked at first since they were imported."""
    found = {}
    for name in names:
        spec = getattr(sys.modules.get(name), "__spec__", None)  # reloading makes another
        file = Path(getattr(spec, "origin", None) or "")
        travels = name == "__main__" or name in cloudpickle.list_registry_pickle_by_value()
        if travels or installed(file) or name.partition(".")[0] in sys.stdlib_module_names:
            continue
        if file.suffix == ".py" and file.is_file():
            found[name] = first_seen(spec, hashlib.sha256(file.read_bytes()).hexdigest())
    return found


def _here_alone(name: str, module: Any) -> bool:
    """Whether a module's Python file is one that another process would not find by the module's name."""
    file = getattr(module, "__file__", None)
    if name == "__main__" or getattr(module, "__name__", None) != name or not str(file).endswith(".py"):
        return False
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or name in cloudpickle.list_registry_pickle_by_value():
        return False
    try:  # not importlib.util.find_spec, which answers from sys.modules
        return all(finder.find_spec(top, None) is None for finder in sys.meta_path)
    except (ImportError, ValueError):
        return True

"""A function as bytes, to be called in another process."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import cloudpickle

from lazyrich.errors import SweepError
from lazyrich.sweep.trial import Outcome, Trial, attempt, name_of


def packed(function: Callable[..., Any]) -> bytes:
    """A function and what it closes over as bytes.

    Functions of modules that another process could import travel by name; those of scripts and of files named by path, by
    value.

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
        return cloudpickle.dumps(function)
    except Exception as error:  # whatever its parts raise
        raise SweepError(
            f"{name_of(function)} cannot be sent to another process: {type(error).__name__}: {error}; open files, locks and "
            "generators inside the function, or run in process"
        ) from error
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)


def attempt_packed(data: bytes, trial: Trial) -> Outcome:
    """``attempt`` with a packed function: what other processes and machines are asked to do."""
    return attempt(unpacked(data), trial)


@functools.lru_cache(maxsize=4)
def unpacked(data: bytes) -> Callable[..., Any]:
    """The function again."""
    return cloudpickle.loads(data)


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

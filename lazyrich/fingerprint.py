"""What a function does, as a short hash: the file that defines it and everything that it holds."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

DEPTH = 8  # of objects in objects that are looked into


def fingerprint(function: Callable[..., Any]) -> str:
    """A hash of a function's code and state: another file, closure, bound argument, default or attribute gives another.

    The whole file that defines it counts, its own source or compiled form where there is no file; arrays and tensors count with
    every entry. What it imports from other files does not count.

    Example:
        >>> def scaled(k):
        ...     return lambda x: k * x
        >>> fingerprint(scaled(1)) == fingerprint(scaled(1)) != fingerprint(scaled(2))
        True
    """
    state = hashlib.sha256(_code(_inner(function)).encode())
    _hold(state, function, DEPTH)
    return state.hexdigest()[:12]


def _inner(function: Callable[..., Any]) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _code(function: Any) -> str:
    """The text of the file that defines a function or an object's type, or nothing."""
    function = inspect.unwrap(getattr(function, "__func__", function))
    code = getattr(function, "__code__", None)
    kind = function if code or isinstance(function, type) else type(function)
    module = sys.modules.get(getattr(kind, "__module__", None) or "")
    for file in (code.co_filename if code else None, getattr(module, "__file__", None)):
        if file and str(file).endswith(".py") and Path(file).is_file():
            return Path(file).read_text(encoding="utf-8", errors="replace")
    return "" if code else _own(kind)


def _own(function: Any) -> str:
    """The source of one function or class, or its compiled form."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        if code is not None:
            return repr(_compiled(code))
    methods = [f"{name} {_compiled(m.__code__)}" for name, m in vars(function).items() if hasattr(m, "__code__")]
    return repr((function.__qualname__, methods))


def _compiled(code: Any) -> tuple[Any, ...]:
    """Bytecode and constants, without addresses."""
    constants = tuple(_compiled(c) if hasattr(c, "co_code") else repr(c) for c in code.co_consts)
    return code.co_code, code.co_names, constants


def _hold(state: Any, value: Any, depth: int) -> None:
    """Add what a value holds to a hash."""
    state.update(f"<{type(value).__module__}.{type(value).__qualname__}>".encode())
    if value is None or isinstance(value, (str, bytes, int, float, complex)):
        state.update(repr(value).encode())
    elif depth == 0:
        return
    elif isinstance(value, functools.partial):
        _hold(state, (value.func, value.args, value.keywords), depth - 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _hold(state, item, depth - 1)
    elif isinstance(value, (set, frozenset)):
        state.update(repr(sorted(map(repr, value))).encode())
    elif isinstance(value, Mapping):
        for key, item in value.items():
            state.update(repr(key).encode())
            _hold(state, item, depth - 1)
    elif inspect.ismethod(value):
        _hold(state, (value.__func__.__qualname__, value.__self__), depth - 1)
    elif inspect.isfunction(value):
        cells = inspect.getclosurevars(value).nonlocals if value.__closure__ else {}
        state.update(_own(value).encode())
        _hold(state, (value.__defaults__, value.__kwdefaults__, cells), depth - 1)
    elif inspect.isclass(value):
        state.update(f"{value.__module__}.{value.__qualname__}{'' if _code(value) else _own(value)}".encode())
    elif inspect.ismodule(value) or inspect.isbuiltin(value):
        state.update(repr(value.__name__).encode())
    elif hasattr(value, "tobytes"):  # numpy
        state.update(repr((value.shape, str(value.dtype))).encode() + value.tobytes())
    elif hasattr(value, "detach") and hasattr(value, "numpy"):  # torch
        array = value.detach().cpu()
        numbers = array.double() if array.is_floating_point() else array
        state.update(repr((tuple(array.shape), str(array.dtype))).encode() + numbers.numpy().tobytes())
    elif getattr(value, "__dict__", None):
        _hold(state, dict(vars(value)), depth - 1)
    elif " at 0x" not in repr(value):  # else nothing is known of it but its type
        state.update(repr(value).encode())

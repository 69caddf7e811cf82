"""What a function does, as a short hash: the file that defines it and everything that it holds."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from lazyrich.errors import UsageError
from lazyrich.reference import module_name

_FIRST: dict[int, tuple[Any, str]] = {}  # by id, which stays an object's own while it is kept here; code compares by content


def fingerprint(function: Callable[..., Any]) -> str:
    """A hash of a function's code and state: another file, closure, bound argument, default or attribute gives another.

    The whole file that defines it counts, its own source or compiled form where there is no file; arrays and tensors count with
    every entry. What it imports from other files does not count.

    Raises:
        UsageError: if its file was edited after it was imported, so that other code runs than the file says.

    Example:
        >>> def scaled(k):
        ...     return lambda x: k * x
        >>> fingerprint(scaled(1)) == fingerprint(scaled(1)) != fingerprint(scaled(2))
        True
    """
    state = hashlib.sha256(_code(innermost(function)).encode())
    _hold(state, function, set())
    return state.hexdigest()[:12]


def innermost(function: Callable[..., Any]) -> Any:
    """The function that a partial one binds arguments of.

    Example:
        >>> innermost(functools.partial(functools.partial(pow, 2), 3))
        <built-in function pow>
    """
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
            _refuse_edited(kind, Path(file), type(getattr(module, "__loader__", None)) is SourceFileLoader)
            return Path(file).read_text(encoding="utf-8", errors="replace")
    return "" if code else _own(kind)


def first_seen(thing: Any, now: str) -> str:
    """What was told of an object when it was told first in this process.

    Example:
        >>> thing = object()
        >>> first_seen(thing, "old"), first_seen(thing, "new")
        ('old', 'old')
    """
    return _FIRST.setdefault(id(thing), (thing, now))[1]


def installed(file: Path) -> bool:
    """Whether a file is a package's that nobody edits.

    Example:
        >>> installed(Path("/usr/lib/python3/site-packages/torch/nn/functional.py"))
        True
    """
    return not {"site-packages", "dist-packages"}.isdisjoint(file.parts)


def _refuse_edited(kind: Any, file: Path, plain: bool) -> None:
    """Refuse code that is not its file's any more: what is computed would be kept as if the file's code had done it.

    Args:
        kind: a function or a class.
        file: that defines it.
        plain: it was imported as it is written; pytest and others rewrite what they import.
    """
    if installed(file):
        return
    parts = [kind] if hasattr(kind, "__code__") else list(vars(kind).values())
    codes = [part.__code__ for part in parts if isinstance(getattr(part, "__code__", None), CodeType)]
    text = file.read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    for code in codes:
        if Path(code.co_filename) != file:
            continue
        new = id(code) not in _FIRST
        if first_seen(code, digest) != digest or (new and plain and not _holds(text, code)):
            raise UsageError(
                f"'{file}' was edited after it was imported, so its code is not what runs; reload the module or start a new process"
            )


def _holds(text: bytes, code: CodeType) -> bool:
    """Whether a file's text compiles to this code, where it has any of that name; other lines do not count."""
    named = [found for found in _all_codes(text) if _name(found) == _name(code)]
    return not named or _compiled(code) in map(_compiled, named)


@functools.lru_cache(maxsize=8)
def _all_codes(text: bytes) -> tuple[CodeType, ...]:
    try:
        return tuple(_inside(compile(text, "file", "exec", dont_inherit=True)))
    except (SyntaxError, ValueError):  # half edited: nothing is found by name
        return ()


def _inside(code: CodeType) -> Iterator[CodeType]:
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield part
            yield from _inside(part)


def _name(code: CodeType) -> str:
    return getattr(code, "co_qualname", code.co_name)  # Python 3.10 knows the last part only


def _own(function: Any) -> str:
    """The source of one function or class, or its compiled form."""
    code = getattr(function, "__code__", None)
    try:
        source = inspect.getsource(function)
        return source if source.count("lambda") < 2 or code is None else source + repr(_compiled(code))  # two on one line
    except (OSError, TypeError):
        if code is not None:
            return repr(_compiled(code))
    methods = [f"{name} {_compiled(m.__code__)}" for name, m in vars(function).items() if hasattr(m, "__code__")]
    return repr((function.__qualname__, methods))


def _compiled(code: Any) -> tuple[Any, ...]:
    """Bytecode and constants, without addresses."""
    constants = tuple(_compiled(c) if hasattr(c, "co_code") else _constant(c) for c in code.co_consts)
    return code.co_code, code.co_names, constants


def _constant(value: Any) -> str:
    """A constant in words, sets in an order that no hash decides."""
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _hold(state: Any, value: Any, seen: set[int]) -> None:
    """Add what a value holds to a hash; what was seen on the way is not looked into again."""
    state.update(f"<{module_name(type(value).__module__)}.{type(value).__qualname__}>".encode())
    if value is None or isinstance(value, (str, bytes, int, float, complex)):
        state.update(repr(value).encode())
    elif isinstance(value, functools.partial):
        _hold(state, (value.func, value.args, value.keywords), seen)
    elif isinstance(value, (set, frozenset)):
        state.update(repr(sorted(map(_words, value))).encode())
    elif inspect.ismodule(value) or inspect.isbuiltin(value):
        state.update(repr(module_name(value.__name__)).encode())
    elif inspect.isclass(value):
        state.update(f"{module_name(value.__module__)}.{value.__qualname__}{'' if _code(value) else _own(value)}".encode())
    elif inspect.ismethod(value):
        _hold(state, (value.__func__.__qualname__, value.__self__), seen)
    elif hasattr(getattr(value, "dtype", None), "hasobject") and not value.dtype.hasobject:  # numpy
        state.update(repr((value.shape, str(value.dtype))).encode() + value.tobytes())
    elif hasattr(value, "detach") and hasattr(value, "is_meta"):  # torch
        state.update(repr((tuple(value.shape), str(value.dtype))).encode() + _entries(value))
    elif isinstance(value, tuple):  # made on the way perhaps, so its place in memory tells nothing
        for item in value:
            _hold(state, item, seen)
    elif id(value) not in seen:
        seen.add(id(value))
        _hold_object(state, value, seen)


def _hold_object(state: Any, value: Any, seen: set[int]) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            state.update(_words(key).encode())
            _hold(state, item, seen)
    elif isinstance(value, list):
        for item in value:
            _hold(state, item, seen)
    elif inspect.isfunction(value):
        _code(value)  # refuses one that was edited
        state.update(_own(value).encode())
        cells = {} if value.__closure__ is None else inspect.getclosurevars(value).nonlocals
        _hold(state, (value.__defaults__, *(value.__kwdefaults__ or {}).items(), *cells.items()), seen)
    elif getattr(value, "__dict__", None):
        _hold(state, vars(value), seen)
    else:
        state.update(_words(value).encode())


def _words(value: Any) -> str:
    """What a value says of itself, without its place in memory: then nothing is known of it but its type."""
    said = repr(value)
    return said if " at 0x" not in said else type(value).__qualname__


def _entries(tensor: Any) -> bytes:
    if tensor.is_meta:
        return b""
    array = tensor.detach().cpu().to_dense() if tensor.layout.__repr__() != "torch.strided" else tensor.detach().cpu()
    return (array.double() if array.is_floating_point() else array).numpy().tobytes()

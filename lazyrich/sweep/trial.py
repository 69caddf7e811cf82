"""One call of a function with settings: what it is known by, and what came of it."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lazyrich.errors import SweepError
from lazyrich.fingerprint import innermost
from lazyrich.reference import module_name

Status = Literal["done", "failed", "died"]
Settings = dict[str, Any]
PLAIN = (str, int, float, bool, type(None))
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Trial:
    """A function's settings, and the key under which its outcome is kept: the same function, code and settings, the same key."""

    key: str
    settings: Settings


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Attributes:
        key: of the trial.
        settings: of the trial.
        status: "done"; "failed" when the function raised; "died" when its process went away, every time it was tried.
        value: what the function returned, by name: numbers, text, lists.
        arrays: the arrays among it.
        error: what was raised, or how the process ended.
        seconds: that the last attempt took.
        attempts: how often it was tried; 0 where that is not known, since Ray, Dask and pools of futures do not say.
        function: whose outcome it is, by name, once a store has kept it.
        code: fingerprint of that function's code.
    """

    key: str
    settings: Settings
    status: Status
    value: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    error: str = ""
    seconds: float = math.nan
    attempts: int = 1
    function: str = ""
    code: str = ""


def trial_of(settings: Mapping[str, Any], function: str, code: str) -> Trial:
    """The trial of a function's name, a fingerprint of its code, and settings.

    Raises:
        SweepError: for settings that are not plain values, so that a key could not be made of them.

    Example:
        >>> trial_of({"lr": 0.1}, "f", "1").key == trial_of({"lr": 0.1}, "f", "1").key != trial_of({"lr": 0.1}, "f", "2").key
        True
    """
    plain = plain_settings(settings)
    text = json.dumps([function, code, plain], sort_keys=True, separators=(",", ":"))
    return Trial(hashlib.sha256(text.encode()).hexdigest()[:32], plain)


def plain_settings(settings: Mapping[str, Any]) -> Settings:
    """Settings as they are kept: tuples are lists, NumPy's numbers are Python's.

    Raises:
        SweepError: for what is no plain value.

    Example:
        >>> plain_settings({"shape": (1, 2)})
        {'shape': [1, 2]}
    """
    try:
        return {name: _plain(value, name) for name, value in _by_text(settings, "the settings").items()}
    except _NotPlain as odd:
        raise SweepError(
            f"axis '{odd.place}' holds {article(odd.kind)}, expected numbers, text, True, False, None, or lists of these; "
            "give a name, and look the object up inside the function"
        ) from None


def attempt(function: Callable[..., Any], trial: Trial) -> Outcome:
    """Call the function with a trial's settings; an exception is an outcome.

    Example:
        >>> attempt(lambda lr: {"loss": lr**2}, Trial("a", {"lr": 3.0})).value
        {'loss': 9.0}
        >>> attempt(lambda lr: 1 / lr, Trial("b", {"lr": 0})).error
        'ZeroDivisionError: division by zero (...)'
    """
    start = time.perf_counter()
    try:
        value, arrays = _parted(function(**trial.settings))
    except (Exception, SystemExit) as error:  # the user's function may raise anything
        where = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {_said(error)}"
        place = "" if where.filename == __file__ else f" ({where.filename}:{where.lineno})"
        return Outcome(trial.key, trial.settings, "failed", error=said + place, seconds=time.perf_counter() - start)
    return Outcome(trial.key, trial.settings, "done", value, arrays, seconds=time.perf_counter() - start)


def _said(error: BaseException) -> str:
    """An exception's words, as text that every file takes."""
    try:
        return harmless(printable(str(error)))
    except Exception:  # the user's exceptions may fail to print
        return "it does not say what"


def printable(text: str) -> str:
    r"""Text without halves of characters, which no file takes.

    Example:
        >>> printable("bad \udcff name")
        'bad \\udcff name'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def harmless(text: str) -> str:
    r"""Text that neither colours nor clears the terminal on which it is shown: control characters by name, lines as they are.

    Example:
        >>> harmless("\x1b[31mred\n")
        '\\x1b[31mred\n'
    """
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def article(kind: str) -> str:
    """A kind of value with its article.

    Example:
        >>> article("object"), article("set")
        ('an object', 'a set')
    """
    return f"{'an' if kind[:1].lower() in 'aeio' else 'a'} {kind}"


def name_of(function: Callable[..., Any]) -> str:
    """``module.name`` of a function, also of a partial one.

    Example:
        >>> import functools
        >>> name_of(functools.partial(math.pow, 2))
        'math.pow'
    """
    inner = innermost(function)
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    return f"{module_name(getattr(inner, '__module__', None) or type(inner).__module__)}.{name}"


class _NotPlain(Exception):
    """A value that no store takes, and where it is."""

    def __init__(self, value: Any, place: str) -> None:
        super().__init__(place)
        self.place, self.array = place, hasattr(value, "shape") and not isinstance(value, np.generic)
        self.kind = type(value).__name__ + (f" of shape {tuple(value.shape)}" if self.array else "")


def _plain(given: Any, place: str) -> Any:
    value = _opened(given, place)
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(v, place) for v in value]
    if isinstance(value, Mapping):
        return {name: _plain(v, f"{place}/{name}") for name, v in _by_text(value, f"'{place}'").items()}
    raise _NotPlain(given if isinstance(value, np.ndarray) else value, place)


def _opened(value: Any, place: str) -> Any:
    """A tensor as an array, an array without axes as the number that it is."""
    if hasattr(value, "detach"):
        value = _array(value, place)
    return value.item() if isinstance(value, (np.ndarray, np.generic)) and np.ndim(value) == 0 else value


def _array(tensor: Any, place: str) -> np.ndarray:
    if getattr(tensor, "is_sparse", False) or "sparse" in str(getattr(tensor, "layout", "")):
        raise SweepError(f"'{place}' is a sparse tensor, expected one that is an array; return its to_dense() or its values()")
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    try:
        return tensor.numpy()
    except TypeError:  # bfloat16 and smaller, which NumPy does not have
        return tensor.float().numpy()


def _by_text(given: Mapping[Any, Any], what: str) -> dict[str, Any]:
    """Under names that are text, as JSON has them."""
    named = {str(name): value for name, value in given.items()}
    if len(named) < len(given):
        twice = next(name for name in named if sum(str(other) == name for other in given) > 1)
        raise SweepError(
            f"among the names of {what} is {twice} twice, as text and as another kind; expected names that are text"
        )
    return named


def _parted(returned: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Plain values and arrays of what a function returned."""
    named = returned if isinstance(returned, Mapping) else {"value": returned}
    value: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, item in _by_text(named, "what the function returned").items():
        item = _opened(item, name)
        if not isinstance(item, np.ndarray):
            value[name] = _returned(item, name)
        elif item.dtype.hasobject:
            raise SweepError(f"the function returned an array of objects for '{name}', expected an array of numbers")
        else:
            arrays[name] = item
    return value, arrays


def _returned(item: Any, name: str) -> Any:
    try:
        return _plain(item, name)
    except _NotPlain as odd:
        mend = "; return an array under a name of its own, not inside lists or dictionaries" if odd.array else ""
        raise SweepError(
            f"the function returned {article(odd.kind)} for '{odd.place}', expected numbers, text, lists, dictionaries or "
            f"arrays{mend}"
        ) from None

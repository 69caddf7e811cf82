"""What the verbs share: reading the words, naming run folders, showing progress."""

from __future__ import annotations

import functools
import inspect
import io
import re
import shlex
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lazyrich.cli.box import unboxed
from lazyrich.errors import StoreError, UsageError

REFRESH = 5  # seconds after which the page of a run that is under way loads itself again
OPTIMIZERS = "sgd, momentum, adam, adamw, signsgd, lion, adafactor, muon or muon_rms"  # that train here; a plan knows more
Optimizer = Annotated[str, tyro.conf.arg(help=f"{OPTIMIZERS}.")]
Factory = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FACTORY")]


def parse(function: Callable[..., Any], verb: str, words: Sequence[str]) -> Any:
    """Call a function with the words of a command, as tyro reads them from its signature.

    Raises:
        UsageError: for words that the signature does not take, and for an empty word, such as a variable of the shell that is not
            set; ``--out ""`` would be the folder here. Also where the user's own code ends the program.
    """
    for i, word in enumerate(words):
        if not word or (word.startswith("--") and word.endswith("=")):
            name = word.removesuffix("=") or (words[i - 1] if i else f"lazyrich {verb}")
            raise UsageError(f"got nothing after {name}, expected a value; is a variable empty that the command names?")
    text = (inspect.getdoc(function) or "").partition("\nArgs:")[0]
    _say_defaults_once(function)
    given = _read(function, verb, words, text)
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        after = [words[i + 1 : i + 2] for i, word in enumerate(words) if word.replace("_", "-") == option]
        if value == () and any(not following or following[0].startswith("--") for following in after):
            raise UsageError(f"got nothing after {option}, expected one or more values; lazyrich {verb} --help tells which")
    try:
        return function(**given)
    except SystemExit as stop:  # of a factory, a forward or a metric: status 0 would say that all went well
        where, code = traceback.extract_tb(stop.__traceback__)[-1], "" if stop.code is None else repr(stop.code)
        raise UsageError(
            f"the code that lazyrich {verb} called ended the program by sys.exit({code}) at "
            f"{where.filename}:{where.lineno}; let it raise an error, or return"
        ) from stop


def _read(function: Callable[..., Any], verb: str, words: Sequence[str], text: str) -> dict[str, Any]:
    """The function's arguments by name; what tyro says in a box when it refuses is said in one line."""

    @functools.wraps(function)
    def noted(*values: Any, **named: Any) -> dict[str, Any]:
        return inspect.signature(function).bind(*values, **named).arguments

    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(noted, prog=f"lazyrich {verb}", args=list(words), description=text)
    except SystemExit as stop:
        if stop.code:
            raise UsageError(f"{unboxed(said.getvalue())}; lazyrich {verb} --help tells more") from None
        raise


def _say_defaults_once(function: Callable[..., Any]) -> None:
    """No "(default: None)", no "{None}|" in the help: what an option that is not given does stands in its own words."""
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        known = parameter.default is None or parameter.default == ()
        kinds = [kind for kind in get_args(parameter.annotation) if kind is not type(None)]
        plain = parameter.default is None and kinds in ([str], [int], [float], [Path])
        quiet = tyro.conf.arg(help_behavior_hint="", metavar=kinds[0].__name__.upper() if plain else None)
        function.__annotations__[name] = Annotated[parameter.annotation, quiet] if known else parameter.annotation


def command_line(verb: str, words: Sequence[str]) -> str:
    """The command as a person would type it."""
    return shlex.join(["lazyrich", verb, *words])


def slug(*parts: str) -> str:
    """A folder name from free text.

    Example:
        >>> slug("mup()", "adamw")
        'mup-adamw'
    """
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-.") for part in parts)


def rules(items: Sequence[str]) -> dict[str, Any]:
    """``pattern=rule`` words as the ``init=`` of a plan."""
    from lazyrich.init import parse as parse_rule

    return {pattern: parse_rule(text) for pattern, text in pairs(items, "init").items()}


def pairs(
    items: Sequence[str], option: str, expected: str = "tensor-pattern=value, for example 'pos*=vector'"
) -> dict[str, str]:
    """``name=value`` words as a dictionary; ``expected`` is what a word should have been.

    Raises:
        UsageError: for a word without '='.
    """
    found = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UsageError(f"got --{option} '{item}', expected {expected}")
        found[name] = value
    return found


def unshared(folder: Path) -> Path:
    """A run's folder, where no result and no page of something else would be written over.

    Raises:
        StoreError: for one that holds either and no trials of such a run.

    Example:
        >>> unshared(Path("runs/new"))
        PosixPath('runs/new')
    """
    from lazyrich.sweep.store import FILE

    there = [name for name in ("result.json", "report.html") if (folder / name).exists()]
    if there and not (folder / "trials" / FILE).is_file() and not any(folder.glob("*/settings.json")):
        raise StoreError(
            f"{folder} holds a {there[0]} of something else, which this run would write over; give a new folder, or move it away"
        )
    return folder


class Live:
    """A run folder whose result and page are looked at while trials run; both are written whole, again and again.

    Left by an interruption or an error, the page no longer loads itself again.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: Any = None

    def __enter__(self) -> Live:
        unshared(self.folder)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None and self._last is not None:
            with suppress(Exception):  # what stopped the run is told, not that its page could not be drawn again
                self._write(self._last)

    def draw(self, result: Any) -> None:
        """The result so far; its page loads itself again."""
        self._last = result
        self._write(result, refresh=REFRESH)

    def finish(self, result: Any) -> Path:
        """The result; returns its page."""
        return self._write(result)

    def _write(self, result: Any, refresh: int | None = None) -> Path:
        from lazyrich.files import write_json
        from lazyrich.report import render

        write_json(self.folder / "result.json", result.to_dict())
        return render(result, self.folder / "report.html", refresh=refresh)


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress line with the time left, on standard error; yields the callback that ``check`` calls."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)

        def update(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{label}: {what}")

        yield update

"""``lazyrich sweep FUNCTION``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import tyro

from lazyrich.cli.command import Live, command_line, parse, progress, slug
from lazyrich.errors import SweepError, UsageError

ODD = ("inf", "+inf", "-inf", "infinity", "-infinity", "nan")  # floats that JSON has no word for, or another
RANGE = re.compile(r"(-?\d+):(-?\d+)", re.ASCII)


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def sweep(
        function: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FUNCTION")],
        axis: tuple[str, ...],
        executor: str = "inline",
        workers: int | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        shard: str | None = None,
        retry_failed: bool = False,
        track: tuple[str, ...] = (),
        out: Path | None = None,
    ) -> None:
        """Call a function with every combination of the axes' values; what is finished is kept, the same command continues.

        Example:
            lazyrich sweep torch.nn.init:calculate_gain --axis nonlinearity=leaky_relu param=0.01,0.1,0.5

        Args:
            function: package.module:function or path/to/file.py:function; called by name, returns numbers by name.
            axis: name=values, one or more; values are 0.1,0.2 or words, or a range 0:3 (0, 1, 2), or JSON [[1, 2], [3]].
            executor: inline, processes, ray, dask, ray://HOST:PORT or dask://HOST:PORT.
            workers: of processes, ray or dask on this machine (default: all cores).
            timeout: seconds that a trial may take; with processes only.
            retries: how often a trial is tried again whose process died (default: 2); with processes and ray only.
            shard: i/n runs this part only, for schedulers; lazyrich merge brings the parts together.
            retry_failed: run trials again that failed or died.
            track: tensorboard:FOLDER, wandb:PROJECT, trackio:PROJECT or mlflow:EXPERIMENT, one or more.
            out: run folder (default: runs/sweep-...).
        """
        from lazyrich.reference import resolve
        from lazyrich.sweep import executor_for, shard_of, summarise, tracker_for
        from lazyrich.sweep import sweep as run_sweep

        called, axes = resolve(function), axes_of(axis)
        folder = out or Path("runs") / slug("sweep", function.rpartition(":")[2])
        command = command_line("sweep", words)
        part, where = shard_of(shard) if shard else None, executor_for(executor, workers, retries, timeout)
        with Live(folder) as page, progress("sweep") as show:
            results = run_sweep(
                called, axes, folder / "trials", executor=where, shard=part, retry_failed=retry_failed, progress=show,
                callbacks=[tracker_for(text) for text in track],
                so_far=lambda results: page.draw(summarise(results, function, command)),
            )  # fmt: skip
        found = summarise(results, function, command)
        print(found, end="\n\n")
        print(f"page: {page.finish(found)}")
        if results.failures:
            failed, total = len(results.failures), results.total
            rest = "" if failed == total else "; the others are kept"
            raise SweepError(
                f"{failed} of {total} {'trial' if total == 1 else 'trials'} failed{rest}: mend the cause, then repeat with "
                "--retry-failed"
            )

    parse(sweep, "sweep", words)


def axes_of(items: Sequence[str]) -> dict[str, list[Any]]:
    """Named axes from ``name=values`` words.

    Raises:
        UsageError: for a word without '=', an axis that is there twice, values that are empty or broken, or too many.

    Example:
        >>> axes_of(["lr=0.1,0.2", "seed=0:2", "scheme=mup,ntk"])
        {'lr': [0.1, 0.2], 'seed': [0, 1], 'scheme': ['mup', 'ntk']}
        >>> axes_of(["p=1,2,inf", "sizes=[[1, 2], [3]]"])
        {'p': [1, 2, inf], 'sizes': [[1, 2], [3]]}
    """
    axes: dict[str, list[Any]] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not (name.isidentifier() and equals and text):
            raise UsageError(f"got --axis '{item}', expected name=values, for example lr=0.1,0.2 or seed=0:3")
        if name in axes:
            raise UsageError(f"axis '{name}' is there twice; give its values in one word: {name}=0.1,0.2")
        axes[name] = _values(name, text)
    return axes


def _values(name: str, text: str) -> list[Any]:
    ends = RANGE.fullmatch(text)
    if ends:
        return _range(name, int(ends[1]), int(ends[2]))
    words = text.split(",")
    if any(_json(word) for word in words):
        for whole in (text, f"[{text}]"):
            with suppress(ValueError):
                found = json.loads(whole)
                return found if isinstance(found, list) else [found]
    return [_read(name, text, word.strip()) for word in words]


def _range(name: str, start: int, end: int) -> list[int]:
    from lazyrich.sweep.grid import MOST

    if end - start > MOST:
        raise UsageError(f"axis '{name}' has {end - start:,} values, more than the {MOST:,} trials of a sweep; give fewer")
    return list(range(start, end))


def _json(word: str) -> bool:
    return word.strip().startswith(("[", "{", '"'))


def _read(name: str, text: str, word: str) -> Any:
    if not word:
        raise UsageError(
            f"got --axis '{name}={text}' with an empty value, expected values between the commas; empty text is \"\""
        )
    try:
        return float(word) if word.lower() in ODD else json.loads(word)
    except ValueError as error:
        if _json(word):
            raise UsageError(
                f"got --axis '{name}={text}', where {word} is no JSON ({error}); expected such as [[1, 2], [3]], or words without "
                "brackets and quotes"
            ) from None
        return word

"""``lazyrich report RUN``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tyro

from lazyrich.cli.command import parse


def run(words: Sequence[str]) -> None:
    """Read the words and run."""

    def report(folder: tyro.conf.Positional[Path], out: Path | None = None) -> None:
        """Draw the page of a finished run folder again.

        Example:
            lazyrich report runs/demo

        Args:
            folder: a run folder that holds result.json.
            out: where to write the page (default: report.html in the folder).
        """
        from lazyrich.report import render

        print(f"page: {render(str(folder), out or folder / 'report.html')}")

    parse(report, "report", words)

"""One kernel run's part of the page: what the template prints, with every word, number and figure ready."""

from __future__ import annotations

from typing import Any

from lazyrich.report import kernel_figure as figure
from lazyrich.report.chapter import swatch_of
from lazyrich.report.kernel_result import KernelResult
from lazyrich.report.number import brief, digits


def kernel_chapter(result: KernelResult, key: str) -> dict[str, Any]:
    """Everything that the template prints of one kernel run; ``key`` is what all of its ids begin with.

    Returns:
        Plain text, numbers in words, and figures as SVG (the only values that are markup already).
    """
    finite = any(row.mean is not None for row in result.rows)
    ranged = any(row.low is not None and row.high is not None and row.high > row.low for row in result.rows)
    series = [(name, figure.NAMES.get(name, name)) for name in result.kernels]
    series += [("network", f"width {result.width}")] if finite else []
    swatches = [swatch_of(label, *figure.STYLES.get(name, ("ink", "o", (0, None)))) for name, label in series]
    return {
        "key": key,
        "template": "kernel.html.j2",
        "verb": "kernel",
        "result": result,
        "finite": finite,
        "ranged": ranged,
        "blank": any(None in row for m in result.matrices for row in m.cells),
        "names": [label for _, label in series],
        "swatches": swatches,
        "accuracy": figure.accuracy(result.rows, result.kernels, result.width, f"{key}-accuracy") if result.rows else "",
        "rows": [_row(row, finite) for row in result.rows],
        "spectrum": figure.spectrum(result.spectra, f"{key}-spectrum") if result.spectra else "",
        "power": figure.power(result.spectra, f"{key}-power") if result.spectra else "",
        "spectra": [
            {
                "name": figure.NAMES.get(s.kernel, s.kernel),
                "samples": s.samples,
                "top": figure.percent(s.top),
                "rank": brief(s.effective_rank),
                "alignment": digits(s.alignment),
            }
            for s in result.spectra
        ],
        "matrices": [
            {"name": figure.NAMES.get(m.kernel, m.kernel), "svg": figure.matrix(m, f"{key}-matrix{i}")}
            for i, m in enumerate(result.matrices)
        ],
    }


def _row(row: Any, finite: bool) -> dict[str, Any]:
    cells = [figure.percent(value) for value in row.kernels]
    ends = ""
    if finite:
        cells.append(figure.percent(row.mean))
        if row.low is not None and row.high is not None and row.high > row.low:
            ends = f"{100 * row.low:.1f} to {100 * row.high:.1f}"
    return {"train": row.train, "cells": cells, "ends": ends}

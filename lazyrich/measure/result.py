"""What a check found: slopes beside theory, a verdict, and everything a report needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazyrich.files import finite
from lazyrich.layer import shown, spoken
from lazyrich.measure.slope import Slope
from lazyrich.measure.verdict import Line, Overall

Trial = dict[str, Any]


@dataclass(frozen=True)
class CheckResult:
    """The result of ``lazyrich.check``: a small table when printed, records by ``rows()``, a page by ``lazyrich.render``.

    Attributes:
        title: network, scheme and optimizer.
        verdict: the word, the sentence and the mends.
        lines: every measured slope with its prediction; the ``update`` lines carry the verdicts.
        trials: the raw numbers of every width and seed.
        theory: what the scheme does at infinite width.
        settings: of the run.
        plan: rows of the plan's table at the largest width.
        obligations: the plan's, and whether they were met.
    """

    title: str
    verdict: Overall
    lines: tuple[Line, ...]
    trials: tuple[Trial, ...]
    theory: Mapping[str, Any]
    settings: Mapping[str, Any]
    plan: Sequence[Mapping[str, Any]]
    obligations: Sequence[Mapping[str, Any]]
    reproduce: Mapping[str, Any]

    @property
    def slopes(self) -> dict[tuple[str, str], Slope]:
        """Slopes at the last step by (layer, quantity)."""
        last = max((line.step for line in self.lines), default=0)
        return {(line.layer, line.quantity): line.slope for line in self.lines if line.step == last}

    @property
    def updates(self) -> list[Line]:
        """The judged lines, one a layer."""
        return [line for line in self.lines if line.verdict]

    @property
    def harmful(self) -> list[str]:
        """Layers whose movement in the first step raises the loss, to first order, in every draw of the widest network."""
        widest = max(self.settings["widths"])
        first = [trial["records"].get("1", {}) for trial in self.trials if trial["width"] == widest]
        layers = {
            layer: [records.get(layer, {}).get("signed uuc", math.nan) for records in first] for layer in (first or [{}])[0]
        }
        return [layer for layer, products in layers.items() if all(product > 0 for product in products)]

    def rows(self) -> list[dict[str, Any]]:
        """Every line as a flat record, for pandas or polars."""
        return [_line(line) for line in self.lines]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; what ``lazyrich.render`` reads."""
        return {
            "kind": "check",
            "title": self.title,
            "verdict": {
                "word": self.verdict.word,
                "sentence": self.verdict.sentence,
                "mends": list(self.verdict.mends),
            },
            "theory": dict(self.theory),
            "settings": dict(self.settings),
            "lines": self.rows(),
            "curves": self._curves(),
            "losses": self._losses(),
            "plan": _table(self.plan, max(self.settings["widths"])),
            "obligations": [dict(o) for o in self.obligations],
            "reproduce": dict(self.reproduce),
        }

    def _curves(self) -> list[dict[str, Any]]:
        widths, curves = self.settings["widths"], []
        for line in self.lines:
            values = [self._values(line, width) for width in widths]
            curves.append(
                {
                    "layer": line.layer,
                    "quantity": line.quantity,
                    "step": line.step,
                    "widths": list(widths),
                    "mean": [_geometric_mean(v) for v in values],
                    "low": [min(v, default=None) for v in values],
                    "high": [max(v, default=None) for v in values],
                }
            )
        return curves

    def _values(self, line: Line, width: int) -> list[float]:
        step, found = str(line.step), []
        for trial in self.trials:
            value = trial["records"].get(step, {}).get(line.layer, {}).get(line.quantity)
            if trial["width"] == width and value is not None and math.isfinite(value):
                found.append(value)
        return found

    def _losses(self) -> list[dict[str, Any]]:
        found = []
        for width in self.settings["widths"]:
            runs = [trial["losses"] for trial in self.trials if trial["width"] == width]
            steps = range(max((len(run) for run in runs), default=0))
            at = [[run[s] for run in runs if s < len(run) and math.isfinite(run[s])] for s in steps]
            found.append(
                {
                    "width": width,
                    "mean": [float(np.mean(v)) if v else None for v in at],
                    "low": [min(v, default=None) for v in at],
                    "high": [max(v, default=None) for v in at],
                }
            )
        return found

    def __str__(self) -> str:
        header = ["layer", "role", "update ~ width^", "theory", "verdict"]
        rows = [
            [shown(line.layer), line.role, _measured(line.slope), _predicted(line.predicted), line.verdict]
            for line in self.updates
        ]
        sizes = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        table = ["  ".join(c.ljust(n) for c, n in zip(row, sizes, strict=True)).rstrip() for row in [header, *rows]]
        owed = [f"unmet: {o['kind']} at {o['where']}: {o['why']}" for o in self.obligations if not o["met"]]
        mends = [f"mend: {mend}" for mend in self.verdict.mends]
        owed += [f"raises the loss with its first step: {spoken(layer)}" for layer in self.harmful]
        rule = "-" * max(map(len, table))
        theory = f"theory: {self.theory['scheme']} under {self.theory['optimizer']} is {self.theory['regime']}"
        return "\n".join([self.title, str(self.verdict), rule, *table, rule, theory, *owed, *mends])


def _measured(slope: Slope) -> str:
    return "undefined" if math.isnan(slope.value) else str(slope)


def _predicted(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{round(value, 2) + 0.0:+.2f}"


def _line(line: Line) -> dict[str, Any]:
    return {
        "layer": line.layer,
        "tensors": list(line.tensors),
        "role": line.role,
        "quantity": line.quantity,
        "step": line.step,
        "slope": finite(line.slope.value),
        "low": finite(line.slope.low),
        "high": finite(line.slope.high),
        "predicted": finite(line.predicted),
        "agrees": line.agrees,
        "verdict": line.verdict,
        "mend": line.mend,
    }


def _geometric_mean(values: Sequence[float]) -> float | None:
    positive = [v for v in values if v > 0]
    return float(np.exp(np.mean(np.log(positive)))) if positive else None


def _table(rows: Sequence[Mapping[str, Any]], width: int) -> dict[str, Any]:
    def text(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    columns = list(rows[0]) if rows else []
    return {"width": width, "columns": columns, "rows": [[text(row[c]) for c in columns] for row in rows]}

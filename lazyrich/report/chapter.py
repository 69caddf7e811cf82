"""One result's part of the page: what the template prints, with every word, number and figure ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lazyrich.report import figure
from lazyrich.report.number import DASH, brief, digits, margin, signed
from lazyrich.report.result import CheckResult, Curve, Line

PANELS = 24
_MARK_SHAPES = {"o": "dot", "s": "square", "^": "up", "D": "diamond", "v": "down", "P": "cross"}
_REGIMES = (
    ("trivial", "trivial", "nothing moves"),
    ("kernel", "lazy", "outputs move, features stay"),
    ("feature learning", "rich", "features move at every width"),
    ("unstable", "unstable", "something grows without bound"),
)
_MEASURED = {"lazy": "kernel", "exploding": "unstable", "vanishing": "trivial", "frozen": "trivial"}
_CRITERIA = (
    ("NTC", "Nontriviality", "update", "The output moves by an amount that does not depend on width."),
    (
        "UUC",
        "Useful updates",
        "uuc",
        "Each layer's change of features helps the loss by an amount that does not vanish.",
    ),
    ("MAX", "Maximality", "max", "Each layer's own weights keep their share of its change of features."),
)
_QUANTITIES = {
    "update": "update",
    "layer": "own weights",
    "passthrough": "passthrough",
    "interaction": "interaction",
    "level": "activation level",
    "uuc": "useful update",
    "max": "own share",
}


def chapter(result: CheckResult, key: str, panels: int = PANELS) -> dict[str, Any]:
    """Everything that the template prints of one result.

    Args:
        result: the result.
        key: what all of its ids begin with.
        panels: the most layers that get a panel of their own; the tables hold every layer.

    Returns:
        Plain text, numbers in words, and figures as SVG (the only values that are markup already).
    """
    lines = result.last("update")
    layers = _layers(result, panels)
    return {
        "key": key,
        "template": "chapter.html.j2",
        "result": result,
        "regimes": _regimes(result),
        "lines": [_row(line, result.mends) for line in lines],
        "has_mends": any(line.mend and line.mend not in result.mends for line in lines),
        "forest": figure.forest(lines, f"{key}-forest") if lines else "",
        "forest_narrow": figure.forest(lines, f"{key}-forest-n", narrow=True) if lines else "",
        "updates": _updates(result, layers, key),
        "parts": _parts(result, layers, key),
        "part_swatches": [swatch_of(_QUANTITIES[p], p, figure.MARKS[p], figure.DASHES[p]) for p in figure.PARTS],
        "unseen": max(0, len(_all_layers(result)) - len(layers)),
        "criteria": _criteria(result),
        "all_lines": [_row(line) for line in result.lines],
        "losses": figure.losses(result.losses, f"{key}-loss") if result.losses else "",
        "loss_rows": _loss_rows(result),
        "numeric_columns": _numeric_columns(result),
        "r": brief(result.theory.r),
        "worst": _row(result.worst) if result.worst else None,
    }


def _row(line: Line, told: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "layer": line.layer,
        "tensors": ", ".join(line.tensors),
        "role": line.role or DASH,
        "quantity": _QUANTITIES.get(line.quantity, line.quantity),
        "step": line.step,
        "slope": signed(line.slope, "diverged"),
        "margin": margin(line.half) if line.slope is not None else "",
        "predicted": signed(line.predicted),
        "agrees": line.agrees,
        "word": line.verdict,
        "mend": "" if line.mend in told else line.mend,
    }


def _all_layers(result: CheckResult) -> list[str]:
    return list(dict.fromkeys(c.layer for c in result.curves if c.quantity in ("update", *figure.PARTS)))


def _layers(result: CheckResult, most: int) -> list[str]:
    """The layers that get a panel: all in the network's order, or the ones farthest from theory."""
    layers = _all_layers(result)
    if len(layers) <= most:
        return layers
    lines = {line.layer: line for line in result.last("update")}

    def rank(layer: str) -> float:
        line = lines.get(layer)
        if line is None:
            return 0.0
        return float("-inf") if line.slope is None else -(line.distance or 0.0)

    chosen = set(sorted(layers, key=rank)[:most])
    return [layer for layer in layers if layer in chosen]


def _updates(result: CheckResult, layers: Sequence[str], key: str) -> list[dict[str, Any]]:
    """A panel of the update against width for each layer, at the last step."""
    lines = {line.layer: line for line in result.last("update")}
    curves = [(layer, found[-1:]) for layer in layers if (found := result.curves_of(layer, "update"))]
    spans = figure.panel_spans([c for _, c in curves])
    panels = []
    for i, ((layer, shown), span) in enumerate(zip(curves, spans, strict=True)):
        line = lines.get(layer)
        predicted = line.predicted if line else None
        svg = figure.panel(shown, span, f"{key}-update{i}", f"Update of {layer} against width", predicted)
        panels.append({"layer": layer, "svg": svg, "row": _row(line) if line else None})
    return panels


def _parts(result: CheckResult, layers: Sequence[str], key: str) -> list[dict[str, Any]]:
    """A panel of the update's parts against width for each layer, at the last step."""
    groups: list[tuple[str, list[Curve]]] = []
    for layer in layers:
        curves = [found[-1] for part in figure.PARTS if (found := result.curves_of(layer, part))]
        if curves:
            groups.append((layer, curves))
    spans = figure.panel_spans([curves for _, curves in groups])
    panels = []
    for i, ((layer, curves), span) in enumerate(zip(groups, spans, strict=True)):
        svg = figure.panel(curves, span, f"{key}-parts{i}", f"Parts of the update of {layer} against width")
        zero = [_QUANTITIES[c.quantity] for c in curves if all(m == 0 for m in c.mean)]
        panels.append({"layer": layer, "svg": svg, "zero": " and ".join(zero)})
    return panels


def _criteria(result: CheckResult) -> list[dict[str, Any]]:
    found = []
    for short, name, quantity, meaning in _CRITERIA:
        lines = result.last(quantity)
        if short == "NTC":
            lines = tuple(line for line in lines if line.role == "output")
        if lines:
            found.append({"short": short, "name": name, "meaning": meaning, "lines": [_row(line) for line in lines]})
    return found


def _regimes(result: CheckResult) -> list[dict[str, Any]]:
    """The axis from trivial to unstable with both places marked; empty where the regime is another word."""
    regime = result.theory.regime
    if regime not in [name for name, _, _ in _REGIMES]:
        return []
    found = regime if result.word == "well-behaved" else _MEASURED.get(result.word)
    stops = []
    for name, short, meaning in _REGIMES:
        here, seen = name == regime, name == found
        says = "theory and measurement" if here and seen else "theory" if here else "measured" if seen else ""
        classes = " ".join(word for word, on in (("here", here), ("found", seen)) if on)
        stops.append({"short": short, "meaning": meaning, "says": says, "classes": classes})
    return stops


def _loss_rows(result: CheckResult) -> list[dict[str, Any]]:
    rows = []
    for i, run in enumerate(result.losses):
        name, mark, dash = figure.width_style(i, len(result.losses))
        rows.append(
            {
                "swatch": swatch_of(str(run.width), name, mark, dash),
                "first": digits(run.mean[0], "diverged") if run.mean else DASH,
                "last": "diverged" if run.diverged else digits(run.mean[-1]),
                "diverged": run.diverged,
            }
        )
    return rows


def _numeric_columns(result: CheckResult) -> list[bool]:
    """Which columns of the plan hold numbers, so that they are set flush right."""
    if result.plan is None:
        return []
    columns = list(zip(*result.plan.rows, strict=True)) or [() for _ in result.plan.columns]
    return [bool(column) and all(_is_number(cell) for cell in column) for column in columns]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == DASH
    return True


def swatch_of(label: str, name: str, mark: str, dash: tuple[float, tuple[float, ...] | None]) -> dict[str, str]:
    """What the template needs to draw a line with its marker, if it has one, in a legend."""
    pattern = " ".join(f"{1.7 * part:g}" for part in dash[1]) if dash[1] else ""
    return {"label": label, "tone": name, "mark": _MARK_SHAPES[mark] if mark else "none", "dash": pattern}

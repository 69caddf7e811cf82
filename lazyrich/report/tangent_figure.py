"""The figures of a tangent study: losses, errors, movement through training, alignment by layer, the hierarchy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lazyrich.report.canvas import WIDTH_TONES, drawing, inline, named, sheet, tone
from lazyrich.report.kernel_figure import log_x, log_y, percent
from lazyrich.report.number import brief, shorten
from lazyrich.report.scale import labels, positive, thin
from lazyrich.report.tangent_result import Few, Moment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Dash = tuple[float, tuple[float, ...] | None]
Style = tuple[str, str, Dash]
# tone, marker and dash of everything that is drawn by name
STYLES: dict[str, Style] = {
    "network": ("update", "o", (0, None)),
    "linearised": ("passthrough", "^", (0, (5, 2))),
    "on training samples": ("passthrough", "^", (0, (5, 2))),
    "on test samples": ("update", "o", (0, None)),
    "tangent kernel": ("ink", "D", (0, (1.2, 1.8))),
    "p = 2": ("passthrough", "^", (0, (5, 2))),
    "p = 3": ("theory", "D", (0, (1.2, 1.8))),
    "p = 4": ("interaction", "s", (0, (7, 2, 1.5, 2))),
    "before": ("passthrough", "^", (0, (5, 2))),
    "half-way": ("interaction", "s", (0, (1.2, 1.8))),
    "after": ("update", "o", (0, None)),
}
MARKS = ("o", "s", "^", "v", "P", "D")
SIZE = {"width": 400, "height": 255, "left": 60, "right": 16, "top": 12, "bottom": 40}
UNTIL = {0.1: 0.025, 0.2: 0.05, 0.4: 0.1, 0.6: 0.2, 1.0: 0.25}  # ends of time axes, and the steps of their ticks
SEEN = 1e-4  # of the first loss: what is shown of a loss at most
Series = tuple[str, Sequence[float | None]]


def losses(moments: Sequence[Moment], key: str) -> str:
    """Training loss of the network and of its linearisation against steps.

    Example:
        >>> one = Moment(1, .5, .4, .5, .5, None, None, .1, .1, .1, .0, (), ())
        >>> "network 0.5, linearised 0.4 after 1 steps" in losses([one], "f1")
        True
    """
    series = [("network", [m.loss for m in moments]), ("linearised", [m.linear_loss for m in moments])]
    words = ", ".join(f"{name} {brief(values[-1])}" for name, values in series)
    return _through(moments, series, key, "Training loss", "loss", f"{words} after {moments[-1].step:g} steps.")


def errors(moments: Sequence[Moment], key: str) -> str:
    """What the linearised network gets wrong, as a part of what was learnt, against steps."""
    series = [("on training samples", [m.error for m in moments]), ("on test samples", [m.test_error for m in moments])]
    words = ", ".join(f"{percent(values[-1])} {name}" for name, values in series)
    title = "Error of the linearised network"
    return _through(moments, series, key, title, "part of what was learnt", f"In the end {words}.")


def movement(moments: Sequence[Moment], key: str) -> str:
    """Relative movement of the tangent kernel, and of every layer's output, against steps."""
    series: list[Series] = [("tangent kernel", [m.movement for m in moments])]
    series += [(name, [dict(m.features).get(name) for m in moments]) for name in shown_layers(moments)]
    words = ", ".join(f"{name} {percent(values[-1])}" for name, values in series)
    return _through(
        moments, series, key, "Movement through training", "relative movement", f"In the end {words}.", styles(moments)
    )


def shown_layers(moments: Sequence[Moment]) -> list[str]:
    """The layers that a figure shows, in the order of calls: all, or some of many.

    A module that is called again has a name a call, and evenly spaced ones would fall on one module wherever modules take turns;
    so every module's last call comes first, then every one's first call, then one half-way.

    Example:
        >>> turns = tuple((name, 0.1) for i in ("", "#2", "#3", "#4") for name in ("inp" + i, "rec" + i))
        >>> shown_layers([Moment(1, .5, .4, .5, .5, None, None, .1, .1, .1, .0, turns, ())])
        ['inp', 'rec', 'inp#3', 'rec#3', 'inp#4', 'rec#4']
    """
    names, calls = [name for name, _ in moments[-1].features], dict[str, list[int]]()
    for i, name in enumerate(names):
        calls.setdefault(name.partition("#")[0], []).append(i)
    ranked = [list(dict.fromkeys([own[-1], own[0], own[len(own) // 2], *own])) for own in calls.values()]
    chosen: list[int] = []
    for place in range(max(map(len, ranked), default=0)):
        chosen += _evenly([own[place] for own in ranked if len(own) > place], WIDTH_TONES - len(chosen))
    return [names[i] for i in sorted(chosen)]


def _evenly(places: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of the places, with the last kept."""
    if len(places) <= most:
        return list(places)
    return [places[-1 - round(i * (len(places) - 1) / max(1, most - 1))] for i in range(most)]


def styles(moments: Sequence[Moment]) -> dict[str, Style]:
    """Tone and marker of everything that ``movement`` shows, in its order."""
    own: dict[str, Style] = {"tangent kernel": STYLES["tangent kernel"]}
    for i, name in enumerate(shown_layers(moments)):
        own[name] = (f"w{i + 1}", MARKS[i % len(MARKS)], (0, None))
    return own


def _through(
    moments: Sequence[Moment], series: Sequence[Series], key: str, title: str, label: str, words: str,
    given: dict[str, Style] | None = None,
) -> str:  # fmt: skip
    """Curves against steps, both axes logarithmic; step 0 has no place on them."""
    later = [i for i, m in enumerate(moments) if m.step > 0]
    with drawing():
        figure, axes = sheet(**SIZE)
        log_x(axes, [moments[i].step for i in later] or [1])
        log_y(axes, positive(values[i] for _, values in series for i in later))
        for name, values in series:
            _line(axes, [moments[i].step for i in later], [values[i] for i in later], (given or STYLES)[name])
        axes.set_xlabel("steps", color=tone("muted"), labelpad=1)
        axes.set_ylabel(label, color=tone("muted"))
        return inline(figure, key, title, words)


def _line(axes: Axes, x: Sequence[float | None], y: Sequence[float | None], style: Style, every: int | list[int] = 1) -> None:
    color, mark, dash = style
    shown = [math.nan if v is None or v <= 0 else v for v in y]
    at = [math.nan if v is None else v for v in x]
    axes.plot(at, shown, color=tone(color), marker=mark, markersize=5, linewidth=1.8, linestyle=dash, markevery=every)


def looks(moments: Sequence[Moment]) -> list[tuple[str, Moment]]:
    """Before training, when half of the loss was learnt, and after."""
    first, last = moments[0], moments[-1]
    middle = next((m for m in moments if m.loss is not None and first.loss is not None and m.loss <= first.loss / 2), None)
    found = [("before", first), ("after", last)]
    if middle is not None and middle not in (first, last):
        found.insert(1, ("half-way", middle))
    return found if len(moments) > 1 else found[:1]


def alignment(moments: Sequence[Moment], key: str) -> str:
    """Centred alignment of every layer's tangent kernel with the targets, along the depth."""
    names = [line.layer for line in moments[-1].layers]
    with drawing():
        figure, axes = sheet(**SIZE)
        for name, moment in looks(moments):
            _line(axes, list(range(1, len(names) + 1)), [line.centred for line in moment.layers], STYLES[name])
        axes.set_xlim(0.6, len(names) + 0.4)
        top = max([line.centred or 0 for _, m in looks(moments) for line in m.layers], default=1.0)
        axes.set_ylim(0, min(1.02, 1.12 * top) if top > 0 else 1)
        if len(names) <= 12:
            named(axes, [shorten(name, 14) for name in names])
        else:
            ticks = [int(i) for i in thin(range(1, len(names) + 1), 8)]
            axes.set_xticks(ticks, [str(i) for i in ticks])
            axes.set_xlabel("layer, in the table's order", color=tone("muted"), labelpad=1)
        axes.set_ylabel("centred alignment", color=tone("muted"))
        words = "; ".join(
            f"{name}: " + ", ".join(f"{line.layer} {brief(line.centred)}" for line in moment.layers)
            for name, moment in looks(moments)
        )
        return inline(figure, key, "Alignment of each layer's tangent kernel with the targets", words + ".")


def few_losses(few: Few, key: str) -> str:
    """The few samples' loss as trained and as predicted, against time."""
    series = [("network", few.losses), *((f"p = {p}", row) for p, row in zip(few.orders, few.predicted, strict=True))]
    predicted, least = positive(v for row in few.predicted for v in row), SEEN * (few.losses[0] or 0)
    words = ", ".join(f"{name} {brief(values[-1], 'has ended')}" for name, values in series)
    floor = max(least, min(predicted, default=0))  # below it there is nothing left to compare: a network learns on to rounding
    return _few(few, series, key, "Loss on a few samples", "loss", f"In the end {words}.", floor)


def few_errors(few: Few, key: str) -> str:
    """Errors of the predicted outputs as parts of what was learnt, against time."""
    series = [(f"p = {p}", row) for p, row in zip(few.orders, few.errors, strict=True)]
    words = ", ".join(
        f"p = {p} has ended" if v is None else f"p = {p} is off by {percent(v)}"
        for p, v in zip(few.orders, few.at_half, strict=True)
    )
    words = f"When half of the loss is learnt, {words}."
    return _few(few, series, key, "Error of the predictions", "part of what was learnt", words, 0.0)


def _few(few: Few, series: Sequence[Series], key: str, title: str, label: str, words: str, floor: float) -> str:
    until = shown_until(few)
    times = [t for t in few.times if t is not None and t <= until + 1e-9]
    rows = [(name, values[: len(times)]) for name, values in series]
    with drawing():
        figure, axes = sheet(**SIZE)
        log_y(axes, [v for _, values in rows for v in positive(values) if v >= floor])
        for i, (name, values) in enumerate(rows):
            last = max((j for j, v in enumerate(values) if v), default=0)  # marked, as curves end there
            every = max(1, len(times) // 8)
            marks = sorted({*range(min(i * every // 2, last), last, every), last})
            _line(axes, times, values, STYLES[name], every=marks)
        axes.set_xlim(-0.03 * until, 1.03 * until)
        ticks = [i * UNTIL[until] for i in range(round(until / UNTIL[until]) + 1)]
        axes.set_xticks(ticks, labels(ticks))
        axes.set_xlabel("time", color=tone("muted"), labelpad=1)
        axes.set_ylabel(label, color=tone("muted"))
        return inline(figure, key, title, words)


def shown_until(few: Few) -> float:
    """The end of the time axis: somewhat beyond the end of every order above 2, which may be early, and of half of the loss.

    Example:
        >>> times, two, four = (0.0, 0.05, 0.1, 1.0), (1.0, 0.9, 0.8, 0.1), (1.0, 0.8, None, None)
        >>> shown_until(Few("", 4, (2, 4), times, two, (two, four), (two, four), 0.05, (0.1, None)))
        0.1
    """
    above = [row for p, row in zip(few.orders, few.predicted, strict=True) if p > 2]
    ends = [t for row in above for t, v in zip(few.times, row, strict=True) if t is not None and v is not None]
    beyond = max(1.5 * max(ends, default=0.0), 2 * (few.half or 0.0))
    return next((until for until in UNTIL if until >= beyond), 1.0)

"""What a dial's curves mean, in words: one sentence a curve, and one text for all in which nothing is said twice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lazyrich.measure.dial_curve import Curve
from lazyrich.measure.scatter import Scatter


def sentence(curve: Curve, plain: float) -> str:
    """What one curve means; ``plain`` is the richness of the plain network."""
    lines = _clauses(curve, plain)
    said = f"{lines.get('lazy', '')}; {lines.get('plain', '')}." if "lazy" in lines else f"{lines['lost']}."
    if "best" in lines:
        kernel = f"; {lines['kernel']}" if "kernel" in lines else ""
        said += f" {_capital(lines['best'])}{kernel}."
    said += "".join(f" {_capital(lines[kind])}." for kind in ("gone", "smallest", "largest") if kind in lines)
    return f"{_place([curve], [curve])}: {said}"


def sentences(curves: Sequence[Curve], plain: float) -> tuple[str, ...]:
    """What all of them mean, said once of all curves of which it is true: first what is true of all, then by width."""
    if len(curves) < 2:
        return tuple(sentence(curve, plain) for curve in curves)
    lines = [_clauses(curve, plain) for curve in curves]
    said: dict[tuple[int, ...], list[str]] = {}  # by the curves of which it is true
    for kind in ("lost", "lazy", "plain", "best", "kernel", "gone", "smallest", "largest"):
        for clause in dict.fromkeys(line[kind] for line in lines if kind in line):
            alike = tuple(i for i, line in enumerate(lines) if line.get(kind) == clause)
            said.setdefault(alike, []).append(clause)
    order = sorted(said, key=lambda alike: (len(alike) < len(curves), min(curves[i].width for i in alike), -len(alike), alike))
    return tuple(f"{_place([curves[i] for i in alike], curves)}: {'; '.join(said[alike])}." for alike in order)


def _place(some: Sequence[Curve], curves: Sequence[Curve]) -> str:
    """Where a clause holds: widths, and exponents where several were asked."""
    widths, exponents = (list(dict.fromkeys(getattr(c, name) for c in curves)) for name in ("width", "r"))
    if len(some) == len(curves) > 1:
        return "Everywhere" if min(len(widths), len(exponents)) > 1 else f"At every {'width' if len(widths) > 1 else 'r'}"
    own = {width: tuple(c.r for c in some if c.width == width) for width in widths}
    parts = []
    for chosen in dict.fromkeys(own.values()):
        if chosen:
            names = ", ".join(str(width) for width in widths if own[width] == chosen)
            every = 1 < len(exponents) == len(chosen)
            parts.append(f"width {names}" + (" at every r" if every else f", r = {', '.join(f'{r:g}' for r in chosen)}"))
    return _capital(" and ".join(parts))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _clauses(curve: Curve, plain: float) -> dict[str, str]:
    """What there is to say of a curve, by kind."""
    if not np.isfinite(curve.values["loss"]).any():
        return {"lost": "every training diverged; give a smaller lr"}
    if _grew(curve):
        return {"lost": "every training ended with a larger loss than without any output; give a smaller lr"}
    there = [g for g, d in zip(curve.richness, curve.mean("linearisation"), strict=True) if math.isfinite(d)]
    if curve.leaves == 0:
        where = f"is never lazy down to gamma_0 = {there[0]:g}"
    elif math.isinf(curve.leaves):
        where = f"is lazy up to gamma_0 = {there[-1]:g}"
    else:
        where = f"is lazy up to gamma_0 = {curve.leaves:.2g}"
    side = "lazy" if plain < curve.leaves else "not lazy"
    return (
        {"lazy": f"the network {where}", "plain": f"the plain network, at {plain:.2g}, is {side}"}
        | _best(curve)
        | _gone(curve)
        | _ends(curve)
    )


def _grew(curve: Curve) -> bool:
    """Whether no richness gained anything over the centred network's start."""
    start, after = curve.mean("start"), curve.mean("loss")
    return bool((np.isfinite(start) & ~(after < start)).all())


def _gone(curve: Curve) -> dict[str, str]:
    """Where trainings diverged, and how many of the seeds."""
    lost = ~np.isfinite(curve.values["loss"])
    each = [f"{g:g} ({n} of {len(lost)})" for g, n in zip(curve.richness, lost.sum(0), strict=True) if n]
    return (
        {"gone": f"trainings diverged and are left out at gamma_0 = {', '.join(each)}; a smaller lr (--lr) keeps them"}
        if each
        else {}
    )


def _ends(curve: Curve) -> dict[str, str]:
    """What to do where tuned rates are no optimum."""
    return {
        end: f"at gamma_0 = {', '.join(f'{g:g}' for g in curve.ends(side))} the best learning rate is the {end} of its octaves "
        f"(end of grid); a {mend} lr (--lr) shows the optimum"
        for side, end, mend in ((-1, "smallest", "smaller"), (1, "largest", "larger"))
        if curve.ends(side)
    }


def _best(curve: Curve) -> dict[str, str]:
    """Where it generalises best, as far as the seeds tell; and the kernel beside it."""
    classes = np.isfinite(curve.values["test_error"]).any()
    name, word = ("test_error", "test error") if classes else ("test_loss", "test loss")
    show, unit = (lambda v: f"{100 * float(f'{v:.3g}'):.3g}", "%") if classes else (lambda v: f"{v:.3g}", "")
    mean, kernel = curve.mean(name), curve.mean("linear_" + name)[0]
    beside = {"kernel": f"its tangent kernel at initialisation reaches {show(kernel)}{unit}"} if math.isfinite(kernel) else {}
    at, worst = int(np.nanargmin(mean)), int(np.nanargmax(mean))
    low, high = show(mean[at]), show(mean[worst])
    values = f"{low} to {high}{unit}" if low != high else f"{low}{unit}"
    end = {0: ", the smallest that was tried", len(mean) - 1: ", the largest that was tried"}.get(at, "")
    place = f"at gamma_0 = {curve.richness[at]:g}{end}"
    tried = "richness that was tried" + ("" if np.isfinite(mean).all() else " and did not diverge")
    if np.isfinite(mean).sum() < 2:
        return {"best": f"it generalises best {place} ({word} {low}{unit})"} | beside
    if mean[at] == mean[worst]:
        return {"best": f"it generalises alike at every {tried} ({word} {values})"} | beside
    scatter = Scatter(list(curve.values[name].T))
    if not scatter.freedom:
        return {"best": f"its {word} is lowest {place} ({values}); one seed tells no scatter, so add seeds"} | beside
    known = np.flatnonzero(np.isfinite(mean))
    if all(mean[i] <= mean[at] + scatter.reach(int(i), at) for i in known):
        none = f"no {tried} generalises better than another beyond the seeds' scatter ({word} {values})"
        return {"best": none} | beside
    return {"best": f"it generalises best {place} ({word} {low}{unit})"} | beside

"""From measured slopes to a word, a sentence and a mend.

Verdicts come from updates, never from levels: a readout that shrinks with width at initialisation is right under muP. Slopes
within ``TOLERANCE`` of zero count as width-independent (a factor 1.2 over a fourfold width, the tolerance of the coordinate
checks in use); a slope outside it whose interval reaches inside is called inconclusive, not bad.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scipy import stats

from lazyrich.layer import spoken
from lazyrich.measure.slope import Slope

Word = Literal["well-behaved", "lazy", "exploding", "vanishing", "frozen", "inconclusive"]

TOLERANCE = 0.13
WIDEST = 0.25  # half-width of an interval from which nothing can be said
FADING = -0.25  # functions die out in steps of n^-1/2; above half of that it may be a finite-width drift
LAZIEST = -0.5  # the kernel regime's features move as n^-1/2; what falls faster does not train
LARGEST = 1000.0  # relative movement of the function above which slopes that cannot be told mean a rate that is far too large
SMALLEST = 0.01  # relative movement of the function below which a run shows nothing
SEVERITY = ("exploding", "vanishing", "frozen", "inconclusive", "lazy", "well-behaved")


@dataclass(frozen=True)
class Line:
    """One observable of one layer: its measured slope, what the plan predicts, and what it means.

    ``verdict`` is empty for quantities that are shown but not judged.
    """

    layer: str
    tensors: tuple[str, ...]
    role: str
    quantity: str
    step: int
    slope: Slope
    predicted: float | None
    verdict: str = ""
    mend: str = ""

    @property
    def agrees(self) -> bool | None:
        """Whether the measured slope lies within the tolerance of the predicted one; None where there is none, or none can tell.

        Example:
            >>> [Line("a", (), "hidden", "uuc", 1, Slope(v, v - h, v + h, 9), 0.0).agrees for v in (0.22, 0) for h in (0.54, 0.05)]
            [None, False, None, True]
        """
        if self.predicted is None or not math.isfinite(self.predicted) or math.isnan(self.slope.value):
            return None
        if self.verdict == "inconclusive":
            return None
        if abs(self.slope.value - self.predicted) <= TOLERANCE:
            return None if self.slope.half_width > WIDEST else True
        return None if self.slope.low <= self.predicted + TOLERANCE and self.slope.high >= self.predicted - TOLERANCE else False


def word_for(update: Slope, layer: Slope, wide: bool, trains: bool, first: Slope | None = None, strict: float = 1.0) -> Word:
    """The verdict on one layer.

    Args:
        update: slope of its output's whole update.
        layer: slope of the part that its own tensors did.
        wide: whether its output grows with the width (a hidden layer) or not (function, latents).
        trains: whether its own tensors moved at all.
        first: slope of the update of the first step alone. An update that grows there explodes, also when later steps,
            whose gradients saturate or fight back, hide it.
        strict: by how much intervals grow before a layer is said to explode, where many layers are asked (``stretch``).

    Example:
        >>> word_for(Slope(0.52, 0.48, 0.56, 12), Slope(0.52, 0.48, 0.56, 12), wide=False, trains=True)
        'exploding'
    """
    if not trains:
        return "frozen"
    if math.isnan(update.value):
        return "inconclusive"
    if any(slope.value - strict * slope.half_width > TOLERANCE for slope in (update, first) if slope):
        return "exploding"
    if update.half_width > WIDEST or update.value > TOLERANCE:
        return "inconclusive"
    if wide and layer.high < LAZIEST - TOLERANCE:
        return "frozen"
    if update.value >= -TOLERANCE:
        return "well-behaved"
    if update.high >= -TOLERANCE or (not wide and update.value > FADING):
        return "inconclusive"
    return "lazy" if wide else "vanishing"


def stretch(slopes: int, freedom: int) -> float:
    """By how much an interval of 95 % grows so that of as many slopes, none of which explodes, 1 study in 20 says that some do.

    Example:
        >>> round(stretch(1, 8), 6), round(stretch(24, 8), 1)
        (1.0, 1.9)
    """
    if freedom < 1:
        return 1.0
    one, all_of_them = stats.t.ppf([0.975, 1 - 0.025 / max(slopes, 1)], freedom)
    return float(all_of_them / one)


def drifts(line: Line) -> bool:
    """Whether a slope is surely not zero, and well known, where theory says zero: more seeds will not say what is left open."""
    known = line.slope.half_width <= WIDEST and (line.slope.low > 0 or line.slope.high < 0)
    return known and abs(line.predicted or 0.0) < 0.01


@dataclass(frozen=True)
class Cause:
    """What a plan would have to change for one layer to be as under muP.

    ``rate`` and ``init`` are the missing exponents of its learning rate and initial std, ``readout`` the missing exponent
    of the readout's initial std, through which its gradient comes; ``owed`` says that an obligation here is unmet,
    ``outside`` that the line is the whole network's output, which no unit returned. ``rate_now`` and ``init_now`` are the exponents
    as they are, ``astray`` the tensors anywhere whose exponents are not those of the plan's own scheme. ``narrow`` is this layer,
    or the one that feeds it, where that gives others a fixed number of features, and ``level`` the power of the width that they
    start as. ``same`` says that the plan's scheme is muP itself, ``before`` the layers before it that are not well-behaved.
    """

    rate: float
    init: float
    readout: float
    owed: bool = False
    outside: bool = False
    rate_now: float = 0.0
    init_now: float = 0.0
    astray: tuple[str, ...] = ()
    narrow: str = ""
    level: float = 0.0
    same: bool = False
    before: tuple[str, ...] = ()


def with_mend(update: Line, first: Line, layer: Line, through: Line, cause: Cause, inherited: bool) -> Line:
    """The update line of one layer with its mend in plain words.

    Args:
        update: the line to complete; its verdict decides what is said.
        first: the line of its first step.
        layer: the line of the layer's own term.
        through: the line of what passed through its initial weights.
        cause: what separates the plan from the remedy for this layer's main tensor.
        inherited: whether a layer below already has the same verdict and passes it on.
    """
    early = first.slope.value > max(update.slope.value, TOLERANCE) or math.isnan(update.slope.value)
    grown, slope = f"{'first ' if early else ''}update", (first if early else update).slope
    said = f"{spoken(update.layer)}: {grown} grows as width^{slope}, expected 0"
    if update.verdict == "exploding":
        if cause.owed:
            return replace(update, mend=f"{said}: meet the plan's obligation at {spoken(update.layer)} (meet=True, or --meet)")
        if cause.outside and not inherited:
            return replace(update, mend=f"{said}: forward() sums over the width outside any layer; divide that sum by it")
        own = layer.slope.value > TOLERANCE or (early and cause.rate > 0.01)
        if inherited and (cause.outside or not own):
            return replace(update, mend=f"{said}: it passes on what explodes below it; mend that first")
        steps = []
        if own and abs(cause.rate) > 0.01:
            steps.append(f"its learning rate must {_change(cause)}")
        elif own and cause.readout > 0.01:
            steps.append(
                f"its gradient is too large: the readout's initial weights must shrink by a further {_power(-cause.readout)}"
            )
        if through.slope.value > TOLERANCE and cause.init > 0.01:
            steps.append(f"its initial weights must {_relative('shrink', cause.init, cause.init_now)}")
        return replace(update, mend=_close(said, steps, cause))
    fell = f"{spoken(update.layer)}: update falls as width^{update.slope}"
    if update.verdict == "frozen" and layer.quantity != "layer":  # its own term is nothing at every width
        return replace(update, mend=f"{spoken(update.layer)}: its tensors did not move; are they in the graph and trainable?")
    if update.verdict in ("vanishing", "frozen"):
        own = f"{spoken(update.layer)}: its own update falls as width^{layer.slope}"
        steps = [f"its learning rate must {_change(cause)}"] if abs(cause.rate) > 0.01 else []
        return replace(update, mend=_close(own if update.verdict == "frozen" else fell, steps, cause))
    if update.verdict == "lazy":
        return replace(update, mend=f"{fell}: richness(r) with a larger r moves it more, mup() keeps it at width^0")
    if update.verdict == "inconclusive" and math.isnan(update.slope.value):
        return replace(update, mend=f"{spoken(update.layer)}: no two widths have updates that are finite and not zero")
    if update.verdict == "inconclusive" and drifts(update):
        how = "grows" if update.slope.value > 0 else "falls"
        more = "probably a drift of narrow networks that more seeds will not change; take wider widths"
        return replace(update, mend=f"{spoken(update.layer)}: update {how} slightly, as width^{update.slope}, {more}")
    if update.verdict == "inconclusive":
        return replace(
            update, mend=f"{spoken(update.layer)}: width^{update.slope} is too uncertain; use more seeds or more widths"
        )
    return update


def _change(cause: Cause) -> str:
    """How the learning rate must depend on the width."""
    return _relative("fall" if cause.rate > 0 else "rise", cause.rate, cause.rate_now)


def _relative(verb: str, missing: float, now: float) -> str:
    """A change by n^-missing of what goes as n^-now already."""
    if abs(now) < 0.01:
        return f"{verb} as {_power(-missing)}"
    further = "a further " if missing * now > 0 else ""
    return f"{verb} by {further}{_power(-missing)} (now {_power(-now)}, mup(): {_power(-now - missing)})"


def _power(exponent: float) -> str:
    exponent = round(exponent, 3)
    known = {-1: "1/width", -0.5: "1/sqrt(width)", 0: "constant", 0.5: "sqrt(width)", 1: "width"}
    return known.get(exponent, f"width^{exponent:g}")


def _close(said: str, steps: Sequence[str], cause: Cause) -> str:
    if steps:
        does = (
            "mup() does so by itself, without the plan's alignment= or readout_alignment="
            if cause.same
            else "scheme mup() does"
        )
        return f"{said}: {' and '.join(steps)}; {does}"
    if cause.narrow and cause.level < -0.01:
        which = "it" if said.startswith(f"{spoken(cause.narrow)}:") else spoken(cause.narrow)
        return (
            f"{said}: its own numbers are those of mup(), but {which} gives others a fixed number of features, which start as "
            f"width^{cause.level:g} and reach size one only as they are learnt; check after more steps, or let their number grow "
            "with the width"
        )
    if cause.astray:
        others = f"those of {_names(cause.astray)} are not the scheme's; mend them first"
        return f"{said}: its own numbers are those of mup(), but {others}"
    if cause.before:
        return f"{said}: its own numbers are those of mup(), but it is fed by what is not well-behaved: {_names(cause.before)}"
    return (
        f"{said}: its own numbers are those of mup(), and the layers before it are well-behaved. It may be a drift of narrow "
        "networks, which wider widths tell; else something between the layers, in forward(), sums over the width or scales with it"
    )


@dataclass(frozen=True)
class Overall:
    """The verdict of a whole check: a word, the sentence that says what it means here, and what to do.

    Attributes:
        word: of the worst layer, or of the whole training.
        sentence: about this network, with its numbers.
        mends: what to change, most important first.

    Example:
        >>> print(Overall("exploding", "The readout's update grows as width^0.5.", ("lower its rate",)))
        Exploding. The readout's update grows as width^0.5.
    """

    word: Word
    sentence: str
    mends: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.word.capitalize()}. {self.sentence}"


def overall(
    lines: Sequence[Line],
    *,
    diverged: Sequence[int],
    moved: float,
    lr: float,
    regime: str,
    scheme: str,
    decay: float = 0.0,
    lost: Sequence[int] = (),
    still: Sequence[str] = (),
    departures: Sequence[str] = (),
) -> Overall:
    """The verdict of a check from its update lines.

    Args:
        lines: the judged lines, in the order of the layers.
        diverged: widths at which some run lost its finite loss.
        moved: largest relative movement of the function over the widths.
        lr: the base learning rate, for the mend.
        regime: what the theory says of the scheme.
        scheme: its name.
        decay: the base weight decay, which is the one to lower where a step takes more off a weight than it has.
        lost: widths at which some update is not finite.
        still: layers that the network itself keeps from training.
        departures: where the plan's numbers are not the scheme's; told where not all is well.
    """
    judged = [line for line in lines if line.verdict]
    faulty = [line for line in judged if line.verdict in SEVERITY[:3] and line.mend]
    mends = tuple(line.mend for line in sorted(faulty, key=lambda line: SEVERITY.index(line.verdict)))
    lower, mends = _lower(lr, decay), () if _decays(lr, decay) else mends
    if diverged or lost:
        what, where = ("The loss", diverged) if diverged else ("Updates", lost)
        return Overall("exploding", f"{what} stopped being finite at width {', '.join(map(str, where))}.", mends or (lower,))
    if moved < SMALLEST:
        return Overall(
            "inconclusive",
            f"The function moved by only {100 * moved:.2g}% at every width, too little to tell anything.",
            (f"raise the learning rate (now {lr:g}), say tenfold, or train more steps",),
        )
    word = _worst(judged)
    where = [spoken(line.layer) for line in judged if line.verdict == word]
    if word == "inconclusive" and moved > LARGEST:
        return Overall(word, f"The function moved by {moved:.2g} times its own size, too much to tell anything.", (lower,))
    unsure = [spoken(line.layer) for line in judged if line.verdict == "inconclusive"] if word != "inconclusive" else []
    sentence = _sentence(word, where, judged)
    if EXPECTED.get(word) == regime:
        sentence += f" {_beside(judged, scheme)}"
    if unsure:
        sentence += f" (Too uncertain to judge: {_names(unsure)}.)"
    if still:
        sentence += f" (Kept from training by the network itself, requires_grad=False: {_names(still)}.)"
    hints = tuple(line.mend for line in judged if line.verdict == word and line.mend)
    notes = () if word == "well-behaved" or EXPECTED.get(word) == regime else tuple(departures[:4])
    return Overall(word, sentence, (*notes, *(mends or hints[:3])))


def _lower(lr: float, decay: float) -> str:
    """What to lower where training blows up."""
    if not _decays(lr, decay):
        return f"lower the learning rate (now {lr:g}) and check again"
    return (
        f"lower the weight decay (now {decay:g}): with the learning rate {lr:g} a step takes {lr * decay:.3g} times its own size "
        "off every weight, expected less than once"
    )


def _decays(lr: float, decay: float) -> bool:
    """Whether it is the weight decay that is out of all proportion, and no gradient."""
    return lr * decay > 1 and decay > lr


def _beside(judged: Sequence[Line], scheme: str) -> str:
    """What theory says where its word is the measured one; exponents that differ from it are named."""
    off = [
        f"{spoken(line.layer)} ({line.slope.value:+.2f}, theory {line.predicted:+.2f})"
        for line in judged
        if line.agrees is False
    ]
    if not off:
        return f"This is what theory says of {scheme}."
    return f"So says theory of {scheme}, but with other exponents for the updates of {_names(off)}."


EXPECTED = {"well-behaved": "feature learning", "lazy": "kernel", "exploding": "unstable", "vanishing": "trivial"}


def _worst(judged: Sequence[Line]) -> Word:
    """The worst word of any layer; a few uncertain layers do not decide, unless the function itself is among them."""
    words = [line.verdict for line in judged]
    unsure = words.count("inconclusive")
    functions = [line.verdict for line in judged if line.role in ("output", "fixed", "function")]
    if 4 * unsure <= len(words) and (not functions or functions[-1] != "inconclusive"):
        words = [word for word in words if word != "inconclusive"]
    return min(words, key=SEVERITY.index, default="inconclusive")  # type: ignore[return-value]


def _names(where: Sequence[str]) -> str:
    return ", ".join(where[:4]) + (f" and {len(where) - 4} more" if len(where) > 4 else "")


def _sentence(word: Word, where: Sequence[str], judged: Sequence[Line]) -> str:
    names = _names(where)
    if word == "well-behaved":
        return "Every layer's update keeps its size at every width, so features are learned (rich)."
    if word == "lazy":
        steepest = min(line.slope.value for line in judged if line.verdict == "lazy")
        return (
            f"The function moves at every width while features move less and less (down to width^{steepest:+.2f}, in {names})."
        )
    if word == "exploding":
        return f"Updates grow with the width in {names}; no learning rate is right at every width."
    if word == "vanishing":
        return f"Updates die out with the width in {names}."
    if word == "frozen":
        begin = f"L{names[1:]}" if names.startswith("layer ") else names
        return f"{begin} stop training as the network widens, while the rest goes on."
    drifting = [spoken(line.layer) for line in judged if line.verdict == word and drifts(line)]
    vague = [name for name in where if name not in drifting]
    said = [f"The slopes of {_names(vague)} are too uncertain; add seeds or widths."] if vague else []
    if drifting:
        said.append(f"Updates of {_names(drifting)} drift slightly with the width; wider widths tell whether that fades.")
    return " ".join(said)

"""The Dynamical Dichotomy: what an abc-parameterisation does at infinite width.

Scope of the theorems: multilayer perceptrons whose hidden widths all grow, inputs of fixed size, O(1) steps, tanh or smooth
gelu. A finite bottleneck is outside it (an autoencoder's latents move at every scheme).
"""

from __future__ import annotations

from dataclasses import dataclass

from lazyrich.errors import UsageError
from lazyrich.scaling.exponents import Layers

EPSILON = 1e-9


@dataclass(frozen=True)
class Verdict:
    """What a scheme does at infinite width.

    Attributes:
        stable: nothing blows up or vanishes at initialisation, and no update blows up.
        nontrivial: the function moves.
        regime: 'feature learning', 'kernel', 'trivial' or 'unstable' (for entrywise optimizers the kernel regime is the
            operator regime: a nonlinear relative of the neural tangent kernel).
        r: features move as n^-r.
        layer_r: the same for the update of each layer by itself (input, hidden, output).
        faithful: gradients reach an entrywise optimizer at size one; always True for SGD.
        why: the inequality that decides, in words.
    """

    stable: bool
    nontrivial: bool
    regime: str
    r: float
    layer_r: tuple[float, ...]
    faithful: bool
    why: str

    def __str__(self) -> str:
        return f"{self.regime}: {self.why}"


def classify(layers: Layers, entrywise: bool, hidden_layers: int = 2) -> Verdict:
    """Apply the stability, nontriviality and dichotomy theorems to exponents.

    SGD (Yang & Hu 2021, arXiv:2011.14522): r is Definition 3.2, stability Theorem 3.3, nontriviality Theorem 3.4, the
    dichotomy Theorems 3.6 and 3.8 with Corollary 3.9. Entrywise optimizers (Yang & Littwin 2023, arXiv:2308.01814): the
    same questions for abcd-parameterisations, where r_l = c_l + a_l - 1 (no -1 in the input layer).

    Args:
        layers: the exponents of input, hidden and output layers.
        entrywise: whether they are abcd exponents of an entrywise optimizer.
        hidden_layers: 1 asks about a network with a single hidden layer, which has no hidden-to-hidden weights.

    Raises:
        UsageError: for a network without hidden layers.

    Example:
        >>> from lazyrich.scaling.table import mup
        >>> classify(mup().entrywise, entrywise=True).regime
        'feature learning'
    """
    if hidden_layers < 1:
        raise UsageError(f"got hidden_layers = {hidden_layers}, expected at least 1")
    conditions, layer_r, r = (_entrywise if entrywise else _sgd)(layers, hidden_layers)
    faithful = not entrywise or _faithful(layers, hidden_layers)
    broken = [condition for condition in conditions if not condition.holds]
    moves = _reaches_function(layers, entrywise, r)
    if broken:
        regime = "trivial" if all(condition.vanishes for condition in broken) else "unstable"
        return Verdict(False, moves and regime != "trivial", regime, r, layer_r, faithful, "; ".join(c.words for c in broken))
    if not moves:
        why = f"neither a+b+r = {layers.output.init + r:g} nor the readout's rate reaches 1: the function does not move"
        return Verdict(True, False, "trivial", r, layer_r, faithful, why)
    if abs(r) < EPSILON:
        why = "r = 0: features and function both move by amounts that do not depend on the width"
        return Verdict(True, True, "feature learning", 0.0, layer_r, faithful, why)
    kind = "a kernel method" if not entrywise else "an operator (nonlinear kernel) method"
    why = f"r = {r:g} > 0: features move as n^-{r:g} while the function moves, so training is {kind} in the limit"
    return Verdict(True, True, "kernel", r, layer_r, faithful, why)


@dataclass(frozen=True)
class Condition:
    """One inequality of the stability theorem: whether it holds, in words, and whether its failure makes signals vanish."""

    holds: bool
    words: str
    vanishes: bool = False


Conditions = list[Condition]


def _at_init(layers: Layers, hidden_layers: int) -> Conditions:
    first, hidden, out = (row.init for row in layers)
    found = [Condition(abs(first) < EPSILON, f"input layer: a+b = {first:g}, must be 0 for entries of size one", first > 0)]
    if hidden_layers > 1:
        words = (
            f"hidden layers: a+b = {hidden:g}, must be 1/2: signals {'vanish' if hidden > 0.5 else 'blow up'} with the width"
        )
        found.append(Condition(abs(hidden - 0.5) < EPSILON, words, hidden > 0.5))
    words = f"readout: a+b = {out:g} < 1/2, the function blows up at initialisation"
    return [*found, Condition(out >= 0.5 - EPSILON, words)]


def _sgd(layers: Layers, hidden_layers: int) -> tuple[Conditions, tuple[float, ...], float]:
    first, hidden, out = (row.rate(False) for row in layers)
    back = min(layers.output.init, out)
    layer_r = (back + first, back + hidden - 1) if hidden_layers > 1 else (back + first,)
    r = _clean(min(layer_r))
    words = f"readout: 2a+c = {out:g} < 1, its update moves the function by n^{1 - out:g}"
    conditions = [*_at_init(layers, hidden_layers), _features(r), Condition(out >= 1 - EPSILON, words), _reach(layers, r)]
    return conditions, (*layer_r, out - 1), r


def _entrywise(layers: Layers, hidden_layers: int) -> tuple[Conditions, tuple[float, ...], float]:
    first, hidden, out = (row.rate(True) for row in layers)
    layer_r = (first, hidden - 1) if hidden_layers > 1 else (first,)
    r = _clean(min(layer_r))
    words = f"readout: a+c = {out:g} < 1, its update moves the function by n^{1 - out:g}"
    b, c = layers.output.b, layers.output.c
    outgrown = Condition(b <= c + EPSILON, f"readout: b = {b:g} > c = {c:g}, updates outgrow the initial weights")
    conditions = [*_at_init(layers, hidden_layers), _features(r), Condition(out >= 1 - EPSILON, words), _reach(layers, r)]
    return [*conditions, outgrown], (*layer_r, out - 1), r


def _features(r: float) -> Condition:
    return Condition(r >= -EPSILON, f"r = {r:g} < 0: features blow up as n^{-r:g}")


def _reach(layers: Layers, r: float) -> Condition:
    reach = layers.output.init + r
    words = f"readout: a+b+r = {reach:g} < 1, moving features move the function by n^{1 - reach:g}"
    return Condition(reach >= 1 - EPSILON, words)


def _faithful(layers: Layers, hidden_layers: int) -> bool:
    """Gradients of size one at initialisation: d_l = a_l + a_out + b_out for l <= L, d_out = a_out."""
    rows = [layers.input] + ([layers.hidden] if hidden_layers > 1 else [])
    body = all(abs(row.d - (row.a + layers.output.init)) < EPSILON for row in rows)
    return body and abs(layers.output.d - layers.output.a) < EPSILON


def _reaches_function(layers: Layers, entrywise: bool, r: float) -> bool:
    return abs(layers.output.rate(entrywise) - 1) < EPSILON or abs(layers.output.init + r - 1) < EPSILON


def _clean(value: float) -> float:
    return 0.0 if abs(value) < EPSILON else value

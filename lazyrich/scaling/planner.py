"""From a family and a scheme to a plan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

from lazyrich.amount import unsigned
from lazyrich.errors import PlanError
from lazyrich.family import Family, Law, Role, TensorInfo, as_family
from lazyrich.family.role import grown
from lazyrich.init import Initialiser
from lazyrich.scaling.duty import duties
from lazyrich.scaling.gain import gain_rule, gained
from lazyrich.scaling.initial import initialised, matching, resized
from lazyrich.scaling.native import MATRIX
from lazyrich.scaling.obligation import branches as branch_paths
from lazyrich.scaling.optimizer import GRADIENT, is_entrywise, optimizer_name
from lazyrich.scaling.plan import Plan
from lazyrich.scaling.power import Power
from lazyrich.scaling.readout import readouts
from lazyrich.scaling.rule import rule_for, with_multiplier
from lazyrich.scaling.scheme import Scheme
from lazyrich.scaling.tensor import DECAY_POLICIES, GAUGES, TensorPlan

HOOKABLE = (
    "Linear",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Embedding",
)


def plan(
    family: Family,
    scheme: Scheme,
    optimizer: str | type = "adamw",
    *,
    init: Mapping[str, float | str | Initialiser] | None = None,
    overrides: Mapping[str, Mapping[str, float]] | None = None,
    alignment: str = "full",
    readout_alignment: float | None = None,
    weight_decay: str = "constant_rate",
    gauge: str = "plain",
    epsilon: str = "gradient",
    branches: Sequence[str] = (),
    base_depth: int | None = None,
    depth_exponent: float = 0.5,
) -> Plan:
    """Apply a scheme to a family for one optimizer.

    Args:
        family: the network with its width open.
        scheme: ``mup()``, ``ntk()``, ``richness(r)`` ...
        optimizer: sgd, momentum, adam, adamw, signsgd, lion, adafactor, muon (torch's default scaling), muon_rms (its
            ``match_rms_adamw``) or shampoo; the last three step hidden matrices, the rest is AdamW's. In any case
            ("AdamW"), or torch's class (``torch.optim.AdamW``).
        init: ``{tensor pattern: standard deviation at the base width}`` instead of the factory's own, or a rule of
            ``lazyrich.init``, also by name (``"lecun"``; ``he("tanh")``, ``orthogonal()``, ``critical("tanh", bias=0.05)``,
            ``transposed(of=...)``), which gives the size at the base and the form at every width; of patterns that overlap the
            last counts.
        overrides: ``{tensor pattern: {"lr" | "std" | "weight_decay": constant factor}}``.
        alignment: "full": updates align with the features that they meet, so a sum over n terms grows as n. "none": they
            do not, it grows as sqrt(n), and hidden and readout rates may be sqrt(fan_in) larger (Everett et al. 2024,
            arXiv:2407.05872); for optimizers whose steps have a size of their own.
        readout_alignment: the readout's own exponent instead, from 1/2 (none) to 1 (full): its update meets features in a sum
            that grows as fan_in^exponent. It decides whether per-layer rates of a standard initialisation are lazy or rich.
        weight_decay: "constant_rate" keeps lr x decay equal for all tensors (decoupled decay as in Yang et al. 2022);
            "unscaled" gives all tensors the same decay, so the rate falls with the learning rate.
        gauge: "plain" moves every multiplier into initialisation and learning rate; "multipliers" keeps the scheme's own
            forward multipliers, by hooks on the layers that allow it.
        epsilon: "gradient" scales Adam's epsilon with every tensor's gradients, "hidden" only on hidden tensors (Megatron),
            "unscaled" nowhere (mup); so too the one of gradients of Adafactor.
        branches: module patterns of residual branches, without the skip that is added to them. With m = number of branches /
            base_depth, of each pattern by itself, and alpha = depth_exponent their outputs are scaled by m^-alpha (an obligation),
            the rates of their tensors by m^(alpha - 1), under SGD by m^(2 alpha - 1), and Adam's epsilon there by m^-alpha.
        base_depth: the number of branches of each pattern at which the network was tuned: 2 for two blocks, named as
            ``["blocks.*.attn", "blocks.*.mlp"]``.
        depth_exponent: 1/2 is Depth-muP (Yang et al. 2023, arXiv:2310.02244); 1 is CompleteP (Dey et al. 2025,
            arXiv:2505.01618), where the layers' own updates keep their size relative to the weights at every depth.

    Raises:
        PlanError: for an option that is not known, a pattern that matches nothing, or branches that hold the skip themselves.

    Example:
        >>> import lazyrich as lzr
        >>> print(lzr.plan(lzr.Family(lzr.zoo.mlp), lzr.mup(), "sgd"))
        mup() for sgd, base width 64, 6 tensors
    """
    as_family(family)
    if not isinstance(scheme, Scheme):
        raise PlanError(
            f"got scheme {scheme!r}, expected one such as lazyrich.mup(), lazyrich.ntk() or lazyrich.richness(0.25)"
        )
    _choice("alignment", alignment, ("full", "none"))
    _choice("epsilon", epsilon, ("gradient", "hidden", "unscaled"))
    _choice("weight_decay", weight_decay, DECAY_POLICIES)
    _choice("gauge", gauge, GAUGES)
    if not _within(depth_exponent):
        raise PlanError(
            f"got depth_exponent = {depth_exponent!r}, expected 1/2 (Depth-muP) to 1 (CompleteP): below, the sum of the branches "
            "grows with their number; above, they learn nothing"
        )
    if base_depth is not None and (not isinstance(base_depth, Real) or not 1 <= base_depth < math.inf):
        raise PlanError(
            f"got base_depth = {base_depth!r}, expected at least 1: the number of branches at which the network was tuned"
        )
    branches = _patterns(branches)
    optimizer = optimizer_name(optimizer)
    entrywise = is_entrywise(optimizer)
    if readout_alignment is not None and not _within(readout_alignment):
        raise PlanError(f"got readout_alignment = {readout_alignment!r}, expected 1/2 (none) to 1 (full)")
    _refuse(scheme, optimizer, entrywise, "full" if alignment == "full" and readout_alignment in (None, 1) else "none")
    laws, own = _laws(family)
    read = readouts(family) if scheme.gamma != 1 else _narrow(family)
    tensors = {
        name: _tensor_plan(info, scheme, entrywise, gauge, laws[name], own[name], name in read and info.role is not Role.INPUT)
        for name, info in family.tensors.items()
    }
    gains = _gains(alignment, readout_alignment)
    tensors = {name: _assuming(tensor, gains, epsilon) for name, tensor in tensors.items()}
    tensors = _normed(tensors, scheme, optimizer, read)
    tensors = _deepened(tensors, family, branches, base_depth, depth_exponent, optimizer, epsilon)
    tensors = initialised(tensors, family, init or {})
    tensors = gained(_overridden(tensors, overrides or {}))
    return Plan(
        scheme=scheme,
        optimizer_name=optimizer,
        base=family.base,
        reference=_reference(family),
        tensors=tensors,
        obligations=duties(family, scheme, optimizer, branches, base_depth, depth_exponent),
        decay_policy=weight_decay,
        gauge=gauge,
        family=family,
    )


def _within(value: Any) -> bool:
    """Whether it is a number from 1/2 to 1."""
    return isinstance(value, Real) and 0.5 <= float(value) <= 1


def _patterns(branches: Any) -> Sequence[str]:
    """Patterns as a sequence, one by itself among them: read letter by letter it would name other modules."""
    several = [branches] if isinstance(branches, str) else branches
    if not isinstance(several, Sequence) or not all(isinstance(pattern, str) for pattern in several):
        raise PlanError(f"got branches = {branches!r}, expected patterns of modules, such as ['blocks.*']")
    return several


def _choice(name: str, got: str, known: tuple[str, ...]) -> None:
    if got not in known:
        raise PlanError(f"got {name}='{got}', expected one of {', '.join(known)}")


def _refuse(scheme: Scheme, optimizer: str, entrywise: bool, alignment: str) -> None:
    if alignment == "none" and (not entrywise or scheme.global_rate):
        raise PlanError(
            f"got alignment='none' for {scheme.name} under {optimizer}; it speaks of per-tensor rates of optimizers whose steps "
            "have a size of their own. Under SGD the layers' rates depend on each other: give them by lzr.abc(a, b, c)"
        )
    if scheme.global_rate and scheme.layers(entrywise).hidden.rate(entrywise) and optimizer in (*MATRIX, "adafactor"):
        raise PlanError(f"got {scheme.name} for {optimizer}, which has no one largest rate; take standard() or mup()")


def _gains(alignment: str, readout: float | None) -> dict[Role, float]:
    """Powers of the fan-in by which rates may be larger than under full alignment."""
    gain = 0.5 if alignment == "none" else 0.0
    return {Role.HIDDEN: gain, Role.OUTPUT: gain if readout is None else 1.0 - readout}


def _assuming(tensor: TensorPlan, gains: Mapping[Role, float], epsilon: str) -> TensorPlan:
    """The tensor's rule under another assumption on alignment, or another policy on epsilon."""
    rule = tensor.rule
    if gain := gains.get(tensor.role, 0.0):
        rule = replace(rule, lr=rule.lr * Power(fan_in=gain))
    if epsilon == "unscaled" or (epsilon == "hidden" and tensor.role is not Role.HIDDEN):
        rule = replace(rule, eps=Power())
    return replace(tensor, rule=rule)


def _narrow(family: Family) -> frozenset[str]:
    return frozenset(name for name, info in family.tensors.items() if info.role is Role.OUTPUT)


def _normed(tensors: dict[str, TensorPlan], scheme: Scheme, optimizer: str, read: frozenset[str]) -> dict[str, TensorPlan]:
    """The tensors, with the rules of the gains of weight norms."""
    gains = {
        name: gain_rule(tensors[t.norm_of], scheme, optimizer, t.norm_of in read) for name, t in tensors.items() if t.norm_of
    }
    return {name: replace(tensor, rule=gains.get(name, tensor.rule)) for name, tensor in tensors.items()}


def _deepened(
    tensors: dict[str, TensorPlan],
    family: Family,
    patterns: Sequence[str],
    base_depth: int | None,
    exponent: float,
    optimizer: str,
    epsilon: str,
) -> dict[str, TensorPlan]:
    """The tensors inside residual branches, with the rates that go with branches scaled by m^-exponent.

    A gradient there is m^-exponent of what it was. All m branches together shall move the stream as one did: each by
    m^(exponent - 1), which is the rate of a step that has a size of its own.
    """
    power, found, owner = 2 * exponent - 1 if optimizer in GRADIENT else exponent - 1, dict(tensors), {}
    for pattern in patterns:
        paths = branch_paths(family.sketch(family.base), pattern)
        m = len(paths) / (base_depth or len(paths))
        for name, tensor in tensors.items():
            if not any(name.startswith(f"{path}.") for path in paths):
                continue
            if owner.setdefault(name, pattern) != pattern:
                raise PlanError(
                    f"'{name}' lies inside branches of '{owner[name]}' and of '{pattern}'; name each residual branch once, the "
                    "outer or the inner ones"
                )
            scaled = epsilon == "gradient" or (epsilon == "hidden" and tensor.role is Role.HIDDEN)
            rule, eps = tensor.rule, Power(m**-exponent) if scaled else Power()
            found[name] = replace(tensor, rule=replace(rule, lr=rule.lr * Power(m**power), eps=rule.eps * eps))
    return found


def _tensor_plan(
    info: TensorInfo, scheme: Scheme, entrywise: bool, gauge: str, law: Law, own: float | None, read: bool
) -> TensorPlan:
    rule = rule_for(scheme, info.role, entrywise, read)
    hookable = info.kind in HOOKABLE and info.name.endswith("weight") and not info.aliases
    if gauge == "multipliers" and hookable:
        rule = with_multiplier(rule, scheme, info.role, entrywise)
    sides = (info.axes.contracted, info.axes.produced, grown(info.shape, info.probe_shape))
    window = (info.axes.taps, info.axes.each, info.axes.gap, info.axes.block, info.axes.spread)
    return TensorPlan(info.name, info.role, info.shape, *sides, law.mean, law.std, own, rule, 1.0, None, info.norm_of, *window)


def _laws(family: Family) -> tuple[dict[str, Law], dict[str, float | None]]:
    """Each tensor's law at the base width, and the power of the width with which the factory's own std falls."""
    base, probe = family.laws(family.base), family.laws(family.probe)
    return base, {name: _own_exponent(law, probe[name], family.probe / family.base) for name, law in base.items()}


def _own_exponent(base: Law, probe: Law, ratio: float) -> float | None:
    """The half-integer power with which a std falls; None where it is none, or where two samples cannot tell which."""
    if base.std == 0 or probe.std == 0:
        return 0.0
    exponent = -math.log(probe.std / base.std) / math.log(ratio)
    error = 3 * math.hypot(base.noise, probe.noise) / math.log(ratio)
    snapped = round(2 * exponent) / 2
    return snapped if error < 0.2 and abs(exponent - snapped) < max(error, 0.02) else None


def _reference(family: Family) -> tuple[str, int]:
    """A tensor and an axis that grow in step with the width."""
    wanted = family.probe / family.base
    grows = [
        (abs(math.log(q / p / wanted)), name, axis)
        for name, info in family.tensors.items()
        for axis, (p, q) in enumerate(zip(info.shape, info.probe_shape, strict=True))
        if p != q
    ]
    _, name, axis = min(grows)
    return name, axis


def _overridden(tensors: dict[str, TensorPlan], overrides: Mapping[str, Mapping[str, float]]) -> dict[str, TensorPlan]:
    expected = "expected {tensor pattern: {'lr': factor}}, such as {'0.weight': {'lr': 0.1}}"
    if not isinstance(overrides, Mapping):
        raise PlanError(f"got overrides = {overrides!r}, {expected}")
    for pattern, factors in overrides.items():
        if not isinstance(factors, Mapping):
            raise PlanError(f"got overrides = {factors!r} for '{pattern}', {expected}")
        for name in matching(tensors, pattern, "overrides"):
            for what, factor in factors.items():
                tensors[name] = _scaled(tensors[name], what, factor)
    return tensors


def _scaled(tensor: TensorPlan, what: str, factor: float) -> TensorPlan:
    rule, factor = tensor.rule, unsigned(f"override '{what}' of '{tensor.name}'", factor, PlanError)
    if what == "lr":
        return replace(tensor, rule=replace(rule, lr=rule.lr * Power(factor)))
    if what == "weight_decay":
        return replace(tensor, decay=tensor.decay * factor)
    if what == "std":
        return resized(tensor, factor)
    raise PlanError(f"got override '{what}' for '{tensor.name}', expected 'lr', 'std' or 'weight_decay'")

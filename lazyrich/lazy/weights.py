"""What a kernel needs of every tensor: its variance, its mean, and the weight of its own term in the tangent kernel."""

from __future__ import annotations

import copy
import fnmatch
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property

from torch import Tensor, nn

from lazyrich.errors import KernelError
from lazyrich.family import Law, Role
from lazyrich.family.law import UNIFORM, LawRecorder, measure_laws, refuse_complex
from lazyrich.init import Initialiser
from lazyrich.scaling import Plan, Scheme
from lazyrich.scaling.optimizer import GRADIENT
from lazyrich.scaling.tensor import TensorPlan, setting_of

ENOUGH = 4096  # entries that tell a variance to 2 %
Init = Initialiser | Mapping[str, Initialiser] | None


@dataclass(frozen=True)
class Drawn:
    """One tensor in the limit: sigma^2 (times the fan-in for weights that are summed over), mean, tangent-kernel rate.

    ``excess`` is the kurtosis beyond a normal law's of weights that sum the inputs, whose number does not grow, and of what is
    added entry by entry.
    """

    variance: float
    mean: float
    rate: float
    excess: float = field(default=0.0, repr=False)

    def changed(self, scale: float, shift: float) -> Drawn:
        """Of the tensor times a number plus another.

        Example:
            >>> Drawn(2.0, 1.0, 3.0).changed(2.0, -1.0)
            Drawn(variance=8.0, mean=1.0, rate=12.0)
        """
        return Drawn(self.variance * scale**2, self.mean * scale + shift, self.rate * scale**2, self.excess)


@dataclass(frozen=True)
class Weights:
    """The laws and rates of a network's tensors.

    Attributes:
        laws: as the module (or the plan, at its base width) draws them.
        init: variance rules that replace the laws of linear and convolutional layers, by tensor-name pattern.
        scheme: decides the rates.
        planned: rates are those of a plan's own learning rates instead of the literature's.
        frozen: tensors that are not trained.
        rates: constant factors on a plan's learning rates.
        roles: of a plan's tensors, which tell a fixed width from one that grows.
    """

    laws: Mapping[str, Law]
    init: Mapping[str, Initialiser]
    scheme: Scheme
    planned: bool
    frozen: frozenset[str]
    rates: Mapping[str, float] = field(default_factory=dict)
    roles: Mapping[str, Role] = field(default_factory=dict)

    def summed(self, name: str, fan_in: float, role: Role) -> Drawn:
        """A weight that a sum over ``fan_in`` entries uses (linear and convolutional layers).

        The sum is taken to be Gaussian, which it is for normal entries, or for many: of torch's uniform entries over five
        inputs the tangent kernel is off by 3 % at every width; where it is more, ``few.tell`` says so. Weights that start at
        zero are trained as if drawn with variance one: their size tells no rate.
        """
        law, rule = self.laws[name], self.rule(name)
        if rule is None and law.mean != 0:
            raise KernelError(f"'{name}' has the mean {law.mean:g}; weights that are summed over a width need mean zero")
        drawn = rule is None or rule.w is None
        variance = law.std**2 * fan_in if drawn else rule.w  # type: ignore[union-attr]
        size = 1.0 if drawn and law.std == 0 else variance  # a zero of its own is a start, not a freeze
        excess = law.kurtosis if drawn else _excess(rule)
        return Drawn(variance, 0.0, self._rate(name, size, role, fan_in), excess if role is Role.INPUT else 0.0)

    def added(self, name: str, role: Role = Role.VECTOR) -> Drawn:
        """A bias of a linear or convolutional layer."""
        rule = self.rule(name)
        if rule is None or rule.b is None:
            law = self.laws[name]
            if law.std == 0 and law.noise:  # one entry, whose law has the mean zero for all that is known
                return Drawn(law.mean**2, 0.0, self._rate(name, law.mean**2, role))
            return self.entry(name, role)
        return Drawn(rule.b, 0.0, self._rate(name, rule.b, role))

    def entry(self, name: str, role: Role = Role.VECTOR) -> Drawn:
        """Any other tensor, whose entries act one by one: gains, tables, positions; by its own law, or a rule of its own name."""
        law, rule = self.laws[name], self.init.get(name)
        if rule and rule.w is not None:
            law = Law(0.0, rule.w**0.5)
        constant = law.std == 0
        return Drawn(law.std**2, law.mean, self._rate(name, 1.0 if constant else law.std**2, role), law.kurtosis)

    def rule(self, name: str) -> Initialiser | None:
        """The last that matches, as in a plan's ``init=``."""
        found = [rule for pattern, rule in self.init.items() if fnmatch.fnmatch(name, pattern)]
        return found[-1] if found else None

    @cached_property
    def _contributions(self) -> dict[Role, float]:
        """By role; a scheme's hash costs more than the rest of a rule."""
        return {role: contribution(self.scheme, role) for role in Role}

    def _rate(self, name: str, variance: float, role: Role, fan_in: float = 1.0) -> float:
        """Weight of the term: the literature's sigma^2 in the kernel regime's own gauge, else learning rate times fan-in."""
        if name in self.frozen or self._contributions[role] < 0:
            return 0.0
        if self.planned:
            return fan_in * self.rates.get(name, 1.0)
        return 1.0 if self.scheme.global_rate else variance


@cache
def contribution(scheme: Scheme, role: Role) -> float:
    """Exponent in the width of a role's term in the tangent kernel of SGD: 0 stays, below 0 vanishes.

    n^-rate from the learning rate, n from the sum over a growing fan-in, n^(1 - 2 init_out) from the gradients of all units.

    Example:
        >>> from lazyrich.scaling import ntk, standard
        >>> contribution(ntk(), Role.HIDDEN), contribution(standard(max_stable=True), Role.INPUT)
        (0.0, -1.0)
    """
    layers = scheme.sgd
    row = {Role.HIDDEN: layers.hidden, Role.OUTPUT: layers.output}.get(role, layers.input)
    if role is Role.FIXED:
        return -float(row.c) if scheme.global_rate else 0.0
    summed = 1.0 if role in (Role.HIDDEN, Role.OUTPUT) else 0.0
    units = 0.0 if role is Role.OUTPUT else 1.0 - 2.0 * float(layers.output.init)
    return round(summed - float(row.rate(False)) + units, 9)


def weights_of(module: nn.Module, scheme: Scheme, init: Init) -> Weights:
    """Laws of a module as it stands, under a scheme.

    Raises:
        KernelError: for a scheme whose limit is no kernel method.
    """
    _refuse_unlazy(scheme)
    refuse_complex(module.named_parameters(), KernelError)
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    rules = {"*": init} if isinstance(init, Initialiser) else dict(init or {})
    for pattern, rule in rules.items():
        _refuse_dependent(rule)
        if not fnmatch.filter(names, pattern):
            held = f"the tensors are {', '.join(names[:8])}" if names else "the network has no parameters; end it in a readout"
            raise KernelError(f"init= pattern '{pattern}' matches no tensor; {held}")
    frozen = frozenset(name for name, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad)
    made = Weights(own_laws(module), rules, scheme, False, frozen)
    _warn_of_few(made, {name: p.dim() for name, p in module.named_parameters(remove_duplicate=False)})
    return made


def _warn_of_few(weights: Weights, axes: Mapping[str, int]) -> None:
    """Tell of laws that hang on a handful of entries and that no rule replaces."""
    few = {
        name: round(law.entries)
        for name, law in weights.laws.items()
        if law.entries < ENOUGH and not _ruled(weights, name, axes[name]) and (law.std or name.endswith("bias"))
    }
    if few:
        said = ", ".join(f"'{name}' ({n})" for name, n in list(few.items())[:6]) + (", ..." if len(few) > 6 else "")
        warnings.warn(
            f"got tensors whose laws could only be measured, from one draw of few entries: {said}; expected {ENOUGH} or more, "
            f"variances are off by about {math.sqrt(2 / min(few.values())):.0%}. Give their laws by init=, as "
            "lzr.init.variance(w, b), draw them in a reset_parameters() of their module, or take the kernel of a plan, which reads "
            "the laws off the factory",
            stacklevel=4,
        )


def _ruled(weights: Weights, name: str, axes: int) -> bool:
    """Whether a rule replaces the law."""
    rule = weights.rule(name)
    return rule is not None and (rule.w if axes > 1 or name in weights.init else rule.b) is not None


def weights_of_plan(plan: Plan) -> Weights:
    """Laws and learning rates of a plan at its base width, carried to infinite width by its scheme."""
    _refuse_unlazy(plan.scheme)
    if plan.optimizer_name not in GRADIENT:
        raise KernelError(
            f"the plan is for {plan.optimizer_name}; the tangent kernel is the limit of gradient descent, plan(..., 'sgd')"
        )
    for name, form in plan.dependent().items():
        raise KernelError(
            f"the entries of '{name}' are no independent draws ({form}), which the rules of infinite width want; take a plan "
            "without it"
        )
    at_base = {name: setting_of(t, t.shape, 1.0, plan.decay_policy, "sgd") for name, t in plan.tensors.items()}
    laws = {
        name: Law(t.mean, 0.0 if _vanishes(t) else at_base[name].std, excess=_kurtosis(plan, name))
        for name, t in plan.tensors.items()
    }
    rates = {name: setting.lr for name, setting in at_base.items()}
    roles = {name: t.role for name, t in plan.tensors.items()}
    return Weights(laws, {}, plan.scheme, True, frozenset(), rates, roles)


def _refuse_dependent(rule: Initialiser) -> None:
    if rule.fan != "fan_in" or (rule.form and not rule.form.iid):
        raise KernelError(
            f"got init={rule}; expected a size by the fan-in and independent entries, as of variance(w, b), lecun() or he(). Other "
            "sizes: lzr.kernel(lzr.plan(family, scheme, 'sgd', init=...))"
        )


def _kurtosis(plan: Plan, name: str) -> float:
    """Of a tensor's law, beyond a normal one's: of the form that was asked for, else of the factory's."""
    tensor = plan.tensors[name]
    if (
        tensor.start is not None and tensor.start.form is not None and tensor.contracted
    ):  # a bias keeps the form of its own draw
        return _excess(tensor.start)
    return plan.family.laws(plan.base)[name].kurtosis if plan.family else 0.0


def _excess(rule: Initialiser | None) -> float:
    return UNIFORM if rule and rule.form and rule.form.name == "uniform" else 0.0


def _vanishes(tensor: TensorPlan) -> bool:
    """Whether a tensor that nothing is summed over falls with the width, as torch's own biases do."""
    grown = tuple(2 * size if i in tensor.grows else size for i, size in enumerate(tensor.shape))
    here, wide = (setting_of(tensor, shape, n, "unscaled", "sgd").std for shape, n in ((tensor.shape, 1.0), (grown, 2.0)))
    return tensor.role not in (Role.HIDDEN, Role.OUTPUT) and wide < 0.99 * here


def _refuse_unlazy(scheme: Scheme) -> None:
    verdict = scheme.classify("sgd")
    if verdict.regime != "kernel":
        raise KernelError(
            f"{scheme.name} under SGD is {verdict.regime} ({verdict.why}), so its infinite-width limit is no kernel; "
            "take ntk(), standard(max_stable=True) or richness(r) with r < 1/2"
        )


def own_laws(module: nn.Module) -> dict[str, Law]:
    """The law of every tensor: its module type's own where the entries agree with it, else measured from the entries."""
    made = (v for part in module.modules() for v in vars(part).values() if isinstance(v, Tensor) and v.grad_fn is not None)
    sketch = copy.deepcopy(module, {id(v): v.detach().to("meta") for v in made}).to("meta")  # others torch refuses to copy
    with LawRecorder() as recorder:
        for part in sketch.modules():
            reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
            if callable(reset):
                reset()
    drawn = dict(module.named_parameters(remove_duplicate=False))
    found = {}
    for name, tensor in sketch.named_parameters(remove_duplicate=False):
        law = recorder.law(tensor)
        found[name] = law if law and law.fits(drawn[name]) else None
    missing = [name for name, law in found.items() if law is None]
    measured = measure_laws([_Holder(drawn)], missing) if missing else {}  # type: ignore[list-item]
    return {name: law or measured[name] for name, law in found.items()}


class _Holder(nn.Module):
    """Parameters under all of their names, tied ones too."""

    def __init__(self, drawn: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self.drawn = drawn

    def named_parameters(self, *args: object, **options: object):  # type: ignore[override]
        return iter(self.drawn.items())

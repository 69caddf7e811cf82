"""A plan: a scheme applied to a family for one optimizer, as a table of plain numbers keyed by tensor name."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lazyrich.amount import unsigned
from lazyrich.errors import FamilyError, PlanError
from lazyrich.family import Family
from lazyrich.family.family import seeded
from lazyrich.scaling import serial
from lazyrich.scaling.naming import parameters
from lazyrich.scaling.native import by_matrix
from lazyrich.scaling.obligation import Obligation, module_at, release_, scale_input
from lazyrich.scaling.optimizer import gradient_floor, group_of, make_optimizer
from lazyrich.scaling.scheme import Scheme
from lazyrich.scaling.tensor import Setting, TensorPlan, check_shape, rescale_, setting_of

FORMS = 1_000_003  # keeps the plan's own draws apart from the factory's
SMALLEST = 1e-3  # the size that Adafactor takes a tensor of zeros to have


@dataclass(frozen=True)
class Plan:
    """A parameterisation of one family for one optimizer, in plain floats.

    Made by ``lazyrich.plan``. At the base width it is exactly the plain network and the plain learning rate.

    Example:
        >>> import lazyrich as lzr
        >>> plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=64), lzr.mup(), optimizer="adamw")
        >>> model = plan.build(256)
        >>> [group["lr"] for group in plan.param_groups(model, lr=0.01)]
        [0.01, 0.0025, 0.0025, 0.01]
    """

    scheme: Scheme
    optimizer_name: str
    base: int
    reference: tuple[str, int]
    tensors: Mapping[str, TensorPlan]
    obligations: tuple[Obligation, ...] = ()
    decay_policy: str = "constant_rate"
    gauge: str = "plain"
    family: Family | None = None

    def build(self, width: int, seed: int = 0, device: torch.device | str = "cpu", meet: bool = False) -> nn.Module:
        """The family's network at a width with the plan's initialisation; ``meet`` attaches the obligations' hooks."""
        model = self._family().build(_width(width), seed, device)
        with seeded(seed + FORMS):  # of tensors that the factory leaves constant and the plan draws
            self._apply_(model, fresh=True)
        return self.meet_(model) if meet else model

    def apply_(self, model: nn.Module) -> nn.Module:
        """Rescale a freshly built model's initialisation to the plan, in place; applying it twice changes nothing.

        Raises:
            PlanError: if the model is not of this family, or a tensor follows neither the factory's law nor the plan's
                (a trained or loaded model; a few steps are told by gains and biases that the factory leaves constant), or is on
                the meta device.
        """
        if drawn := [name for name, (p, _) in self._matched(model).items() if p.is_meta]:
            raise PlanError(
                f"tensor '{drawn[0]}' is on the meta device, where nothing is drawn that a plan could rescale; apply the plan "
                "after model.to_empty(device=...) and the layers' reset_parameters(), or take plan.build(width, device=...)"
            )
        return self._apply_(model)

    def _apply_(self, model: nn.Module, fresh: bool = False) -> nn.Module:
        matched = self._matched(model)
        known = self._known({name: tuple(p.shape) for name, (p, _) in matched.items()}, all_=True)
        rescale_([(p, known[name], setting) for name, (p, setting) in matched.items()], fresh)
        if self.gauge == "multipliers":
            self._multiply_(model)
        return model

    def meet_(self, model: nn.Module) -> nn.Module:
        """Meet the obligations on a model by hooks; ``release_(model)`` takes them off."""
        _model(model)
        self.release_(model)
        if self.gauge == "multipliers":
            self._multiply_(model)
        for obligation in self.obligations:
            obligation.meet_(model)
        return model

    def release_(self, model: nn.Module) -> nn.Module:
        """Take the plan's hooks off a model."""
        return release_(_model(model))

    def param_groups(
        self, model: nn.Module, lr: float, weight_decay: float = 0.0, eps: float = 1e-8, rest_lr: float | None = None
    ) -> list[dict[str, Any]]:
        """Groups for a plain torch optimizer, tensors with equal numbers together; ``tensors`` lists their names.

        Args:
            model: a model of the family, at any width; frozen tensors are left out.
            lr: learning rate of the base-width network.
            weight_decay: decay of the base-width network.
            eps: Adam's epsilon at the base width; Adafactor's own, of gradients, follows the width as it does.
            rest_lr: under an optimizer of matrices (Muon, Shampoo) the rate of what stays on AdamW; ``lr`` when not
                given. The groups' ``optimizer`` says which of the two a group is for.
        """
        lr, weight_decay, eps = _number("lr", lr), _number("weight_decay", weight_decay), _number("eps", eps)
        rest_lr = lr if rest_lr is None else _number("rest_lr", rest_lr)
        if self.optimizer_name == "adam" and weight_decay and self.decay_policy == "constant_rate":
            raise PlanError(
                "Adam divides its L2 term by the gradient's size, so lr x decay says nothing of it; "
                "plan for 'adamw', or give weight_decay='unscaled' to lzr.plan"
            )
        groups: dict[tuple[Any, ...], dict[str, Any]] = {}
        for name, (parameter, setting) in self._matched(model).items():
            if not parameter.requires_grad:
                continue
            group = self._group(name, parameter, setting, (lr, rest_lr), weight_decay, eps)
            key = tuple(_rounded(value) for value in group.values())
            entry = groups.setdefault(key, {"params": [], "tensors": [], **group})
            entry["params"].append(parameter)
            entry["tensors"].append(name)
        return list(groups.values())

    def _group(
        self, name: str, parameter: nn.Parameter, setting: Setting, rates: tuple[float, float], weight_decay: float, eps: float
    ) -> dict[str, Any]:
        matrix = by_matrix(self.optimizer_name, self.tensors[name].role, self.tensors[name].shape)
        scaled = (rates[0] * setting.lr, rates[1] * setting.lr)
        decay, floors = weight_decay * setting.weight_decay, (gradient_floor(parameter, setting.eps), SMALLEST * setting.shrink)
        return group_of(self.optimizer_name, matrix, scaled, decay, eps * setting.eps, floors)

    def optimizer(
        self,
        model: nn.Module,
        lr: float,
        weight_decay: float = 0.0,
        eps: float = 1e-8,
        rest_lr: float | None = None,
        **options: Any,
    ) -> torch.optim.Optimizer:
        """The plain torch optimizer over the plan's groups; ``options`` go to its class."""
        return make_optimizer(self.optimizer_name, self.param_groups(model, lr, weight_decay, eps, rest_lr), **options)

    @property
    def fingerprint(self) -> str:
        """A short hash of everything that the plan says, which a study's settings carry: a changed plan is another study."""
        return hashlib.sha256(json.dumps(serial.to_dict(self), sort_keys=True).encode()).hexdigest()[:16]

    def dependent(self) -> dict[str, str]:
        """Weights whose entries are no independent draws (coupled, sparse, made from data), with their forms.

        Example:
            >>> import lazyrich as lzr
            >>> init = {"decoder.readout.weight": lzr.init.transposed("encoder.hidden.0.weight")}
            >>> lzr.plan(lzr.Family(lzr.zoo.autoencoder), lzr.mup(), init=init).dependent()
            {'decoder.readout.weight': 'transposed'}
        """
        starts = {name: tensor.start for name, tensor in self.tensors.items()}
        return {name: start.form.name for name, start in starts.items() if start and start.form and not start.form.iid}

    def settings(self, target: int | nn.Module) -> dict[str, Setting]:
        """The numbers of every tensor, at a width of the family or for a model."""
        if isinstance(target, nn.Module):
            return {name: setting for name, (_, setting) in self._matched(target).items()}
        return self._settings(self._family().shapes(_width(target)))

    def rows(self, target: int | nn.Module) -> list[dict[str, Any]]:
        """``table`` as records, for pandas or polars; an initial size that nothing here tells is nan."""
        settings = self.settings(target)
        shapes = (
            {name: tuple(p.shape) for name, p in parameters(target, self.tensors).items()}
            if isinstance(target, nn.Module)
            else self._family().shapes(_width(target))
        )
        formed, known = any(map(self._form, self.tensors)), self._known(shapes)
        normed = any(tensor.norm_of for tensor in self.tensors.values())  # whose gains start as norms, far from zero
        return [
            {
                "tensor": name,
                "role": str(self.tensors[name].role),
                "shape": shapes[name],
                "init std": math.nan if known[name].lawless and known[name].keeps and self._ratio(shapes) != 1 else s.std,
                **({"init mean": self._mean(name, shapes, settings)} if normed else {}),
                "lr x": s.lr,
                "weight decay x": s.weight_decay,
                "eps x": s.eps,
                "multiplier": s.multiplier,
                **({"form": self._form(name)} if formed else {}),
            }
            for name, s in settings.items()
        ]

    def table(self, target: int | nn.Module) -> str:
        """A readable table of every tensor's numbers, at a width or for a model."""
        rows = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in self.rows(target)]
        header = list(self.rows(target)[0])
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])

    def save(self, path: str | Path) -> Path:
        """Write the plan as JSON, atomically."""
        return serial.save(self, path)

    @classmethod
    def load(cls, path: str | Path, family: Family | None = None) -> Plan:
        """Read a plan; with its family it can build, without it still serves any model of the family.

        Raises:
            PlanError: if the file holds no plan.
        """
        return cls(**serial.load(path, family))

    def __str__(self) -> str:
        owed = f", {len(self.obligations)} obligation(s)" if self.obligations else ""
        return f"{self.scheme.name} for {self.optimizer_name}, base width {self.base}, {len(self.tensors)} tensors{owed}"

    def _mean(self, name: str, shapes: Mapping[str, tuple[int, ...]], settings: Mapping[str, Setting]) -> float:
        """What entries scatter around at the start; of a weight norm's gains the root mean square of its directions' norms."""
        tensor = self.tensors[name]
        if not tensor.norm_of:
            return tensor.mean
        return settings[tensor.norm_of].std * math.sqrt(math.prod(shapes[tensor.norm_of]) / math.prod(shapes[name]))

    def _form(self, name: str) -> str:
        """The form of a tensor in a word; empty for the factory's own."""
        start = self.tensors[name].start
        form = start.form if start else None
        if form is None or not self.tensors[name].axes.summed:
            return ""
        return f"{form.name} of {form.of}" if form.of else form.name

    def _family(self) -> Family:
        if self.family is None:
            raise PlanError(
                "this plan was loaded without its family, so it cannot build; use plan.apply_(your_model), or "
                "Plan.load(path, family=Family(factory, base=...))"
            )
        return self.family

    def _settings(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Setting]:
        if set(shapes) != set(self.tensors):
            extra, missing = sorted(set(shapes) - set(self.tensors)), sorted(set(self.tensors) - set(shapes))
            raise PlanError(
                f"the model is not of the plan's family: it has {extra[:3] or 'nothing'} that the plan does not know and "
                f"lacks {missing[:3] or 'nothing'}; make the plan from the factory that built this model"
            )
        for name, shape in shapes.items():
            check_shape(self.tensors[name], shape)
            if 0 in shape and 0 not in self.tensors[name].shape:
                raise PlanError(
                    f"tensor '{name}' has shape {shape} at this width, {self.tensors[name].shape} at the base: of an axis of "
                    "size 0 nothing can be planned; take a wider network"
                )
        options, known = (self._ratio(shapes), self.decay_policy, self.optimizer_name), self._known(shapes)
        return {name: setting_of(known[name], shape, *options) for name, shape in shapes.items()}

    def _ratio(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """By how much a network of these shapes is wider than the base."""
        tensor, axis = self.reference
        return shapes[tensor][axis] / self.tensors[tensor].shape[axis]

    def _known(self, shapes: Mapping[str, tuple[int, ...]], all_: bool = False) -> Mapping[str, TensorPlan]:
        """The tensors; where the factory's law is no power of the width, with the one that leads to its law at these shapes.

        Only those whose own size the plan keeps, unless ``all_`` are asked for; without a family that builds this width as ever.
        """
        ratio = self._ratio(shapes)
        asked = [name for name, t in self.tensors.items() if ratio != 1 and t.lawless and (all_ or t.keeps)]
        if not asked or self.family is None:
            return self.tensors
        width, found = round(self.base * ratio), dict(self.tensors)
        with suppress(FamilyError):  # no factory, or none of this width
            laws = self.family.laws(width) if self.family.shapes(width) == dict(shapes) else {}
            for name in asked:
                if name in laws and laws[name].std > 0:
                    found[name] = replace(found[name], own=-math.log(laws[name].std / found[name].std) / math.log(ratio))
        return found

    def _matched(self, model: nn.Module) -> dict[str, tuple[nn.Parameter, Setting]]:
        found = parameters(_model(model), self.tensors)
        settings = self._settings({name: tuple(p.shape) for name, p in found.items()})
        return {name: (found[name], settings[name]) for name in found}

    def _multiply_(self, model: nn.Module) -> None:
        release_(model)
        for name, setting in self.settings(model).items():
            if setting.multiplier != 1.0:
                scale_input(module_at(model, name.rpartition(".")[0]), setting.multiplier)


def _model(value: Any) -> nn.Module:
    if not isinstance(value, nn.Module):
        raise PlanError(f"got {type(value).__name__}, expected a model of the plan's family, such as plan.build(256)")
    return value


def _number(name: str, value: Any) -> float:
    """A rate as a float; what is none would train in silence to nothing."""
    return unsigned(name, value, PlanError)


def _width(value: Any) -> int:
    found = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    if not found >= 1 or not found.is_integer():
        raise PlanError(f"got width {value!r}, expected a whole number of at least 1, such as 256, or a model of the family")
    return int(found)


def _rounded(value: Any) -> Any:
    """A number without its last bits, so that groups that differ by rounding are one."""
    if isinstance(value, tuple):
        return tuple(map(_rounded, value))
    return float(f"{value:.12g}") if isinstance(value, float) else value


def as_plan(value: Any) -> Plan:
    """The value, if it is a plan.

    Raises:
        PlanError: if it is something else, such as a family.

    Example:
        >>> as_plan("mup")
        Traceback (most recent call last):
        ...
        lazyrich.errors.PlanError: got str, expected a plan: lazyrich.plan(family, lazyrich.mup(), "adam")
    """
    if not isinstance(value, Plan):
        raise PlanError(f'got {type(value).__name__}, expected a plan: lazyrich.plan(family, lazyrich.mup(), "adam")')
    return value

"""Plans as JSON files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyrich.errors import LazyrichError, PlanError
from lazyrich.family import Family, Role
from lazyrich.files import read_json, write_json
from lazyrich.init import Form, Initialiser
from lazyrich.scaling.obligation import Obligation
from lazyrich.scaling.optimizer import is_entrywise
from lazyrich.scaling.power import Power
from lazyrich.scaling.rule import Rule
from lazyrich.scaling.scheme import Scheme
from lazyrich.scaling.tensor import DECAY_POLICIES, GAUGES, TensorPlan, setting_of

if TYPE_CHECKING:
    from lazyrich.scaling.plan import Plan

FORMAT = 1


def to_dict(plan: Plan) -> dict[str, Any]:
    """A plan as plain numbers and strings."""
    return {
        "lazyrich plan": FORMAT,
        "scheme": plan.scheme.to_dict(),
        "optimizer": plan.optimizer_name,
        "base": plan.base,
        "reference": list(plan.reference),
        "decay_policy": plan.decay_policy,
        "gauge": plan.gauge,
        "tensors": [_row(tensor) for tensor in plan.tensors.values()],
        "obligations": [asdict(obligation) for obligation in plan.obligations],
    }


def _row(tensor: TensorPlan) -> dict[str, Any]:
    row: dict[str, Any] = {**asdict(tensor), "role": str(tensor.role)}
    each = int(bool(tensor.taps))
    plain = {
        "norm_of": "",
        "taps": (),
        "each": each,
        "gap": 1,
        "block": 1,
        "spread": 1,
    }  # not written: other plans stay as ever
    return {key: value for key, value in row.items() if key not in plain or value != plain[key]}


def save(plan: Plan, path: str | Path) -> Path:
    """Write a plan as JSON."""
    return write_json(path, to_dict(plan))


def load(path: str | Path, family: Family | None = None) -> dict[str, Any]:
    """Read the fields of a plan from JSON.

    Raises:
        PlanError: if the file holds no plan of this format, or the family's tensors are others than the plan's.
    """
    data = read_json(path)
    if not isinstance(data, dict) or data.get("lazyrich plan") != FORMAT:
        raise PlanError(f"{path} holds no plan of format {FORMAT}; write one with plan.save(path)")
    try:
        fields = _fields(data)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, LazyrichError) as error:
        raise PlanError(f"{path} is a damaged plan: {type(error).__name__} {error}; write it again") from error
    shapes = {name: tensor.shape for name, tensor in fields["tensors"].items()}
    if family is not None and {name: info.shape for name, info in family.tensors.items()} != shapes:
        raise PlanError(f"the family {family!r} has other tensors than the plan in {path}")
    return {**fields, "family": family}


def _fields(data: dict[str, Any]) -> dict[str, Any]:
    tensors = {row["name"]: _tensor(row) for row in _list(data["tensors"])}
    name, axis = _list(data["reference"])
    is_entrywise(data["optimizer"])
    _one_of(data["decay_policy"], DECAY_POLICIES)
    _one_of(data["gauge"], GAUGES)
    _one_of(axis, tensors[name].grows)
    for tensor in tensors.values():  # whatever is no number shows when it is used
        setting_of(tensor, tensor.shape, 1.0, data["decay_policy"], data["optimizer"])
    return {
        "scheme": Scheme.from_dict(data["scheme"]),
        "optimizer_name": data["optimizer"],
        "base": _integer(data["base"]),
        "reference": (name, axis),
        "tensors": tensors,
        "obligations": tuple(Obligation(**row) for row in _list(data["obligations"])),
        "decay_policy": data["decay_policy"],
        "gauge": data["gauge"],
    }


def _tensor(row: dict[str, Any]) -> TensorPlan:
    rule: dict[str, Any] = {k: Power(**v) if isinstance(v, dict) else v for k, v in row["rule"].items()}
    fields: dict[str, Any] = {
        k: tuple(_integer(i) for i in _list(row[k])) for k in ("shape", "contracted", "produced", "grows")
    }
    fields |= {k: float(row[k]) for k in ("mean", "std")}
    fields |= {"own": None if row["own"] is None else float(row["own"]), "role": Role(row["role"]), "rule": Rule(**rule)}
    fields["start"], fields["norm_of"] = _start(row.get("start")), str(row.get("norm_of", ""))
    fields["taps"] = tuple(_integer(i) for i in _list(row.get("taps", [])))
    fields |= {k: _integer(row.get(k, 1)) for k in ("gap", "block", "spread")}
    fields["each"] = _integer(row.get("each", int(bool(fields["taps"]))))
    return TensorPlan(**{**row, **fields})


def _start(row: dict[str, Any] | None) -> Initialiser | None:
    if row is None:
        return None
    fields: dict[str, Any] = dict(row)
    if row["form"] is not None:
        form: dict[str, Any] = dict(row["form"])
        form["directions"] = tuple(tuple(map(float, _list(line))) for line in _list(form["directions"]))
        fields["form"] = Form(**form)
    return Initialiser(**fields)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"got {value!r}, expected a list")
    return value


def _integer(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(f"got {value!r}, expected a whole number")
    return value


def _one_of(value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        raise ValueError(f"got {value!r}, expected one of {known}")

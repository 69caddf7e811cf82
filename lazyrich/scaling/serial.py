"""Plans as JSON files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyrich.errors import LazyrichError, PlanError
from lazyrich.family import Family, Role
from lazyrich.files import read_json, write_json
from lazyrich.scaling.obligation import Obligation
from lazyrich.scaling.power import Power
from lazyrich.scaling.rule import Rule
from lazyrich.scaling.scheme import Scheme
from lazyrich.scaling.tensor import TensorPlan

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
        "tensors": [{**asdict(tensor), "role": str(tensor.role)} for tensor in plan.tensors.values()],
        "obligations": [asdict(obligation) for obligation in plan.obligations],
    }


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
    except (KeyError, TypeError, ValueError, LazyrichError) as error:
        raise PlanError(f"{path} is a damaged plan: {type(error).__name__} {error}; write it again") from error
    if family is not None and set(family.tensors) != set(fields["tensors"]):
        raise PlanError(f"the family {family!r} has other tensors than the plan in {path}")
    return {**fields, "family": family}


def _fields(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "scheme": Scheme.from_dict(data["scheme"]),
        "optimizer_name": data["optimizer"],
        "base": data["base"],
        "reference": (data["reference"][0], int(data["reference"][1])),
        "tensors": {row["name"]: _tensor(row) for row in data["tensors"]},
        "obligations": tuple(Obligation(**row) for row in data["obligations"]),
        "decay_policy": data["decay_policy"],
        "gauge": data["gauge"],
    }


def _tensor(row: dict[str, Any]) -> TensorPlan:
    rule: dict[str, Any] = {k: Power(**v) if isinstance(v, dict) else v for k, v in row["rule"].items()}
    fields: dict[str, Any] = {k: tuple(row[k]) for k in ("shape", "contracted", "produced", "grows")}
    fields |= {"role": Role(row["role"]), "rule": Rule(**rule)}
    return TensorPlan(**{**row, **fields})

"""Give it your network: where on the lazy-rich axis it trains, whether it is well-behaved at every width, and the mend.

Rooms load on use, so importing this package is fast.
"""

from __future__ import annotations

import importlib
from typing import Any

# name on the face -> (room, name in the room; empty for the room itself)
_FACE = {
    # what a network is
    "Family": ("lazyrich.family", "Family"),
    "Role": ("lazyrich.family", "Role"),
    "zoo": ("lazyrich.zoo", ""),
    # how it scales
    "standard": ("lazyrich.scaling", "standard"),
    "ntk": ("lazyrich.scaling", "ntk"),
    "mean_field": ("lazyrich.scaling", "mean_field"),
    "mup": ("lazyrich.scaling", "mup"),
    "richness": ("lazyrich.scaling", "richness"),
    "spectral": ("lazyrich.scaling", "spectral"),
    "abc": ("lazyrich.scaling", "abc"),
    "Scheme": ("lazyrich.scaling", "Scheme"),
    "plan": ("lazyrich.scaling", "plan"),
    "Plan": ("lazyrich.scaling", "Plan"),
    "flattens": ("lazyrich.scaling", "flattens"),
    # is it well-behaved
    "check": ("lazyrich.measure", "check"),
    "check_depth": ("lazyrich.measure", "check_depth"),
    "signals": ("lazyrich.measure", "signals"),
    "transfer": ("lazyrich.measure", "transfer"),
    "dial": ("lazyrich.measure", "dial"),
    "decompose": ("lazyrich.measure", "decompose"),
    "train": ("lazyrich.train", ""),
    # infinite width, lazy
    "kernel": ("lazyrich.lazy", "kernel"),
    "init": ("lazyrich.init", ""),
    "KernelRegressor": ("lazyrich.lazy.estimator", "KernelRegressor"),
    "KernelClassifier": ("lazyrich.lazy.estimator", "KernelClassifier"),
    "posterior": ("lazyrich.inference", "posterior"),
    "gradient_flow": ("lazyrich.inference", "gradient_flow"),
    # infinite width, rich
    "rich": ("lazyrich.rich", ""),
    "dmft": ("lazyrich.rich", "dmft"),
    "limit": ("lazyrich.measure", "limit"),
    # this width
    "ntk_of": ("lazyrich.tangent.ntk", "ntk_of"),
    "hierarchy": ("lazyrich.tangent", "hierarchy"),
    "linearize": ("lazyrich.tangent", "linearize"),
    "taylor": ("lazyrich.tangent", "taylor"),
    "tangents": ("lazyrich.measure", "tangents"),
    # the laboratory
    "autoencoder": ("lazyrich.autoencoder", ""),
    # data, and what a person looks at
    "data": ("lazyrich.data", ""),
    "render": ("lazyrich.report", "render"),
    # what it refuses
    "LazyrichError": ("lazyrich.errors", "LazyrichError"),
}

# other rooms, by their own names
_ROOMS = ("family", "gaussian", "inference", "lazy", "measure", "report", "scaling", "sweep", "tangent")

__all__ = list(_FACE)  # type: ignore[misc]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"lazyrich.{name}")
    if name not in _FACE:
        raise AttributeError(f"module 'lazyrich' has no attribute '{name}'; it has {', '.join(sorted(_FACE))}")
    room, attribute = _FACE[name]
    module = importlib.import_module(room)
    return getattr(module, attribute) if attribute else module


def __dir__() -> list[str]:
    return sorted([*globals(), *_FACE])

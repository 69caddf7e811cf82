"""Activations by name: closed forms where there are any, quadrature for the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lazyrich.errors import KernelError
from lazyrich.gaussian import closed
from lazyrich.gaussian.dual import Dual
from lazyrich.gaussian.quadrature import Integrated, estimate
from lazyrich.gaussian.rectifier import Rectifier

CLOSED: dict[str, Callable[..., Dual]] = {
    "identity": lambda: Rectifier("identity", 1.0, 1.0),
    "relu": lambda: Rectifier("relu", 0.0, 1.0),
    "leaky_relu": lambda negative_slope=0.01: Rectifier("leaky_relu", float(negative_slope), 1.0),
    "abs": lambda: Rectifier("abs", -1.0, 1.0),
    "rectifier": lambda a=0.0, b=1.0: Rectifier("rectifier", float(a), float(b)),
    "erf": closed.erf,
    "sin": closed.sine,
    "cos": lambda a=1.0, b=1.0, phase=0.0: closed.sine(a, b, phase + torch.pi / 2, name="cos"),
    "exp": closed.exponential,
    "gaussian": closed.bell,
    "rbf": closed.rbf,
    "sign": closed.sign,
    "heaviside": closed.step,
    "polynomial": closed.polynomial,
    "monomial": closed.monomial,
    "hermite": closed.hermite,
    "rectified_power": closed.rectified_power,
}
# name -> function and where it is not smooth
SMOOTH: dict[str, tuple[Callable[..., Tensor], tuple[float, ...]]] = {
    "tanh": (torch.tanh, ()),
    "sigmoid": (torch.sigmoid, ()),
    "silu": (F.silu, ()),
    "softplus": (F.softplus, ()),
    "elu": (F.elu, (0.0,)),
    "selu": (F.selu, (0.0,)),
    "celu": (F.celu, (0.0,)),
    "mish": (F.mish, ()),
    "hardtanh": (F.hardtanh, (-1.0, 1.0)),
    "relu6": (F.relu6, (0.0, 6.0)),
    "hardswish": (F.hardswish, (-3.0, 3.0)),
    "hardsigmoid": (F.hardsigmoid, (-3.0, 3.0)),
    "logsigmoid": (F.logsigmoid, ()),
    "softsign": (F.softsign, (0.0,)),
    "tanhshrink": (F.tanhshrink, ()),
}
SAME = {"swish": "silu", "linear": "identity", "step": "heaviside", "log_sigmoid": "logsigmoid"}
FUNCTIONS: dict[Any, str] = {
    torch.relu: "relu", F.relu: "relu", torch.abs: "abs", torch.erf: "erf", torch.sin: "sin", torch.cos: "cos",
    torch.exp: "exp", torch.sign: "sign", torch.tanh: "tanh", F.tanh: "tanh", torch.sigmoid: "sigmoid", F.sigmoid: "sigmoid", F.gelu: "gelu",
    **{function: name for name, (function, _) in SMOOTH.items()},
}  # fmt: skip


def dual(activation: str | Callable[[Tensor], Tensor], kinks: tuple[float, ...] = (), **parameters: Any) -> Dual:
    """The dual activation of a function, by name or as it is.

    Args:
        activation: a name, a function tensor -> tensor that acts entry by entry, or an activation module.
        kinks: where a function of your own is not smooth (points where it or its slope jumps).
        parameters: of the named activation, for example ``dual("leaky_relu", negative_slope=0.1)``.

    Raises:
        KernelError: for a name that is not known, or parameters that do not fit.

    Example:
        >>> c, q = torch.tensor(0.5, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
        >>> round(float(dual("relu").kernel(c, q, q)), 6)  # (sqrt(3)/2 + pi/3) / (2 pi)
        0.304499
        >>> round(float(dual(torch.tanh).kernel(c, q, q)), 6)
        0.189337
    """
    if isinstance(activation, str):
        return _named(SAME.get(activation, activation), parameters)
    if isinstance(activation, nn.Module):
        return _module(activation)
    if activation in FUNCTIONS and not parameters:
        return _named(FUNCTIONS[activation], {})
    return _integrated(getattr(activation, "__name__", type(activation).__name__), activation, tuple(kinks))


def _named(name: str, parameters: dict[str, Any]) -> Dual:
    if name == "gelu":
        approximate = parameters.get("approximate", "none")
        if approximate == "none":
            return closed.gelu()
        return _integrated("gelu", lambda x: F.gelu(x, approximate=approximate), ())
    known = {**CLOSED, **SMOOTH}
    if name not in known:
        raise KernelError(
            f"got activation '{name}', expected one of {', '.join(sorted([*known, 'gelu', *SAME]))}, or a function of a tensor"
        )
    try:
        if name in CLOSED:
            return CLOSED[name](**parameters)
        function, kinks = SMOOTH[name]
        return _integrated(name, (lambda x: function(x, **parameters)) if parameters else function, kinks)
    except (TypeError, ValueError) as error:
        raise KernelError(f"activation '{name}' does not take {parameters}: {error}") from error


def _module(module: nn.Module) -> Dual:
    name = type(module).__name__.lower()
    for known in (*CLOSED, *SMOOTH):
        if known.replace("_", "") == name and not list(module.parameters()):
            options = {"negative_slope": module.negative_slope} if isinstance(module, nn.LeakyReLU) else {}
            if known in CLOSED:
                return _named(known, options)
            return _integrated(known, module, SMOOTH[known][1])
    if isinstance(module, nn.GELU):
        return _named("gelu", {"approximate": module.approximate})
    return _integrated(type(module).__name__, module, ())


def _integrated(name: str, function: Callable[[Tensor], Tensor], kinks: tuple[float, ...]) -> Integrated:
    made = Integrated(name, function, kinks)
    with torch.no_grad():
        return replace(made, error=estimate(made))

"""Activations by name: closed forms where there are any, quadrature for the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lazyrich.amount import real
from lazyrich.errors import KernelError
from lazyrich.gaussian import closed
from lazyrich.gaussian.dual import Dual
from lazyrich.gaussian.integrated import Integrated
from lazyrich.gaussian.quadrature import Integrand
from lazyrich.gaussian.rectifier import Rectifier


def dual(activation: str | Callable[[Tensor], Tensor], kinks: tuple[float, ...] = (), **parameters: Any) -> Dual:
    """The dual activation of a function, by name or as it is: E phi(u) phi(v) of correlated Gaussians.

    The name is of Daniely, Frostig & Singer 2016 (arXiv:1602.05897); rectifiers and their powers are the arc-cosine kernels of
    Cho & Saul 2009, the error function's is of Williams 1997.

    Args:
        activation: a name, a function tensor -> tensor that acts entry by entry, or an activation module.
        kinks: where a function of your own is not smooth (points where it or a derivative jumps). Without them quadrature is
            good to a few digits only, and ``error`` says so. One at zero is found without them.
        parameters: of the named activation, for example ``dual("leaky_relu", negative_slope=0.1)``.

    Raises:
        KernelError: for a name that is not known, parameters that do not fit, or a function that does not act entry by entry.

    Example:
        >>> half, one = torch.tensor(0.5), torch.tensor(1.0)
        >>> round(float(dual("relu").kernel(half, one, one)), 6)
        0.304499
        >>> round(float(dual(torch.tanh).kernel(half, one, one)), 6)
        0.186324
    """
    if isinstance(activation, str):
        return _named(activation, parameters)
    if not callable(activation):
        raise KernelError(f"got {activation!r} as an activation, expected a name, a function tensor -> tensor or a module")
    if isinstance(activation, nn.Module):
        return _module(activation)
    if activation in FUNCTIONS and not kinks:
        return _named(FUNCTIONS[activation], parameters)
    if not isinstance(kinks, Collection) or not all(math.isfinite(real(kink)) for kink in kinks):
        raise KernelError(f"got kinks {kinks!r}, expected the places, finite numbers, where the activation bends; pass (0.0,)")
    name = getattr(activation, "__name__", type(activation).__name__)
    return _integrated(name, partial(activation, **parameters) if parameters else activation, tuple(kinks))


def known() -> list[str]:
    """Every name that ``dual`` takes.

    Example:
        >>> "relu" in known(), "swish" in known()
        (True, True)
    """
    return sorted([*NAMED, *SAME])


def _named(asked: str, parameters: dict[str, Any]) -> Dual:
    name = SAME.get(asked, asked)
    if name not in NAMED:
        raise KernelError(f"got activation '{asked}', expected one of {', '.join(known())}, or a function tensor -> tensor")
    try:
        return NAMED[name](**parameters)
    except (TypeError, ValueError) as error:
        raise KernelError(f"got activation '{asked}' with {parameters}, which it does not take: {error}") from error


def _integrated(name: str, function: Callable[[Tensor], Tensor], kinks: tuple[float, ...] = ()) -> Integrated:
    made = Integrated(name, Integrand(function, tuple(float(k) for k in kinks)))
    x = torch.linspace(-2.9, 3.1, 12, dtype=torch.float64).reshape(3, 4)
    with torch.no_grad():
        try:
            y = made.phi(x)
        except Exception as error:
            raise KernelError(f"activation '{name}' fails on a float64 tensor: {error}") from error
        if (
            not isinstance(y, Tensor)
            or y.shape != x.shape
            or not torch.allclose(made.phi(x[1:, :2]), y[1:, :2], equal_nan=True)
        ):
            raise KernelError(f"activation '{name}' does not act entry by entry; only functions of one number have a dual")
    if y.dtype != torch.float64:
        raise KernelError(f"activation '{name}' turns float64 into {y.dtype}; expected a function that keeps the dtype")
    return made if kinks or not _jumps_at_zero(made.phi) else replace(made, phi=replace(made.phi, kinks=(0.0,)))


def _jumps_at_zero(phi: Integrand) -> bool:
    """Whether phi, phi' or phi'' does: gradients of the kernel and of its slope must count what is there."""
    try:
        for f in (phi, phi.derivative, phi.derivative.derivative):
            low, high, *around = f(torch.tensor([-1e-7, 1e-7, -1, -0.1, 0.1, 1], dtype=torch.float64)).tolist()
            if abs(high - low) > 1e-3 * (max(map(abs, around)) + abs(high) + abs(low)):
                return True
    except RuntimeError:  # without that many derivatives
        pass
    return False


def _module(module: nn.Module) -> Dual:
    kind = type(module)
    if kind in MODULES:
        name, options = MODULES[kind]
        return _named(name, {key: getattr(module, attribute) for key, attribute in options.items()})
    if isinstance(module, nn.PReLU):
        if module.weight.numel() > 1:
            raise KernelError("got PReLU with a slope a channel, expected one slope for all; use num_parameters=1")
        return Rectifier("prelu", float(module.weight.detach()), 1.0)
    if list(module.parameters()):
        raise KernelError(f"got module {kind.__name__} with parameters as an activation; expected a function of one number")
    return _integrated(kind.__name__, module)


def _gelu(approximate: str = "none") -> Dual:
    if approximate == "none":
        return closed.gelu()
    if approximate != "tanh":
        raise ValueError(f"approximate is '{approximate}', expected 'none' or 'tanh'")
    return _integrated("gelu_tanh", partial(F.gelu, approximate="tanh"))


def _silu(beta: float = 1.0) -> Dual:
    return _integrated("silu", lambda x: x * torch.sigmoid(beta * x))


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0) -> Dual:
    if not min_val < max_val:
        raise ValueError(f"min_val = {min_val} is not below max_val = {max_val}")
    return _integrated("hardtanh", lambda x: x.clamp(min_val, max_val), (min_val, max_val))


def _shrink(name: str, function: Callable[..., Tensor], lambd: float = 0.5) -> Dual:
    return _integrated(name, lambda x: function(x, lambd), (-lambd, lambd))


def _elu(name: str = "elu", alpha: float = 1.0, scale: float = 1.0) -> Dual:
    return _integrated(name, lambda x: scale * (x.clamp(min=0) + alpha * torch.expm1(x.clamp(max=0))), (0.0,))


def _celu(alpha: float = 1.0) -> Dual:
    if alpha == 0:
        raise ValueError("alpha = 0, expected another number")
    return _integrated("celu", lambda x: F.celu(x, alpha), (0.0,))


def _softplus(beta: float = 1.0) -> Dual:
    # torch's own turns into x beyond a threshold, with a jump of 2e-9
    return _integrated("softplus", lambda x: torch.logaddexp(beta * x, torch.zeros_like(x)) / beta)


def _cosine(a: float = 1.0, b: float = 1.0, phase: float = 0.0) -> Dual:
    return closed.sine(a, b, phase + math.pi / 2, name="cos")


NAMED: dict[str, Callable[..., Dual]] = {
    "identity": lambda: Rectifier("identity", 1.0, 1.0),
    "relu": lambda: Rectifier("relu", 0.0, 1.0),
    "leaky_relu": lambda negative_slope=0.01: Rectifier("leaky_relu", float(negative_slope), 1.0),
    "abs": lambda: Rectifier("abs", -1.0, 1.0),
    "rectifier": lambda a=0.0, b=1.0: Rectifier("rectifier", float(a), float(b)),
    "erf": closed.erf,
    "gelu": _gelu,
    "sin": closed.sine,
    "cos": _cosine,
    "exp": closed.exponential,
    "gaussian": closed.bell,
    "rbf": closed.rbf,
    "sign": closed.sign,
    "heaviside": closed.step,
    "polynomial": closed.polynomial,
    "monomial": closed.monomial,
    "hermite": closed.hermite,
    "rectified_power": closed.rectified_power,
    "tanh": partial(_integrated, "tanh", torch.tanh),
    "sigmoid": partial(_integrated, "sigmoid", torch.sigmoid),
    "silu": _silu,
    "softplus": _softplus,
    "elu": _elu,
    "selu": partial(_elu, "selu", alpha=1.6732632423543772848170429916717, scale=1.0507009873554804934193349852946),
    "celu": _celu,
    "mish": partial(_integrated, "mish", lambda x: x * torch.tanh(torch.logaddexp(x, torch.zeros_like(x)))),
    "hardtanh": _hardtanh,
    "relu6": partial(_integrated, "relu6", lambda x: x.clamp(0, 6), (0.0, 6.0)),
    "hardswish": partial(_integrated, "hardswish", F.hardswish, (-3.0, 3.0)),
    "hardsigmoid": partial(_integrated, "hardsigmoid", F.hardsigmoid, (-3.0, 3.0)),
    "logsigmoid": partial(_integrated, "logsigmoid", F.logsigmoid),
    "softsign": partial(_integrated, "softsign", F.softsign, (0.0,)),
    "tanhshrink": partial(_integrated, "tanhshrink", F.tanhshrink),
    "softshrink": partial(_shrink, "softshrink", F.softshrink),
    "hardshrink": partial(_shrink, "hardshrink", F.hardshrink),
}
SAME = {"swish": "silu", "linear": "identity", "step": "heaviside", "log_sigmoid": "logsigmoid", "hard_tanh": "hardtanh"}
FUNCTIONS: dict[Any, str] = {
    torch.relu: "relu", F.relu: "relu", F.leaky_relu: "leaky_relu", torch.abs: "abs", torch.erf: "erf", torch.sin: "sin",
    torch.cos: "cos", torch.exp: "exp", torch.sign: "sign", torch.tanh: "tanh", F.tanh: "tanh", torch.sigmoid: "sigmoid",
    F.sigmoid: "sigmoid", F.gelu: "gelu", F.silu: "silu", F.softplus: "softplus", F.elu: "elu", F.selu: "selu", F.celu: "celu",
    F.mish: "mish", F.hardtanh: "hardtanh", F.relu6: "relu6", F.hardswish: "hardswish", F.hardsigmoid: "hardsigmoid",
    F.logsigmoid: "logsigmoid", F.softsign: "softsign", F.tanhshrink: "tanhshrink", F.softshrink: "softshrink",
    F.hardshrink: "hardshrink", torch.hardshrink: "hardshrink",
    torch.special.erf: "erf", torch.special.expit: "sigmoid", torch.nn.functional.tanh: "tanh",
}  # fmt: skip
# module -> name, and which attribute holds which parameter
MODULES: dict[type[nn.Module], tuple[str, dict[str, str]]] = {
    nn.Identity: ("identity", {}),
    nn.ReLU: ("relu", {}),
    nn.LeakyReLU: ("leaky_relu", {"negative_slope": "negative_slope"}),
    nn.GELU: ("gelu", {"approximate": "approximate"}),
    nn.Tanh: ("tanh", {}),
    nn.Sigmoid: ("sigmoid", {}),
    nn.SiLU: ("silu", {}),
    nn.Softplus: ("softplus", {"beta": "beta"}),
    nn.ELU: ("elu", {"alpha": "alpha"}),
    nn.SELU: ("selu", {}),
    nn.CELU: ("celu", {"alpha": "alpha"}),
    nn.Mish: ("mish", {}),
    nn.Hardtanh: ("hardtanh", {"min_val": "min_val", "max_val": "max_val"}),
    nn.ReLU6: ("relu6", {}),
    nn.Hardswish: ("hardswish", {}),
    nn.Hardsigmoid: ("hardsigmoid", {}),
    nn.LogSigmoid: ("logsigmoid", {}),
    nn.Softsign: ("softsign", {}),
    nn.Tanhshrink: ("tanhshrink", {}),
    nn.Softshrink: ("softshrink", {"lambd": "lambd"}),
    nn.Hardshrink: ("hardshrink", {"lambd": "lambd"}),
}

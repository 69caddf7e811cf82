"""Rules of initialisation by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lazyrich.amount import counted
from lazyrich.errors import InitError
from lazyrich.gaussian import critical as critical_point
from lazyrich.gaussian import dual
from lazyrich.init.form import Form
from lazyrich.init.initialiser import Initialiser

Activation = str | Callable[[Tensor], Tensor]


def variance(w: float = 2.0, b: float = 0.0) -> Initialiser:
    """Weights of variance w / fan_in and biases of variance b, drawn from the factory's own distribution.

    Raises:
        InitError: for tensors that carry a gradient, which a rule of plain numbers would lose.

    Example:
        >>> rule = variance(w=2.0, b=0.01)
        >>> rule.w, rule.b
        (2.0, 0.01)
    """
    for name, value in (("w", w), ("b", b)):
        if isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled():
            raise InitError(
                f"got {name} = {float(value.detach()):g} as a tensor that carries a gradient, expected a number: the gradient "
                f"would be lost; give float({name}), or learn it by lazyrich.inference.fit_hyperparameters or by "
                "lazyrich.lazy.gaussian_process.NetworkKernel"
            )
    return Initialiser(float(w), float(b))


def lecun(distribution: str = "normal") -> Initialiser:
    """Weights of variance 1 / fan_in, biases zero (LeCun, Bottou, Orr & Mueller 1998).

    Example:
        >>> lecun().weight_std(100, 7)
        0.1
    """
    return Initialiser(1.0, 0.0, form=Form(distribution))


def xavier(gain: float = 1.0, distribution: str = "uniform") -> Initialiser:
    """Weights of variance gain^2 2 / (fan_in + fan_out), biases zero (Glorot & Bengio 2010, equation 12).

    Example:
        >>> xavier().weight_std(60, 140)
        0.1
    """
    return Initialiser(gain**2, 0.0, "fan_avg", Form(distribution))


def he(activation: Activation = "relu", fan: str = "fan_in", distribution: str = "normal") -> Initialiser:
    """What keeps signals of unit variance (fan_in), or their gradients (fan_out), through any activation; biases zero.

    Variance 1 / (fan_in E phi(z)^2), or 1 / (fan_out E phi'(z)^2), z standard normal; for rectifiers 2 / fan in both (He et al.
    2015, arXiv:1502.01852, equations 10 and 14).

    Args:
        activation: a name or a function.
        fan: fan_in, fan_out or fan_avg.
        distribution: normal or uniform.

    Example:
        >>> he().w, round(he("tanh").w, 3), he("relu", "fan_out").w
        (2.0, 2.536, 2.0)
    """
    phi, one = dual(activation), torch.ones((), dtype=torch.float64)
    kept = float(phi.slope_variance(one) if fan == "fan_out" else phi.variance(one))
    if not 0 < kept < float("inf"):  # slopes of jumps are infinite
        what = "E phi'^2" if fan == "fan_out" else "E phi^2"
        raise InitError(
            f"got activation {phi.name}, whose {what} at unit variance is {kept:g}; expected another, or another fan"
        )
    return Initialiser(1 / kept, 0.0, fan, Form(distribution))


def orthogonal(gain: float | None = None) -> Initialiser:
    """Matrices with equal singular values (Saxe, McClelland & Ganguli 2014, arXiv:1312.6120).

    Their size is gain / sqrt(fan_in), which keeps the mean square of what passes through at gain^2, or the plan's own.

    Example:
        >>> orthogonal(gain=2**0.5).form.name
        'orthogonal'
    """
    return Initialiser(None if gain is None else gain**2, None if gain is None else 0.0, form=Form("orthogonal"))


def delta_orthogonal(gain: float = 1.0) -> Initialiser:
    """Convolutions that are orthogonal at the kernel's centre and nothing elsewhere (Xiao et al. 2018, arXiv:1806.05393).

    Example:
        >>> delta_orthogonal().weight_std(9, 4)  # over all nine places of a 3x3 kernel; the centre has variance 1
        0.3333333333333333
    """
    return Initialiser(gain**2, 0.0, form=Form("delta_orthogonal"))


def critical(
    activation: Activation, bias: float | None = None, variance: float | None = None, form: str | None = None
) -> Initialiser:
    """The edge of chaos of an activation: chi_perp(q*) = 1 (``lazyrich.gaussian.critical``; Schoenholz et al. 2017).

    Args:
        activation: a name or a function.
        bias: sigma_b^2; 0 if neither is given.
        variance: q*, instead.
        form: orthogonal, normal or uniform; None keeps the factory's own distribution.

    Example:
        >>> rule = critical("tanh", bias=0.05)
        >>> round(rule.w, 4), rule.b
        (1.761, 0.05)
    """
    point = critical_point(activation, bias, variance)
    return Initialiser(point.weight, point.bias, form=Form(form) if form else None)


def spectral(gain: float = 1.0) -> Initialiser:
    """Gaussian weights of spectral norm gain sqrt(fan_out / fan_in), biases zero (Yang, Simon & Bernstein 2023).

    A Gaussian matrix has the norm std (sqrt fan_in + sqrt fan_out) (arXiv:2310.17813, section 4).

    Example:
        >>> round(spectral().weight_std(100, 100), 6)
        0.05
    """
    return Initialiser(gain**2, 0.0, "spectral", Form("normal"))


def zero() -> Initialiser:
    """Weights and biases of zero: of a readout, or of the last layer of every residual branch.

    Example:
        >>> zero().weight_std(10, 10)
        0.0
    """
    return Initialiser(0.0, 0.0)


def transposed(of: str, correlation: float = 1.0) -> Initialiser:
    """The adjoint of another weight, at the plan's own size and with this correlation; one is the weight itself turned.

    W = std (rho U^T + sqrt(1 - rho^2) Z), U the other weight at unit size, Z the weight's own draw beside it.

    Args:
        of: name of the other tensor, such as "encoder.hidden.0.weight".
        correlation: in [-1, 1].

    Example:
        >>> transposed("encoder.0.weight", 0.5).form.correlation
        0.5
    """
    return Initialiser(form=Form("transposed", of, float(correlation)))


def inverse(of: str) -> Initialiser:
    """Along the pseudo-inverse of another matrix, at the plan's own size.

    Example:
        >>> inverse("encoder.0.weight").form.of
        'encoder.0.weight'
    """
    return Initialiser(form=Form("inverse", of))


def principal(x: Tensor, components: int) -> Initialiser:
    """A first layer that sees the data's first principal directions alone, at the plan's own size.

    Args:
        x: samples, (N, ...), flattened.
        components: directions that are kept.

    Raises:
        InitError: for samples that are none, or not finite, and for more components than the data has directions.

    Example:
        >>> rule = principal(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.5, 0.1]]), 1)
        >>> len(rule.form.directions), len(rule.form.directions[0])
        (1, 2)
    """
    if not isinstance(x, Tensor) or x.is_complex() or x.dim() < 2 or not x.numel() or not bool(torch.isfinite(x).all()):
        said = f"of shape {tuple(x.shape)} and {x.dtype}" if isinstance(x, Tensor) else f"of type {type(x).__name__}"
        raise InitError(
            f"got x {said}, expected samples (N, ...), a tensor of finite real numbers; pass torch.as_tensor(x), and for one "
            "feature x[:, None]"
        )
    components = counted("components", components, 1, InitError)
    flat = x.detach().flatten(1).double()
    if bool((flat == flat[0]).all()):  # of the numbers given: a mean of equal ones may round, and leave a direction
        raise InitError(f"got x of {len(x)} samples that are all the same, expected data that varies; pass others")
    _, values, turn = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    rank = int((values > 1e-9 * values.max()).sum())
    if components > rank:
        raise InitError(f"got components = {components}, expected 1 to {rank}, the directions in which the data varies")
    return Initialiser(form=Form("principal", directions=tuple(map(tuple, turn[:components].tolist()))))


RULES: dict[str, Callable[..., Initialiser]] = {
    f.__name__: f
    for f in (variance, lecun, xavier, he, orthogonal, delta_orthogonal, critical, spectral, zero, transposed, inverse)
}


def parse(text: str) -> float | Initialiser:
    """A rule as the command line writes it: a standard deviation, or a name with arguments.

    Raises:
        InitError: for what is neither.

    Example:
        >>> parse("0.2"), parse("he(tanh)") == he("tanh"), parse("critical(tanh, bias=0.05)").b
        (0.2, True, 0.05)
        >>> parse("transposed(encoder.0.weight, 0.5)").form.of
        'encoder.0.weight'
    """
    try:
        return float(text)
    except ValueError:
        pass
    name, _, rest = text.strip().partition("(")
    if name not in RULES or (rest and not rest.endswith(")")):
        raise InitError(f"got '{text}', expected a standard deviation or one of {', '.join(RULES)}, such as he(tanh)")
    words = [word.strip() for word in rest.rstrip(")").split(",") if word.strip()]
    plain = [_value(word) for word in words if "=" not in word]
    named = {key.strip(): _value(value) for key, value in (word.split("=", 1) for word in words if "=" in word)}
    try:
        return RULES[name](*plain, **named)
    except TypeError as error:
        raise InitError(f"got '{text}', expected {name}{inspect.signature(RULES[name])}") from error


def _value(word: str) -> Any:
    try:
        return float(word)
    except ValueError:
        return word.strip("'\"")

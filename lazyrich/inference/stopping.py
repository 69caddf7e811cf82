"""Early stopping as a filter on the kernel's spectrum, beside the ridge that it resembles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lazyrich.amount import real
from lazyrich.errors import KernelError
from lazyrich.inference.layout import precision, symmetric, tensor
from lazyrich.inference.modes import modes_of
from lazyrich.inference.normalisation import loss_scale
from lazyrich.inference.rate import largest_rate
from lazyrich.inference.response import response
from lazyrich.inference.times import Times, check_rate, times_of


@dataclass(frozen=True)
class EarlyStopping:
    """What stopping at each time lets through.

    Attributes:
        times: (T,), in steps.
        eigenvalues: of the tangent kernel, (N,), descending.
        filter: the part of each mode that is fitted by then, (T, N): 1 - e^{-lr c lambda t}.
        ridge: the ridge that lets through nearly the same, (T,): lambda/(lambda + ridge).
        degrees_of_freedom: sum of ``filter`` over modes, (T,).

    Example:
        >>> import torch
        >>> found = early_stopping(torch.eye(2), [0.0, float("inf")])
        >>> found.filter.tolist(), found.degrees_of_freedom.tolist()
        ([[0.0, 0.0], [1.0, 1.0]], [0.0, 2.0])
    """

    times: Tensor
    eigenvalues: Tensor
    filter: Tensor
    ridge: Tensor
    degrees_of_freedom: Tensor

    def rows(self) -> list[dict[str, Any]]:
        """One record a time."""
        columns = {"time": self.times, "ridge": self.ridge, "degrees_of_freedom": self.degrees_of_freedom}
        return [dict(zip(columns, values, strict=True)) for values in zip(*(c.tolist() for c in columns.values()), strict=True)]

    def __str__(self) -> str:
        lines = [f"early stopping over {len(self.eigenvalues)} modes"]
        for row in self.rows():
            lines.append("  ".join(f"{name} {value:<10.4g}" for name, value in row.items()).rstrip())
        return "\n".join(lines)


def early_stopping(
    theta: Tensor,
    t: Times,
    lr: float = 1.0,
    loss: str = "sum",
    momentum: float = 0.0,
    discrete: bool = False,
    outputs: int = 1,
) -> EarlyStopping:
    """How much of every eigenmode of the kernel gradient descent has fitted when it stops at time t.

    Mode i is fitted to 1 - e^{-lr c lambda_i t}: modes below 1/(lr c t) are cut off, as by kernel ridge regression with
    ridge 1/(lr c t) (Ali, Kolter & Tibshirani 2019, arXiv:1810.10082).

    Args:
        theta: tangent kernel of the training inputs, (N, N).
        t: one time or several, in steps.
        lr: learning rate.
        loss: normalisation of the squared loss, as in ``gradient_flow``.
        momentum: of the heavy ball.
        discrete: whole steps instead of flow; lr must then be below ``max_learning_rate``.
        outputs: K; matters for "mse" and "neural_tangents".

    Raises:
        KernelError: for a theta that is not a symmetric positive semi-definite Gram, and for steps that diverge, which
            filter nothing.

    Example:
        >>> import torch
        >>> print(early_stopping(torch.eye(2), [0.0, 1.0, float("inf")]))
        early stopping over 2 modes
        time 0           ridge inf         degrees_of_freedom 0
        time 1           ridge 1           degrees_of_freedom 1.264
        time inf         ridge 0           degrees_of_freedom 2
    """
    check_rate(lr, momentum)
    times, modes = times_of(t).reshape(-1), modes_of(symmetric(theta, "theta").detach(), "theta", precision(theta))
    scale, values = loss_scale(loss, len(modes.values), outputs), modes.values.flip(0)
    rate, stable = lr * scale, largest_rate(scale * float(values[0]), momentum)
    if discrete and lr >= stable:
        raise KernelError(
            f"got lr {lr:g} with discrete=True, expected one below {stable:.6g}, the largest at which steps on this theta "
            "converge (max_learning_rate); lower lr, or pass discrete=False"
        )
    fitted = values * response(values, times, rate, momentum, discrete)
    return EarlyStopping(times, values, fitted, equivalent_ridge(times, rate / (1 - momentum)), fitted.sum(1))


def equivalent_ridge(times: Tensor, rate: float = 1.0) -> Tensor:
    """The ridge 1/(rate t) whose filter lambda/(lambda + ridge) resembles stopping at t; ``rate`` is lr times the loss's scale.

    Raises:
        KernelError: for times that are negative or NaN, and for a rate that is not positive and finite.

    Example:
        >>> import torch
        >>> equivalent_ridge(torch.tensor([2.0, 4.0]), rate=0.5)
        tensor([1.0000, 0.5000])
    """
    if not 0 < real(rate) < float("inf"):
        raise KernelError(f"got rate {rate!r}, expected a positive and finite one: lr times the loss's scale")
    times_of(times, "times")
    return 1 / (rate * tensor(times, "times"))

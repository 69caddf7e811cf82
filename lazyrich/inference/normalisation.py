"""How the squared loss is normalised, which sets every time scale."""

from __future__ import annotations

from lazyrich.amount import counted
from lazyrich.errors import KernelError

NORMALISATIONS = ("sum", "mean", "mse", "neural_tangents")


def loss_scale(loss: str, samples: int, outputs: int) -> float:
    """The factor c in dLoss/df = c (f - y), by the name of the squared loss.

    ==================  ===========================================  =========
    name                loss, over N samples i and K outputs k       c
    ==================  ===========================================  =========
    "sum"               1/2 sum_ik (f_ik - y_ik)^2                   1
    "mean"              1/(2 N) sum_ik (lazyrich.train's half_mse)   1/N
    "mse"               1/(N K) sum_ik (torch.nn.MSELoss)            2/(N K)
    "neural_tangents"   1/(2 N K) sum_ik (its ``predict``)           1/(N K)
    ==================  ===========================================  =========

    Raises:
        KernelError: for another name, or fewer than one output.

    Example:
        >>> loss_scale("mse", samples=4, outputs=10)
        0.05
    """
    outputs = counted("outputs", outputs, refusal=KernelError)
    scales = {"sum": 1.0, "mean": 1 / samples, "mse": 2 / (samples * outputs), "neural_tangents": 1 / (samples * outputs)}
    if not isinstance(loss, str) or loss not in scales:
        raise KernelError(f"got loss {loss!r}, expected one of {', '.join(NORMALISATIONS)}; function_flow takes any other loss")
    return scales[loss]

"""The truncated hierarchy on a few samples, against the network's own gradient flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lazyrich.errors import TangentError
from lazyrich.inference import gradient_flow
from lazyrich.measure.watch import columns
from lazyrich.tangent.higher import higher_kernels
from lazyrich.tangent.truncated import hierarchy, refuse_still
from lazyrich.train.flow import flow

ORDERS = (2, 3, 4)
TIMES = 25
STEPS = 8  # of the flow from each time to the next: errors that it is the referee for are right to a hundredth of themselves
LEARNT = 0.95  # of the loss that can be learnt by the last time, in the linearised network
LONG = 1e6  # in times of the kernel's mean entry: what is not learnt then is not learnt


class Contrast(nn.Module):
    """A network read out along one direction of its outputs.

    Example:
        >>> Contrast(nn.Identity(), torch.tensor([1.0, -1.0]))(torch.tensor([[3.0, 1.0]]))
        tensor([[2.]])
    """

    direction: Tensor

    def __init__(self, network: nn.Module, direction: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("direction", direction)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1)."""
        return (columns(self.network(x)) @ self.direction).unsqueeze(1)


def few_predictions(
    network: nn.Module, x: Tensor, y: Tensor, labels: Tensor | None, count: int, rates: Mapping[str, float]
) -> dict[str, Any]:
    """Outputs predicted with K_p frozen, p = 2, 3, 4, against the network trained by gradient flow.

    One output: the network's own, two classes against each other, or the main direction of the targets.

    Args:
        network: float64.
        x: samples to choose from, (N, ...).
        y: targets (N, K).
        labels: classes (N,), or None.
        count: samples to use; fewer where there are fewer, half of them of each class, which ``what`` then says.
        rates: learning-rate factor by tensor name.

    Returns:
        Plain numbers: ``times`` (at 1 the linearised network has learnt LEARNT of the loss that it can learn), the network's
        ``losses``, and for every order ``predicted`` losses, ``errors`` ||f_p - f|| / ||f - f_0|| (None where the prediction
        has given up) and the error ``at_half`` of that loss.

    Raises:
        TangentError: for samples of one class, or if no parameter moves the outputs on these few.
    """
    chosen, direction, what = _contrast(y, labels, count)
    model = Contrast(network, direction)
    x, target = x[chosen], y[chosen] @ direction
    named = {f"network.{name}": rate for name, rate in rates.items()}
    kernels = higher_kernels(model, x, order=max(ORDERS), rates=named)
    refuse_still(kernels.k2)
    start = kernels.outputs.reshape(-1, 1)
    end, floor = _end(kernels.k2, target, start)
    times = torch.linspace(0, end, TIMES, dtype=torch.float64)
    found, _ = flow(model, x, target, times, rates=named, substeps=STEPS)
    loss = (found.squeeze(2) - target).square().mean(1) / 2
    learnt = loss - floor <= (loss[0] - floor) / 2
    half = int(learnt.nonzero()[0]) if bool(learnt.any()) else TIMES - 1
    predicted, errors = [], []
    for order in ORDERS:
        guess = hierarchy(model, x, target, order, times=times, kernels=kernels)
        moved = (found - found[0]).flatten(1).norm(dim=1)
        error = (guess.train - found).flatten(1).norm(dim=1) / moved
        errors.append([None if not np.isfinite(e) else e for e in error[1:].tolist()])
        predicted.append([None if not np.isfinite(v) else v for v in guess.losses.tolist()])
    short = f"; fewer than few = {count}, for want of more" if len(x) < count else ""
    return {
        "what": what + short, "samples": len(x), "orders": list(ORDERS), "times": (times / end).tolist(), "losses": loss.tolist(),
        "predicted": predicted, "errors": [[None, *error] for error in errors],
        "half": float(times[half] / end), "at_half": [error[max(half - 1, 0)] for error in errors],
    }  # fmt: skip


def _contrast(y: Tensor, labels: Tensor | None, count: int) -> tuple[Tensor, Tensor, str]:
    """Samples, a unit direction of the outputs, and what it is in words."""
    outputs = y.shape[1]
    if outputs == 1 and labels is None:
        return torch.arange(min(count, len(y))), torch.ones(1, dtype=y.dtype), "the output"
    if labels is None:
        chosen = torch.arange(min(count, len(y)))
        centred = y[chosen] - y[chosen].mean(0)
        direction = torch.linalg.svd(centred, full_matrices=False).Vh[0]
        return chosen, direction, "the main direction of the targets"
    present, counts = labels.unique(return_counts=True)
    if len(present) < 2:
        raise TangentError("all samples are of one class, so there is nothing to tell apart; give samples of two classes")
    pair = present[counts.argsort(descending=True, stable=True)[:2]].sort().values
    each = [(labels == c).nonzero().flatten()[: (count + 1) // 2] for c in pair]
    chosen = torch.cat(each)[: max(count, 2)]
    if outputs == 1:
        return chosen, torch.ones(1, dtype=y.dtype), "the output"
    direction = torch.zeros(outputs, dtype=y.dtype)
    direction[pair[0]], direction[pair[1]] = 0.5**0.5, -(0.5**0.5)
    return chosen, direction, f"class {int(pair[0])} against class {int(pair[1])}"


def _end(theta: Tensor, target: Tensor, start: Tensor) -> tuple[float, float]:
    """When the linearised network has learnt LEARNT of the loss that it can learn, by doubling and halving, and what is left.

    It cannot learn all where the kernel has fewer modes than there are samples.
    """

    def losses(time: float) -> list[float]:
        found = gradient_flow(theta, target, t=[0.0, time], loss="mean", f0_train=start.flatten()).losses
        return found.tolist()

    unit = 1.0 / float(theta.diagonal().mean())
    floor = losses(LONG * unit)[1]

    def left(time: float) -> float:
        first, then = losses(time)
        return (then - floor) / (first - floor) if first > floor else 0.0

    time = unit
    while left(time) > 1 - LEARNT and time < LONG * unit:
        time *= 2
    low, high = 0.0, time
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) > 1 - LEARNT else (low, middle)
    return high, floor

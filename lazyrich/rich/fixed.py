"""Gradient descent with a kernel that does not move: what the lazy limit predicts of the same steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lazyrich.errors import RichError
from lazyrich.rich.objective import Objective


@dataclass(frozen=True)
class FixedKernel:
    """Training with a fixed tangent kernel, from outputs of zero.

    Attributes:
        loss: (T + 1,), of all training samples.
        outputs: (T + 1, P, C) at the training samples; ``test_outputs`` (T + 1, P', C) at the others.
    """

    loss: Tensor
    outputs: Tensor
    test_outputs: Tensor


def descend(kernel: Tensor, objective: Objective, steps: int, lr: float, momentum: float = 0.0) -> FixedKernel:
    """Gradient descent as a fixed kernel sees it: f <- f + lr Theta v with v <- momentum v - dLoss/df.

    It is exact for networks that are linear in their parameters, at any loss and step; for wide networks in the kernel regime
    in the limit (Jacot et al. 2018, arXiv:1806.07572; Lee et al. 2019, arXiv:1902.06720), from centred outputs.

    Args:
        kernel: (R, R) of all rows, trained and watched, the same for each output; or (R C, R C), rows (sample, output).
        objective: loss, targets and batches.
        steps: T.
        lr: in the kernel's units.
        momentum: of heavy-ball gradient descent.

    Raises:
        RichError: for a kernel whose size is not that of the objective's rows.

    Example:
        >>> y = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
        >>> found = descend(torch.eye(2, dtype=torch.float64), Objective("squared", y, 2), steps=2, lr=1.0)
        >>> found.outputs[:, 0, 0].tolist()
        [0.0, 0.5, 0.75]
    """
    rows, (count, outputs) = objective.rows, objective.y.shape
    if kernel.shape not in ((rows, rows), (rows * outputs, rows * outputs)):
        raise RichError(f"got a kernel of shape {tuple(kernel.shape)} for {rows} samples of {outputs} outputs")
    f = torch.zeros(rows, outputs, dtype=kernel.dtype)
    speed, losses, found = torch.zeros_like(f), [], []
    for step in range(steps + 1):
        loss, delta = objective(f, step)
        losses.append(loss)
        found.append(f)
        speed = momentum * speed + delta
        f = f + lr * (kernel @ speed.reshape(len(kernel), -1)).reshape(f.shape)
    path = torch.stack(found)
    return FixedKernel(torch.tensor(losses, dtype=torch.float64), path[:, :count], path[:, count:])

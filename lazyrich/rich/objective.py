"""Losses of the outputs, and the slope that drives the limit's training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, softplus

from lazyrich.errors import RichError

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "squared": lambda f, y: (f - y).square().sum(1).mean() / 2,
    "logistic": lambda f, y: softplus(-y * f).sum(1).mean(),
    "cross_entropy": lambda f, y: cross_entropy(f, y),
}


WHOLE = (torch.int64, torch.int32)


class Objective:
    """A loss, averaged over the samples of a step's batch, and its negative slope Delta = -dLoss/df.

    Args:
        loss: ``squared`` (half the square, summed over outputs), ``logistic`` (y = +-1, summed over outputs) or
            ``cross_entropy`` (y rows of probabilities).
        y: (P, C).
        rows: how many rows the march carries; those beyond P are watched and not learnt.
        batches: indices of the samples of each step; all of them when not given.

    Raises:
        RichError: for a loss that is not known, targets that are not its own, or batches that hold no or unknown samples.
    """

    def __init__(self, loss: str, y: Tensor, rows: int, batches: Sequence[Tensor] | None = None) -> None:
        if loss not in LOSSES:
            same = "; half_mse is called squared here, and mse is twice it divided by the outputs" if "mse" in str(loss) else ""
            raise RichError(f"got loss '{loss}', expected one of {', '.join(LOSSES)}{same}")
        if loss == "logistic" and not (y.abs() == 1).all():
            raise RichError("got y with other numbers than +1 and -1 for the logistic loss")
        if loss == "cross_entropy" and not (y.min() >= 0 and torch.allclose(y.sum(1), torch.ones_like(y[:, 0]))):
            raise RichError("got y whose rows are no probabilities for the cross entropy; one-hot rows are")
        for i, batch in enumerate(batches or ()):
            if not isinstance(batch, Tensor) or batch.ndim != 1 or batch.dtype not in WHOLE:
                got = f"{batch.dtype} of shape {tuple(batch.shape)}" if isinstance(batch, Tensor) else type(batch).__name__
                raise RichError(f"got batches[{i}] {got}, expected indices of samples, a tensor such as torch.tensor([0, 1])")
            if not len(batch) or not 0 <= int(batch.min()) <= int(batch.max()) < len(y):
                raise RichError(f"batches[{i}] is empty or has indices outside 0 to {len(y) - 1}")
        self.loss, self.y, self.rows, self.batches = LOSSES[loss], y, rows, batches

    def __call__(self, outputs: Tensor, step: int) -> tuple[float, Tensor]:
        """The loss of all samples, and Delta (rows, C) of the batch of a step."""
        f = outputs[: len(self.y)].detach().requires_grad_()
        batch = self._batch(step)
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self.loss(f[batch], self.y[batch]), f)
        delta = outputs.new_zeros(self.rows, self.y.shape[1])
        delta[: len(self.y)] = -slope
        return float(self.loss(f.detach(), self.y)), delta

    def _batch(self, step: int) -> Tensor:
        if self.batches is None or step == len(self.batches):  # after the last step nothing is learnt any more
            return torch.arange(len(self.y), device=self.y.device)
        return self.batches[step].to(self.y.device)

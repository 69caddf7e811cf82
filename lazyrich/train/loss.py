"""Losses by name, averaged over the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from lazyrich.errors import TrainError
from lazyrich.reference import resolve

Loss = Callable[[Any, Tensor], Tensor]
"""``loss(output, targets)``: what the network returned for a batch, and its targets (N, ...), to one number, a mean."""


def half_mse(output: Tensor, target: Tensor) -> Tensor:
    """(1/2) mean over samples of the squared distance: 1/(2N) sum_i ||f_i - y_i||^2."""
    return 0.5 * (output - _shaped(target, output)).square().reshape(len(output), -1).sum(1).mean()


def mse(output: Tensor, target: Tensor) -> Tensor:
    """Mean over samples and outputs of the squared error, as ``torch.nn.MSELoss``."""
    return F.mse_loss(output, _shaped(target, output).to(output.dtype))


def _shaped(target: Tensor, output: Tensor) -> Tensor:
    """The target in the output's shape: (N,) and (N, 1) are one, rows are images one after the other, else it is a mistake."""
    if target.shape == output.shape[:-1] and output.shape[-1] > 1 and not target.is_floating_point():
        raise TrainError(
            f"got labels for a squared error, expected numbers in the shape of the outputs {tuple(output.shape)}; make them "
            f"one-hot rows: (x, lazyrich.inference.one_hot_targets(y, {output.shape[-1]}).float()), or take loss='cross_entropy'"
        )
    alike = {target.shape, output.shape} == {output.shape[:1], (*output.shape[:1], 1)}
    rows = (
        target.dim() == 2 and output.dim() > 2 and target.shape == output.flatten(1).shape
    )  # an autoencoder that returns images
    if target.shape != output.shape and not alike and not rows:
        raise TrainError(
            f"got targets {tuple(target.shape)} for outputs {tuple(output.shape)}, expected equal shapes; (N,) and (N, 1) are "
            "equal, and rows (N, D) are outputs of as many entries, reshape any others"
        )
    return target.reshape(output.shape)


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy: classes along axis 1 as in torch, or along the last where the targets have all other axes.

    Raises:
        TrainError: for a single output, of which every label but 0 is out of bounds.

    Example:
        >>> import torch
        >>> logits, tokens = torch.zeros(2, 5, 7), torch.zeros(2, 5, dtype=torch.long)  # (batch, position, vocabulary)
        >>> round(float(cross_entropy(logits, tokens)), 4) == round(float(torch.tensor(7.0).log()), 4)
        True
    """
    axis = _class_axis(output, target)
    if output.dim() > axis and output.shape[axis] == 1 and not target.is_floating_point():
        raise TrainError(
            "got one output for labels under cross entropy, expected as many outputs as classes: give the network two for two "
            "classes, or loss='mse' with targets +-1: (x, 2.0 * y - 1)"
        )
    return F.cross_entropy(output if axis == 1 else output.movedim(axis, 1), target)


def refuse_labels(output: Any, target: Tensor, labels: Tensor) -> None:
    """Refuse labels that are none of the outputs, which ``cross_entropy`` meets only once one is in a batch.

    Raises:
        TrainError: for a label that is as large as the number of outputs, or larger.
    """
    if not isinstance(output, Tensor) or output.dim() < 2 or target.is_floating_point():
        return
    classes, highest = output.shape[_class_axis(output, target)], int(labels.max())
    if 1 < classes <= highest:  # one output is refused by the loss itself
        raise TrainError(
            f"got label {highest} for {classes} outputs, expected labels from 0 to {classes - 1}; give the network "
            f"{highest + 1} outputs"
        )


def wrong(output: Tensor, target: Tensor) -> float:
    """The part of wrong classes, along the axis that ``cross_entropy`` takes.

    Example:
        >>> import torch
        >>> wrong(torch.eye(3), torch.tensor([0, 1, 1])) == 1 / 3
        True
    """
    return float((output.argmax(_class_axis(output, target)) != target.to(output.device)).double().mean())


def _class_axis(output: Tensor, target: Tensor) -> int:
    last = output.dim() > 2 and output.shape[:-1] == target.shape and target.shape[1:] != output.shape[2:]
    return output.dim() - 1 if last else 1


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": mse, "half_mse": half_mse}


def loss_for(loss: str | Loss | None, target: Tensor) -> tuple[str, Loss]:
    """A loss and its name: by name, by reference (``path/to/file.py:function``), as given, or chosen from the targets.

    Labels get cross entropy, numbers mse; ``squared`` is half_mse.

    Raises:
        TrainError: for a name that is not known, and for a class.
        UsageError: for a reference that leads nowhere.

    Example:
        >>> import torch
        >>> loss_for(None, torch.tensor([0, 1]))[0], loss_for("torch.nn.functional:smooth_l1_loss", torch.ones(2))[0]
        ('cross_entropy', 'smooth_l1_loss')
    """
    loss = "half_mse" if loss == "squared" else loss  # its name in the limits of rich networks
    if loss is None:
        loss = "mse" if target.is_floating_point() else "cross_entropy"
    found = resolve(loss) if isinstance(loss, str) and ":" in loss else loss
    if isinstance(found, type):  # its call takes options and returns a module
        raise TrainError(f"got the class {found.__name__} as loss, expected a function(output, target); give an object of it")
    if callable(found):
        return getattr(found, "__name__", "loss"), found
    if found not in LOSSES:
        raise TrainError(
            f"got loss '{found}', expected one of {', '.join(LOSSES)}, path/to/file.py:function, or a function(output, target)"
        )
    return found, LOSSES[found]

"""A small deterministic training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazyrich.amount import counted
from lazyrich.errors import RAISED, TrainError
from lazyrich.family.family import seeded
from lazyrich.train.loss import Loss, cross_entropy, refuse_labels
from lazyrich.train.probe import Probe, Run
from lazyrich.train.refusal import refusal, take_step

Batches = Callable[[int], tuple[Tensor, Tensor]]


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    loss: Loss,
    steps: int,
    *,
    probes: Sequence[Probe] = (),
    seed: int = 0,
) -> Run:
    """Train for some steps; the same call twice gives the same numbers.

    Args:
        model: trained in place, in the mode (train or eval) that it is in.
        optimizer: any torch optimizer over the model's parameters.
        batches: ``batches(step) -> (x, y)``.
        loss: ``loss(model(x), y) -> scalar``.
        steps: number of optimizer steps.
        probes: what looks on.
        seed: of the random layers (dropout) during training.

    Returns:
        The run: losses before each step, and ``diverged`` once a loss is not finite (training stops there).

    Raises:
        TrainError: if the model does not take the data, with the reason in one line, the steps are none, or a rate is beyond what
            the tensors' numbers hold.

    Example:
        >>> import lazyrich as lzr
        >>> data, model = lzr.data.load("digits"), lzr.zoo.mlp(32)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> run = train(model, sgd, lambda step: data.batch(64, step), nn.functional.cross_entropy, steps=20)
        >>> run.losses[-1] < run.losses[0]
        True
    """
    if not hasattr(optimizer, "step") or not hasattr(optimizer, "zero_grad"):
        raise TrainError(
            f"got optimizer {type(optimizer).__name__}, expected one of torch's, such as plan.optimizer(model, lr=0.1)"
        )
    if not callable(batches) or not callable(loss):
        raise TrainError(
            f"got batches {type(batches).__name__} and loss {type(loss).__name__}, expected functions: batches(step) -> (x, y) and "
            "loss(output, y)"
        )
    run, steps = Run(model), counted("steps", steps, 0, TrainError)
    for probe in probes:
        probe.begin(run)
    for step in range(steps):
        with seeded(seed * 1_000_003 + step):
            value = _step(model, optimizer, *pair_of(batches(step)), loss)
        run.losses.append(value)
        if not math.isfinite(value):
            run.diverged = True
            break
        run.step = step + 1
        for probe in probes:
            probe.after(run)
    return run


def pair_of(batch: Any) -> tuple[Any, Any]:
    """A batch's inputs and targets.

    Raises:
        TrainError: for what is no pair.

    Example:
        >>> pair_of([1, 2])
        (1, 2)
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        got = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise TrainError(f"batches(step) gave {got}, expected a pair (x, y)")
    return batch[0], batch[1]


def rehearse(model: nn.Module, x: Tensor, y: Tensor, loss: Loss, labels: Tensor | None = None) -> None:
    """One batch's loss and gradients, so that what does not fit is said before any training.

    Args:
        model: one to be thrown away.
        x: inputs of a batch.
        y: its targets.
        loss: ``loss(model(x), y) -> scalar``.
        labels: all that are to come; ``y`` otherwise.

    Raises:
        TrainError: for what no step could be taken with, and for labels that are none of the outputs under ``cross_entropy``.

    Example:
        >>> rehearse(nn.Linear(2, 3), torch.ones(4, 2), torch.arange(4), cross_entropy)
        Traceback (most recent call last):
        ...
        lazyrich.errors.TrainError: got label 3 for 3 outputs, expected labels from 0 to 2; give the network 4 outputs
    """
    if loss is cross_entropy:
        refuse_labels(_output(model, x), y, y if labels is None else labels)
    _value(model, x, y, loss).backward()


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, loss: Loss) -> float:
    optimizer.zero_grad()
    value = _value(model, x, y, loss)
    value.backward()
    take_step(optimizer)
    return float(value.detach())


def _output(model: nn.Module, x: Tensor) -> Any:
    try:
        return model(x)
    except RAISED as error:
        raise refusal("the model does not take the data", error, inputs=x) from error


def value_at(model: nn.Module, output: Any, y: Tensor, loss: Loss) -> Tensor:
    """The loss of an output, as one number that training can follow down.

    Raises:
        TrainError: for a loss that does not take the output, is no single number, or has no gradient.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> value_at(net, net(torch.ones(3, 2)), torch.ones(3), lambda output, y: output.sum().detach())
        Traceback (most recent call last):
        ...
        lazyrich.errors.TrainError: the loss depends on nothing that trains in Linear; ...
    """
    try:
        value = loss(output, y)
    except RAISED as error:
        raise refusal("the loss does not take the model's output", error, output=output, targets=y) from error
    if not isinstance(value, Tensor) or value.dim() != 0:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{type(value).__name__}, no tensor"
        raise TrainError(f"the loss must be one number, got {got}; average it over the batch")
    if not value.requires_grad:
        raise TrainError(
            f"the loss depends on nothing that trains in {type(model).__name__}; has it parameters, and requires_grad? Does its "
            "forward, or the loss, detach or run below no_grad()?"
        )
    return value


def _value(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    return value_at(model, _output(model, x), y, loss)

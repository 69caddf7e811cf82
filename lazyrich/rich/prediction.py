"""A map of limits: which of them a plan trains in, and what that one predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lazyrich.data import load
from lazyrich.errors import RichError
from lazyrich.lazy import kernel
from lazyrich.rich.chain import refuse_draws
from lazyrich.rich.dynamics import Dynamics
from lazyrich.rich.fixed import FixedKernel, descend
from lazyrich.rich.objective import Objective
from lazyrich.rich.planned import dmft, targets_of, traced
from lazyrich.scaling import Plan, as_plan
from lazyrich.scaling.optimizer import GRADIENT, momentum_of


@dataclass(frozen=True)
class Prediction:
    """Training at infinite width, from the limit that the scheme has.

    Attributes:
        regime: ``kernel`` or ``feature learning``.
        why: the dichotomy's reason, with the scheme's richness.
        training: ``FixedKernel`` or ``Dynamics``; both have loss, outputs and test_outputs.
    """

    regime: str
    why: str
    training: Dynamics | FixedKernel

    def __str__(self) -> str:
        first, last = float(self.training.loss[0]), float(self.training.loss[-1])
        steps = len(self.training.loss) - 1
        return f"{self.regime}: {self.why}\nat infinite width {steps} steps take the loss from {first:.4g} to {last:.4g}"


def predict(
    plan: Plan,
    data: Any,
    steps: int,
    *,
    lr: float,
    loss: str = "squared",
    x_test: Tensor | None = None,
    **how: Any,
) -> Prediction:
    """Training at infinite width, by the tangent kernel or by the rich limit: the scheme decides which.

    By the Dynamical Dichotomy (Yang & Hu 2021, arXiv:2011.14522, Theorems 3.6 and 3.8 with Corollary 3.9) a scheme that is stable
    and not trivial either learns features or follows its kernel, and never both.

    Args:
        plan: for SGD; any network that ``lzr.kernel`` takes in the kernel regime, a fully connected one where features move.
        data: what ``lzr.data.load`` takes.
        steps: of gradient descent on all samples.
        lr: of the base-width network.
        loss: ``squared``, ``logistic`` or ``cross_entropy``, as in ``solve``.
        x_test: more inputs, (P', d), watched and not learnt.
        how: what ``solve`` takes, used where features move.

    Raises:
        RichError: for a scheme that is trivial or unstable, with the reason; networks and optimizers that are not covered;
            dropout in training mode.
        KernelError: for a network without a tangent kernel at infinite width, as one with a bottleneck of fixed width.

    Example:
        >>> import lazyrich as lzr
        >>> family = lzr.Family(lambda n: lzr.zoo.MLP(n, inputs=5, outputs=1), base=64)
        >>> x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
        >>> lazy = predict(lzr.plan(family, lzr.ntk(), "sgd"), (x, x[:, :1]), steps=3, lr=0.1)
        >>> lazy.regime, type(lazy.training).__name__
        ('kernel', 'FixedKernel')
    """
    if as_plan(plan).optimizer_name not in GRADIENT:
        raise RichError(f"the plan is for {plan.optimizer_name}; limits are predicted of gradient descent, plan(..., 'sgd')")
    verdict = plan.scheme.classify("sgd")
    if verdict.regime == "kernel":
        training: Dynamics | FixedKernel = _by_kernel(plan, data, steps, lr, loss, x_test)
    else:  # which refuses what has no limit
        training = dmft(plan, data, steps, lr=lr, loss=loss, x_test=x_test, **how)
    return Prediction(verdict.regime, verdict.why, training)


def _by_kernel(plan: Plan, data: Any, steps: int, lr: float, loss: str, x_test: Tensor | None) -> FixedKernel:
    known = load(data)
    for node in traced(plan, known.x):  # the kernel itself is that of evaluation
        refuse_draws(node)
    x = known.x.double()
    rows = x if x_test is None else torch.cat([x, x_test.double()])
    with torch.no_grad():
        outputs = plan.build(plan.base).double()(x[:1]).shape[-1]
    objective = Objective(loss, targets_of(known, outputs), len(rows))
    return descend(kernel(plan).ntk(rows), objective, steps, lr, momentum_of(plan.optimizer_name))

"""A network moving along gradients: the time derivatives of all that it computes, operation by operation, order by order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from lazyrich.tangent.function import NetworkFunction, differentiable
from lazyrich.tangent.motion.graph import known_operations
from lazyrich.tangent.motion.operation import Curve, Operation, Place

Jets = dict[Place, list[Tensor | None]]
SAVED = "a forward pass whose nodes are read has no saved tensor hooks"  # they may keep other values than it computed


@dataclass(frozen=True)
class Pass:
    """A forward pass whose operations are all known.

    Attributes:
        operations: each behind what it reads.
        out: the outputs (N, K), in the graph.
        names: of the parameters.
    """

    operations: Sequence[Operation]
    out: Tensor
    names: Sequence[str]

    def still(self) -> tuple[Jets, Jets]:
        """Room for the derivatives of parameters and values, from order 1 on, and for those of their gradients."""
        for operation in self.operations:
            if isinstance(operation, Curve):
                operation.forget()
        places = (*self.names, *(operation.place for operation in self.operations))
        return {at: [None] for at in places}, {at: [] for at in places}

    def forward(self, k: int, jets: Jets) -> None:
        """The kth derivative of all values; those of the parameters are there."""
        for operation in self.operations:
            jets[operation.place].append(operation.forward(k, jets))

    def backward(self, k: int, deltas: Jets, jets: Jets, seed: Tensor | None) -> None:
        """The kth derivative of the gradients of all values and parameters, from that of the outputs' gradient."""
        for delta in deltas.values():
            delta.append(None)
        deltas[self.operations[-1].place][k] = seed
        for operation in reversed(self.operations):
            for at, part in operation.backward(k, deltas[operation.place], jets):
                before = deltas[at][k]
                deltas[at][k] = part if before is None else before + part


@dataclass(frozen=True)
class Motion:
    """Derivatives in time of a forward pass and of its parameters.

    Attributes:
        passed: the pass.
        jets: of the parameters by name and of values by their places: derivatives of order 1, 2, .. at these places of the list,
            None where one is zero. Values themselves are in the operations.
        order: the highest.
    """

    passed: Pass
    jets: Jets
    order: int

    @property
    def outputs(self) -> Tensor:
        """The highest derivative of the outputs, (N, K), in memory of its own: a last bias alone moves all rows as one."""
        found = self.jets[self.passed.operations[-1].place][self.order]
        return torch.zeros_like(self.passed.out) if found is None else found.contiguous()


def known_pass(function: NetworkFunction, x: Tensor, rates: Mapping[str, float]) -> Pass | None:
    """A forward pass, in which parameters of no rate are constant; None where it has operations that are not known here.

    Example:
        >>> known_pass(NetworkFunction(torch.nn.Linear(3, 2)), torch.ones(5, 3), {"weight": 1.0}).names
        ['weight']
    """
    live = {name: p.detach().requires_grad_() for name, p in function.parameters.items() if rates.get(name)}
    with torch.enable_grad(), differentiable(function.model), disable_saved_tensors_hooks(SAVED), _Watch() as watch:
        out = function(live, x)
    operations = None if watch.hooked else known_operations(out, {id(p): name for name, p in live.items()})
    return None if operations is None else Pass(operations, out, list(live))


def motion(
    function: NetworkFunction, x: Tensor, r: Tensor, order: int, rates: Mapping[str, float], straight: bool = False
) -> Motion | None:
    """A network's motion under theta' = rate sum_b r_b grad f_b, r held fixed.

    Each order is a backward pass, which takes the derivative of every gradient one order further and so the parameters', and a
    forward pass, which does so with what every operation gives: products by Leibniz, curves by the chain rule. Nested
    derivatives of the network as a whole repeat all lower orders for the next one.

    Args:
        function: the network.
        x: samples (N, ...).
        r: weights of the outputs, (N, K).
        order: of the highest derivative, 1 or more.
        rates: learning-rate factor by tensor name; what has none, or 0, is constant.
        straight: keep the first gradient as theta', so that theta'' = 0.

    Returns:
        The motion; None where the network has operations whose derivatives are not known here.

    Example:
        >>> net, x, r = torch.nn.Linear(3, 2), torch.ones(5, 3), torch.ones(5, 2)
        >>> motion(NetworkFunction(net), x, r, 1, {"weight": 1.0, "bias": 1.0}).outputs[0]  # K2 r
        tensor([20., 20.])
    """
    if (passed := known_pass(function, x, rates)) is None:
        return None
    with torch.no_grad(), as_computed(passed.out), differentiable(function.model):
        jets, deltas = passed.still()
        for k in range(order):
            still = straight and k > 0
            if not still:
                passed.backward(k, deltas, jets, r if k == 0 else None)
            for name in passed.names:
                jets[name].append(None if still else rated(deltas[name][k], rates[name]))
            passed.forward(k + 1, jets)
    return Motion(passed, jets, order)


def rated(gradient: Tensor | None, rate: float) -> Tensor | None:
    """A gradient times its rate.

    Example:
        >>> rated(torch.ones(2), 0.5), rated(None, 0.5)
        (tensor([0.5000, 0.5000]), None)
    """
    return gradient if gradient is None or rate == 1 else rate * gradient


def as_computed(out: Tensor) -> torch.autocast:
    """Within it nothing is cast, as what an operation computed has one precision: autocast may be off in the network alone."""
    return torch.autocast(out.device.type, enabled=False)


class _Watch(TorchFunctionMode):
    """Whether a hook is put on a tensor or on its node, which may change its gradient: nothing tells of it in the graph."""

    hooked = False
    hooks = (Tensor.register_hook, Tensor.register_post_accumulate_grad_hook, vars(torch._C.TensorBase)["grad_fn"].__get__)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.hooked = self.hooked or func in self.hooks
        return func(*args, **(kwargs or {}))

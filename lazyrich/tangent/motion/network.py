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
from lazyrich.tangent.motion.operation import Operation, Place

Jets = dict[Place, list[Tensor | None]]
SAVED = "a forward pass whose nodes are read has no saved tensor hooks"  # they may keep other values than it computed


@dataclass(frozen=True)
class Motion:
    """Derivatives in time of a forward pass and of its parameters.

    Attributes:
        operations: of the pass, each behind what it reads.
        out: the outputs (N, K), in the graph.
        jets: of the parameters by name and of what operations give by their places: derivatives of order 1, 2, .. at these places,
            None where one is zero. Values, at place 0, are in the operations.
        order: the highest.
    """

    operations: Sequence[Operation]
    out: Tensor
    jets: Mapping[Place, Sequence[Tensor | None]]
    order: int

    @property
    def outputs(self) -> Tensor:
        """The highest derivative of the outputs, (N, K)."""
        found = self.jets[self.operations[-1].place][self.order]
        return (
            torch.zeros_like(self.out) if found is None else found.contiguous()
        )  # a last bias moves all rows as one in memory


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
    live = {name: p.detach().requires_grad_() for name, p in function.parameters.items() if rates.get(name)}
    with torch.enable_grad(), differentiable(function.model), disable_saved_tensors_hooks(SAVED), _Watch() as watch:
        out = function(live, x)
    operations = None if watch.hooked else known_operations(out, {id(p): name for name, p in live.items()})
    if operations is None:
        return None
    jets: Jets = {at: [None] for at in (*live, *(operation.place for operation in operations))}
    deltas: Jets = {at: [] for at in jets}
    with torch.no_grad(), as_computed(out), differentiable(function.model):
        for k in range(order):
            still = straight and k > 0
            if not still:
                _backward(operations, k, deltas, jets, r if k == 0 else None)
            for name in live:
                gradient = None if still else deltas[name][k]
                jets[name].append(gradient if gradient is None or rates[name] == 1 else rates[name] * gradient)
            for operation in operations:
                jets[operation.place].append(operation.forward(k + 1, jets))
    return Motion(operations, out, jets, order)


def as_computed(out: Tensor) -> torch.autocast:
    """Within it nothing is cast, as what an operation computed has one precision: autocast may be off in the network alone."""
    return torch.autocast(out.device.type, enabled=False)


def _backward(operations: Sequence[Operation], k: int, deltas: Jets, jets: Jets, seed: Tensor | None) -> None:
    """The kth derivative of the gradient of what every operation gives, and of every parameter."""
    for delta in deltas.values():
        delta.append(None)
    deltas[operations[-1].place][k] = seed
    for operation in reversed(operations):
        for at, part in operation.backward(k, deltas[operation.place], jets):
            before = deltas[at][k]
            deltas[at][k] = part if before is None else before + part


class _Watch(TorchFunctionMode):
    """Whether a hook is put on a tensor or on its node, which may change its gradient: nothing tells of it in the graph."""

    hooked = False
    hooks = (Tensor.register_hook, Tensor.register_post_accumulate_grad_hook, vars(torch._C.TensorBase)["grad_fn"].__get__)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.hooked = self.hooked or func in self.hooks
        return func(*args, **(kwargs or {}))

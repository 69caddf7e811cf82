"""Looking inside a network: the units that hold its weights, and what goes in and out of each on a fixed batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from lazyrich.errors import RAISED, TrainError
from lazyrich.family.family import seeded
from lazyrich.functional import functional_call
from lazyrich.train.refusal import refusal

ATOMIC = (nn.MultiheadAttention, nn.RNNBase)


@dataclass
class Call:
    """One call of a unit: what went in and the first floating tensor that came out."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor


State = dict[str, Tensor]


def units(model: nn.Module) -> dict[str, nn.Module]:
    """The smallest modules that hold weights, by path: layers (with their parametrizations), norms, whole attentions and LSTMs.

    Example:
        >>> list(units(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))))
        ['0', '2']
    """
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules(remove_duplicate=True):
        inside = any(path.startswith(other + ".") for other in found)
        whole = isinstance(module, ATOMIC) or is_parametrized(module)
        holds = next(module.parameters(recurse=whole), None) is not None
        mixed = not whole and any(True for child in module.children() for _ in child.parameters())
        if holds and not inside and not mixed:
            found[path] = module
    return found


def loose_tensors(model: nn.Module) -> list[str]:
    """Names of parameters that belong to no unit, because their module holds other modules as well."""
    owned = {id(p) for module in units(model).values() for p in module.parameters()}
    return [name for name, p in model.named_parameters() if id(p) not in owned]


def state_of(model: nn.Module) -> State:
    """A copy of every parameter and buffer."""
    return {k: v.detach().clone() for k, v in [*model.named_parameters(), *model.named_buffers()]}


def capture(model: nn.Module, state: State, x: Any, grad: bool = False) -> tuple[Any, dict[str, Call]]:
    """Run the network with a given state and record every unit's call.

    The model is not changed: it runs on copies of its buffers, its random layers draw from one seed, and the hooks
    are taken off again. A unit that is called again is recorded as ``path#2``.
    """
    calls: dict[str, Call] = {}
    pending: dict[int, list[tuple[Any, Any]]] = {}
    handles = []

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        pending.setdefault(id(module), []).append((args, kwargs))

    def after(path: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            inputs = pending[id(module)].pop()
            times = 1 + sum(key == path or key.startswith(path + "#") for key in calls)
            key = path if times == 1 else f"{path}#{times}"
            args, kwargs = inputs if grad else still(inputs)
            calls[key] = Call(args, kwargs, first_float(output))

        return hook

    for path, module in units(model).items():
        handles.append(module.register_forward_pre_hook(before, prepend=True, with_kwargs=True))
        handles.append(module.register_forward_hook(after(path)))
    try:
        with seeded(0), torch.set_grad_enabled(grad):
            output = functional_call(model, fresh_buffers(model, state), (x,))
    except RAISED as error:
        raise refusal("the model does not take the data", error, inputs=x) from error
    finally:
        for handle in handles:
            handle.remove()
    return output, calls


def fresh_buffers(model: nn.Module, state: Mapping[str, Tensor]) -> State:
    """The state with its buffers copied, since a forward pass may write into them."""
    buffers = {name for name, _ in model.named_buffers()}
    return {k: (v.clone() if k in buffers else v) for k, v in state.items()}


def first_float(output: Any) -> Tensor:
    """The first floating tensor in whatever a module returned."""
    for leaf in tree_flatten(output)[0]:
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return leaf
    raise TrainError(f"a layer or the network returned {type(output).__name__} without a floating tensor, expected one")


def columns(output: Tensor) -> Tensor:
    """Outputs (N, ...) as (N, K); a network that returns (N,) has one.

    Raises:
        TrainError: for what is no tensor.

    Example:
        >>> columns(torch.ones(3)).shape, columns(torch.ones(3, 2, 2)).shape
        (torch.Size([3, 1]), torch.Size([3, 4]))
    """
    if not isinstance(output, Tensor):
        raise TrainError(
            f"the network returns {type(output).__name__}, expected one tensor (N, ...); let the factory wrap it in a module that "
            "returns the output that you mean"
        )
    return output.flatten(1) if output.dim() > 1 else output.reshape(-1, 1)


def moved_inputs(old: Any, new: Any, cast: torch.dtype | None = None) -> tuple[Any, Any]:
    """Two recorded inputs with their floating tensors cast alike."""

    def convert(leaf: Any) -> Any:
        return leaf.to(cast) if cast and isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    return tuple(tree_unflatten([convert(leaf) for leaf in flat], spec) for flat, spec in map(tree_flatten, (old, new)))  # type: ignore[return-value]


def still(tree: Any) -> Any:
    """A nest of values with every tensor cut from its graph."""
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, tree)

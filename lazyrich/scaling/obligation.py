"""What no initialisation or learning rate can do: forward multipliers, listed always and met by reversible hooks on request.

Hooks scale what goes into a module (its weight's product, not its bias); an attention's logits are scaled around its forward, where
compilers follow. All of them are plain picklable objects, leave ``state_dict`` alone, and are copied by ``deepcopy``.
"""

from __future__ import annotations

import fnmatch
import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lazyrich.errors import PlanError
from lazyrich.scaling.attention import head_size
from lazyrich.scaling.naming import bare, parameters, submodule
from lazyrich.scaling.recompute import checkpointed

F = nn.functional
BY_HAND = "scale them there, no hook can"


@dataclass(frozen=True)
class Obligation:
    """A forward multiplier that the plan needs and cannot move into initialisation and learning rate.

    Its value on a model is constant * (size / base_size)^exponent, where size is read off the model: an axis of a tensor
    (``tied readout``), the head size (``attention``), or the number of branches (``residual branch``).
    """

    kind: str
    where: str
    why: str
    exponent: float
    base_size: float
    constant: float = 1.0
    tensor: str = ""
    axis: int = 0

    def factor(self, model: nn.Module) -> float:
        """The multiplier on a model of any width; 1 where only a person can tell."""
        if self.unclear:
            return 1.0
        return self.constant * (self._size(model) / self.base_size) ** self.exponent

    @property
    def unclear(self) -> bool:
        """Whether nothing could be read that a hook would need: a person has to look."""
        return self.kind in ("attention", "tied product") and self.exponent == 0

    @property
    def hooked(self) -> bool:
        """Whether a hook meets it; else it is met in the network's own code."""
        return not self.unclear and not self.why.endswith(BY_HAND)

    def _size(self, model: nn.Module) -> float:
        if self.kind == "tied readout":
            return parameters(model, {self.tensor})[self.tensor].shape[self.axis]
        if self.kind == "attention":
            return _heads(model, self.where)
        return len(branches(model, self.where))

    def meet_(self, model: nn.Module) -> None:
        """Attach the hook that multiplies; an obligation that is unclear is a warning, since no hook can meet it."""
        if self.unclear:
            warnings.warn(f"not met: {self}", stacklevel=3)
        factor = self.factor(model)
        if factor == 1.0:
            return
        if self.kind == "tied readout":
            scale_input(module_at(model, self.where), factor)
        elif self.kind == "attention":
            module = module_at(model, self.where)
            module.forward = ScaledAttention(module, factor, self.where, self.exponent)  # type: ignore[method-assign]
            module.register_forward_hook(keep)  # torch's fused encoder layers look for hooks before they go past their modules
        else:
            for path in branches(model, self.where):
                scale_output(module_at(model, path), factor, path)

    def __str__(self) -> str:
        return f"{self.kind} {f'at {self.where}' if self.where else 'in the whole network'}: {self.why}"


def _heads(model: nn.Module, where: str) -> int:
    size = head_size(module_at(model, where))
    if size is None:
        raise PlanError(
            f"the size of the heads of the attention '{where}' cannot be read off this model; give it an attribute head_dim, or "
            "meet the plan's obligations before anything shards or compiles the model"
        )
    return size


class ScaleInput:
    """Forward pre-hook: multiplies the first input by a number, also where it is given by its name."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The hook."""
        if args:
            return (args[0] * self.factor, *args[1:]), kwargs
        name = next(iter(kwargs)) if len(kwargs) == 1 else "input"
        if name not in kwargs:
            raise PlanError(
                f"a {type(module).__name__} whose input a plan scales was called with {', '.join(kwargs) or 'nothing'}, expected "
                "its input first or as input="
            )
        return args, {**kwargs, name: kwargs[name] * self.factor}


class ScaleOutput:
    """Forward hook: multiplies the output by a number; of several outputs the first, as attentions and recurrent cells have it."""

    def __init__(self, factor: float, where: str = "") -> None:
        self.factor, self.where = factor, where

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        """The hook."""
        if isinstance(output, Tensor):
            return output * self.factor
        if type(output) in (tuple, list) and output and isinstance(output[0], Tensor):
            return type(output)([output[0] * self.factor, *output[1:]])
        raise PlanError(
            f"the module '{self.where}' ({type(module).__name__}), which a plan scales, returned a {type(output).__name__}, "
            "expected a tensor or a tuple that begins with one; name a module of which the stream is one output"
        )


class ScaledAttention:
    """Stands before a module's forward and scales the attention logits inside by a number.

    Attention that is written out by hand has no call to scale; that is an error and not a silence.
    """

    def __init__(self, module: nn.Module, factor: float, where: str, exponent: float) -> None:
        self.module, self.factor, self.where, self.exponent = module, factor, where, exponent
        self.before = module.__dict__.get("forward")  # somebody else's

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's forward."""
        scaled: list[str] = []
        with ScaleQueries(self.factor, self.where, self.exponent, scaled):
            forward = self.before
            output = forward(*args, **kwargs) if forward else type(self.module).forward(self.module, *args, **kwargs)
        if not scaled:
            raise PlanError(
                f"the attention '{self.where}' ({type(self.module).__name__}) calls no scaled_dot_product_attention, so its logits "
                f"cannot be scaled from outside; multiply them by {self.factor:g} in {_source(self.module)}, or choose an "
                "implementation that calls it (attn_implementation='sdpa' in Hugging Face's)"
            )
        return output

    def release_(self) -> None:
        """Give the module its own forward back."""
        del self.module.__dict__["forward"]
        if self.before is not None:
            self.module.__dict__["forward"] = self.before


def keep(module: nn.Module, args: Any, output: Any) -> None:
    """A forward hook that does nothing."""


class ScaleQueries(TorchFunctionMode):
    """While it is entered, torch's attentions scale their logits by a number as well.

    Logits that follow the scheme's own law already are left as they are; any other scale than 1/sqrt(d) is refused. What was scaled
    is noted in a list, which compilers follow where they lose a mode's own attributes.
    """

    def __init__(self, factor: float, where: str, exponent: float, scaled: list[str]) -> None:
        super().__init__()
        self.factor, self.where, self.exponent, self.scaled = factor, where, exponent, scaled
        self.learns = torch.is_grad_enabled()  # a reentrant checkpoint switches gradients off inside

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (F.multi_head_attention_forward, F.scaled_dot_product_attention):
            self._refuse_checkpoint()
        if func is F.multi_head_attention_forward:
            self.scaled.append(func.__name__)
            return func(*_scaled_projection(args, kwargs, self.factor), **kwargs)
        if func is F.scaled_dot_product_attention:
            self.scaled.append("scaled_dot_product_attention")
            query = args[0] if args else kwargs["query"]
            kwargs["scale"] = self._scale(query.shape[-1], kwargs.get("scale"))
        if func is torch.Tensor.unflatten:  # the method calls super(), which compilers lose under a mode (torch 2.13)
            func = torch.unflatten
        return func(*args, **kwargs)

    def _refuse_checkpoint(self) -> None:
        """Backward runs what is checkpointed again, by itself and so with logits that nobody scales: its gradients are others."""
        if torch.compiler.is_compiling() or not self.learns or not checkpointed(ScaledAttention.__call__.__code__):
            return
        raise PlanError(
            f"the attention '{self.where}' runs torch's attention under torch.utils.checkpoint, so backward would run it again "
            "without the plan's factor and give wrong gradients; checkpoint the whole module instead: "
            f"checkpoint(model.get_submodule('{self.where}'), x, use_reentrant=False), or the block around it"
        )

    def _scale(self, size: int, given: float | None) -> float:
        if given is None or math.isclose(given, size**-0.5, rel_tol=1e-6):
            return size**-0.5 * self.factor
        if math.isclose(given, size ** (self.exponent - 0.5), rel_tol=1e-6):
            return given
        raise PlanError(
            f"the attention '{self.where}' scales its logits by {given:g}, which is neither 1/sqrt(d) nor "
            f"the scheme's law for heads of {size}; leave its scale to torch, or give it yourself the law that the plan's "
            "obligation tells"
        )


def _source(module: nn.Module) -> str:
    """File and line of a module's forward."""
    code = type(module).forward.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


PROJECTED = ("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias")


def _scaled_projection(args: Any, kwargs: dict[str, Any], factor: float) -> Any:
    """Scale the query rows of the packed projection (positions 5 and 6) or the separate query weight."""
    args = [*args, *(kwargs.pop(name) for name in PROJECTED[len(args) :])]
    size = args[3]
    if kwargs.get("use_separate_proj_weight"):
        kwargs["q_proj_weight"] = kwargs["q_proj_weight"] * factor
    else:
        args[5] = torch.cat([args[5][:size] * factor, args[5][size:]])
    if args[6] is not None:
        args[6] = torch.cat([args[6][:size] * factor, args[6][size:]])
    return args


def scale_input(module: nn.Module, factor: float) -> None:
    """Multiply what a module's weight acts on; an Embedding, which has no such input, is scaled at its output."""
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        scale_output(module, factor)
    else:
        module.register_forward_pre_hook(ScaleInput(factor), with_kwargs=True)


def scale_output(module: nn.Module, factor: float, where: str = "") -> None:
    """Multiply what a module returns; an error names ``where`` it is."""
    module.register_forward_hook(ScaleOutput(factor, where))


def release_(model: nn.Module) -> nn.Module:
    """Take every hook of ours off a model (or off a deepcopy of one); nothing else is touched.

    Example:
        >>> layer = nn.Linear(2, 2); scale_input(layer, 0.5)
        >>> len(release_(layer)._forward_pre_hooks)
        0
    """
    for module in model.modules():
        if isinstance(wrapper := module.__dict__.get("forward"), ScaledAttention):
            wrapper.release_()
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key, hook in list(hooks.items()):
                if isinstance(hook, (ScaleInput, ScaleOutput)) or hook is keep:
                    del hooks[key]
                    module._forward_pre_hooks_with_kwargs.pop(key, None)
    return model


def branches(model: nn.Module, pattern: str) -> list[str]:
    """Bare paths of the modules that a pattern names; its ``*`` stays within one part of a path.

    Example:
        >>> net = nn.Sequential(nn.Sequential(nn.ReLU(), nn.ReLU()), nn.ReLU())
        >>> branches(net, "*"), branches(net, "0.*")
        (['0', '1'], ['0.0', '0.1'])
    """
    paths = [path for path in (bare(path) for path, _ in model.named_modules()) if path]
    found = [path for path in paths if _fits(path, pattern)]
    if not found:
        known = ", ".join(paths[:12]) + (f", and {len(paths) - 12} more" if len(paths) > 12 else "")
        raise PlanError(f"branches= pattern '{pattern}' matches no module of the model; its modules are {known or 'none'}")
    return found


def _fits(path: str, pattern: str) -> bool:
    parts, patterns = path.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatch, parts, patterns))


def module_at(model: nn.Module, path: str) -> nn.Module:
    """The module at a bare path.

    Raises:
        PlanError: if the model has none there.
    """
    module = submodule(model, path)
    if module is None:
        raise PlanError(f"the plan speaks of the module '{path}', which this model does not have")
    return module

"""A network as a function of its named parameters, which can be differentiated any number of times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from lazyrich.errors import TangentError
from lazyrich.functional import functional_call

Parameters = Mapping[str, Tensor]


class NetworkFunction:
    """f(theta, x): outputs of a module, (N, K), as a function of its trainable parameters by name.

    The module is only read. Its parameters and buffers are detached views, so later training of the module shows in them;
    ``parameters`` of a frozen copy is ``{name: p.clone() for name, p in function.parameters.items()}``.

    Args:
        model: any module that treats samples one by one; outputs (N, ...) are flattened to (N, K).

    Raises:
        TangentError: for BatchNorm in training mode, active dropout, or nothing to train, naming the module.

    Example:
        >>> function = NetworkFunction(nn.Linear(3, 2))
        >>> sorted(function.parameters)
        ['bias', 'weight']
        >>> function(function.parameters, torch.ones(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, model: nn.Module) -> None:
        _refuse_mixing(model)
        trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        if not trained:
            raise TangentError(f"{type(model).__name__} has no trainable parameters; a tangent needs some (requires_grad=True)")
        self.model = model
        self.parameters: dict[str, Tensor] = trained
        frozen = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
        self._constants = {**frozen, **dict(model.named_buffers())}

    def __call__(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Outputs (N, K); parameters that are left out keep the module's own values."""
        with smooth():
            out = _tensor_of(
                functional_call(self.model, {**self._constants, **self.parameters, **parameters}, (x,)), self.model
            )
        return out.flatten(1) if out.dim() > 1 else out.unsqueeze(1)

    def one(self, parameters: Parameters, x: Tensor) -> Tensor:
        """Outputs (K,) of a single sample without a batch axis: what ``torch.func.vmap`` takes."""
        return self(parameters, x.unsqueeze(0)).squeeze(0)

    def rates(self, rates: Mapping[str, float] | None) -> dict[str, float]:
        """The learning-rate factor of every trainable tensor, 1 where none is given; those of frozen tensors do not count.

        Raises:
            TangentError: for names that are no tensors of the module, and factors that are negative or not finite.
        """
        for name, rate in (rates or {}).items():
            if name not in self.parameters and name not in self._constants:
                raise TangentError(f"got a rate for '{name}', expected a tensor of the module: {', '.join(self.parameters)}")
            if not 0 <= rate < math.inf:
                raise TangentError(f"got rate {rate} for '{name}', expected a learning-rate factor: finite and not negative")
        return {name: float((rates or {}).get(name, 1.0)) for name in self.parameters}

    def check(self, x: Tensor, name: str = "x") -> None:
        """Refuse inputs that the network does not take, that are not finite, or that it mixes with one another."""
        if not isinstance(x, Tensor) or x.dim() < 1 or len(x) == 0:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise TangentError(f"{name}: got {got}, expected a tensor (N, ...) with at least one sample")
        if x.is_floating_point() and not torch.isfinite(x).all():
            raise TangentError(f"{name} has entries that are not finite; remove those samples")
        dtype = next(iter(self.parameters.values())).dtype
        if x.is_floating_point() and x.dtype != dtype:
            raise TangentError(f"{name} is {x.dtype} but the parameters are {dtype}; call x.to({dtype}) or model.to({x.dtype})")
        try:
            both = self(self.parameters, x[:2]).detach()
            alone = self(self.parameters, x[:1]).detach()
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise TangentError(f"{type(self.model).__name__} does not take {name} of shape {tuple(x.shape)}: {line}") from error
        if not torch.isfinite(both).all():
            raise TangentError(f"{type(self.model).__name__} gives outputs that are not finite on {name}")
        if both.shape[0] != len(x[:2]) or not torch.allclose(both[:1], alone, rtol=1e-3, atol=1e-5 * float(both.abs().max())):
            raise TangentError(
                f"{type(self.model).__name__} mixes samples: its output on the first of {name} changes with the second, so a "
                "kernel of two samples does not exist; use a layer that treats samples one by one (layer or group norm)"
            )


def _tensor_of(out: Any, model: nn.Module) -> Tensor:
    if not isinstance(out, Tensor):
        raise TangentError(
            f"{type(model).__name__} returns {type(out).__name__}, expected one tensor (N, ...); wrap it in a module that "
            "returns the output that you mean"
        )
    return out


def _refuse_mixing(model: nn.Module) -> None:
    for path, module in model.named_modules():
        place = f"{path or 'the model'} ({type(module).__name__})"
        if isinstance(module, _BatchNorm) and (module.training or not module.track_running_stats):
            raise TangentError(f"{place} mixes the samples of a batch in training mode; call model.eval(), or use another norm")
        if isinstance(module, _DropoutNd) and module.training and module.p > 0:
            raise TangentError(
                f"{place} draws at random in training mode, so the network is no fixed function; call model.eval()"
            )
        random = (nn.MultiheadAttention, nn.RNNBase)
        if isinstance(module, random) and module.training and module.dropout > 0:
            raise TangentError(
                f"{place} drops at random in training mode, so the network is no fixed function; call model.eval()"
            )


class _WrittenOut(TorchFunctionMode):
    """Layer norms written out: the second derivatives of the fused one are wrong under nested transforms (torch 2.13)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.layer_norm:
            return _layer_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _layer_norm(x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    axes = tuple(range(-len(tuple(shape)), 0))
    centred = x - x.mean(axes, keepdim=True)
    out = centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
    out = out * weight if weight is not None else out
    return out + bias if bias is not None else out


@contextmanager
def smooth() -> Iterator[None]:
    """Within it, every operation has right derivatives of any order: no fused norms, no fused attention."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), _WrittenOut():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)

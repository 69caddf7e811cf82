"""Modules that make a network no fixed function of its samples and parameters, refused by their places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from lazyrich.errors import TangentError

SHARDED = ("FullyShardedDataParallel", "FSDPModule")  # told by their names, as importing them takes long


def refuse_untensored(x: Any, name: str) -> None:
    """Inputs that are no dense tensor, with how to give one."""
    if not isinstance(x, Tensor):
        mend = f"torch.as_tensor({name}) makes one"
        if isinstance(x, (Mapping, tuple, list)):
            mend = "wrap the network in a module that takes all of its inputs side by side in one tensor and splits it"
        raise TangentError(f"{name}: got {type(x).__name__}, expected a tensor (N, ...); {mend}")
    if x.is_nested:
        raise TangentError(
            f"{name}: got a nested tensor, expected samples of one shape (N, ...); torch.nested.to_padded_tensor({name}, 0.0) "
            "makes them one, and the network has to know what is padding"
        )
    if x.layout != torch.strided:
        raise TangentError(f"{name}: got a tensor of layout {x.layout}, expected a dense one; call {name}.to_dense()")
    if x.is_meta:
        raise TangentError(f"{name}: got a tensor on the device meta, which has no values; make it on a processor")


def refuse_sharded(model: nn.Module) -> None:
    """Parameters that are spread over processes."""
    for path, module in model.named_modules():
        if any(kind.__name__ in SHARDED and kind.__module__.startswith("torch.distributed") for kind in type(module).__mro__):
            raise TangentError(
                f"{path or 'the model'} ({type(module).__name__}) shards its parameters and puts its own tensors in their places "
                "as it runs, so they cannot be replaced; give what it wraps: the network built anew, with the full state dict "
                "loaded (torch.distributed.checkpoint.state_dict.get_model_state_dict with full_state_dict=True)"
            )


def refuse_wrapped(model: nn.Module) -> None:
    """Networks within what runs them in its own way."""
    refuse_sharded(model)
    for path, module in model.named_modules():
        place = f"{path or 'the model'} ({type(module).__name__})"
        if isinstance(module, nn.DataParallel):
            raise TangentError(f"{place} sends samples to several devices by itself; give what it wraps, model.module")
        if isinstance(module, torch.jit.ScriptModule):
            raise TangentError(f"{place} is compiled, so its tensors cannot be replaced; give the unscripted model")


def refuse_frequency(model: nn.Module) -> None:
    """Tables whose gradients are scaled by how often a batch reads a row: those of a batch are no sums over its samples."""
    for path, module in model.named_modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.scale_grad_by_freq:
            raise TangentError(
                f"{path or 'the model'} ({type(module).__name__}) scales its gradients by how often the batch reads a row, so they "
                "belong to no function of a sample; set its scale_grad_by_freq to False"
            )


def refuse_hooks(model: nn.Module) -> None:
    """Full backward hooks, which torch runs by an operation that torch.func does not take: ntk_of's plain backward passes do."""
    for path, module in model.named_modules():
        full = module._backward_hooks and module._is_full_backward_hook is not False
        if full or module._backward_pre_hooks:
            raise TangentError(
                f"{path or 'the model'} ({type(module).__name__}) has a full backward hook, which has no forward derivative; "
                "remove it for the call (remove() of the handle that registering it returned). ntk_of takes the network as it is"
            )


def refuse_lazy(model: nn.Module) -> None:
    """Parameters that wait for a first batch."""
    for name, p in model.named_parameters():
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise TangentError(f"'{name}' has no shape yet; run the model once on a batch, so that its lazy layers are made")


def refuse_mixing(model: nn.Module) -> None:
    """Layers that mix samples, draw at random or change their tensors."""
    for path, module in model.named_modules():
        place = f"{path or 'the model'} ({type(module).__name__})"
        if isinstance(module, _BatchNorm) and (module.training or not module.track_running_stats):
            raise TangentError(
                f"{place} mixes the samples of a batch in training mode; call model.eval() (a factory returns network.eval()), "
                "or use another norm"
            )
        if isinstance(module, _DropoutNd) and module.training and module.p > 0:
            raise TangentError(
                f"{place} draws at random in training mode, so the network is no fixed function; call model.eval()"
            )
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None:
            raise TangentError(
                f"{place} shortens the rows that it reads in place, in every mode, so the network is no fixed function; shorten "
                "its table once (torch.renorm), and set its max_norm to None"
            )
        random = (nn.MultiheadAttention, nn.RNNBase)
        if isinstance(module, random) and module.training and module.dropout > 0:
            raise TangentError(
                f"{place} drops at random in training mode, so the network is no fixed function; call model.eval()"
            )


def refuse_rows(kind: str, out: Tensor, samples: int) -> None:
    """Refuse outputs of other rows than one a sample, and rows of none."""
    if len(out) != samples:
        raise TangentError(
            f"{kind} returns {len(out)} rows of outputs for {samples} sample{'s' * (samples > 1)}, expected outputs (N, ...), one "
            "row a sample; keep samples on axis 0 (batch_first=True where it would hold positions), and sum over other axes alone"
        )
    if not out.numel():
        raise TangentError(
            f"{kind} returns rows of no outputs, expected (N, ...) with at least one a sample; return what it computes"
        )

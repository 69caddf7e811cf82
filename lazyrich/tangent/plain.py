"""Torch's own layers in a row, of which it is known without a trial that they treat samples one by one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules import module as of_all

HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks", "_global_backward_pre_hooks")
ENTRYWISE = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid,
    nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Hardtanh, nn.Hardswish, nn.Tanhshrink, nn.Softshrink,
)  # fmt: skip
IMAGES: dict[type[nn.Module], int] = {  # axes with that of the samples; of one less they would take the samples for channels
    nn.Conv1d: 3, nn.Conv2d: 4, nn.Conv3d: 5, nn.AvgPool1d: 3, nn.AvgPool2d: 4, nn.AvgPool3d: 5, nn.AdaptiveAvgPool1d: 3,
    nn.AdaptiveAvgPool2d: 4, nn.AdaptiveAvgPool3d: 5,
}  # fmt: skip


def is_plain(model: nn.Module, x: Tensor) -> bool:
    """Whether a network is a row of such layers, unchanged, for samples of this shape; of others nothing is said.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> is_plain(net, torch.ones(5, 3)), is_plain(nn.Sequential(nn.Softmax(0)), torch.ones(5, 3))
        (True, False)
    """
    return type(x) is Tensor and not any(getattr(of_all, name) for name in HOOKS) and _axes_after(model, x.dim()) > 0


def _axes_after(module: nn.Module, axes: int) -> int:
    """Axes behind a layer that treats samples one by one; 0 for any other."""
    kind = type(module)
    if axes == 0 or _is_changed(module):
        return 0
    if kind is nn.Sequential:
        for layer in module:  # type: ignore[attr-defined]
            axes = _axes_after(layer, axes)
        return axes
    if kind in ENTRYWISE:
        return 0 if getattr(module, "inplace", False) else axes
    if kind is nn.Linear:
        return axes if axes > 1 else 0
    if kind is nn.Flatten:
        return 2 if (module.start_dim, module.end_dim) == (1, -1) and axes > 1 else 0
    return axes if IMAGES.get(kind) == axes else 0


def _is_changed(module: nn.Module) -> bool:
    """Whether somebody's hooks, tensors or compiler stand between a layer and what its class does."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    own = "forward" in vars(module) or module._compiled_call_impl is not None
    return any(hooks) or own or any(p is not None and type(p) is not nn.Parameter for p in module._parameters.values())

"""How far features and kernels have moved between two networks of equal shape."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from lazyrich.errors import LazyrichError
from lazyrich.functional import functional_call


def feature_movement(before: Tensor, after: Tensor) -> float:
    """RMS(h_t - h_0) / RMS(h_0), for features of shape (samples, units); 0 where nothing moved, infinite from zero on.

    Example:
        >>> feature_movement(torch.ones(2, 3), 1.5 * torch.ones(2, 3))
        0.5
    """
    return relative(after - before, before)


def relative(change: Tensor, size: Tensor) -> float:
    """||change|| / ||size||; of no change 0, also where there is no size.

    Example:
        >>> relative(torch.zeros(3), torch.zeros(3)), relative(torch.ones(3), torch.zeros(3))
        (0.0, inf)
    """
    return float(change.norm() / size.norm()) if bool(change.any()) else 0.0


def kernel_movement(before: Tensor, after: Tensor) -> float:
    """||K_t - K_0|| / ||K_0|| in Frobenius norm; sees a change of scale, which ``kernel_distance`` does not.

    Example:
        >>> kernel_movement(torch.eye(2), 2 * torch.eye(2))
        1.0
    """
    return feature_movement(before, after)


def kernel_distance(before: Tensor, after: Tensor) -> float:
    """S = 1 - <K, K'> / (||K|| ||K'||), the scale-free kernel distance of Fort et al. 2020 (arXiv:2010.15110).

    Computed from the unit kernels' difference, S = ||K/|K| - K'/|K'|||^2 / 2, which keeps small distances exact.

    Example:
        >>> kernel_distance(torch.eye(2), 2 * torch.eye(2))
        0.0
    """
    a, b = (k.double() / k.double().norm() for k in (before, after))
    return float((a - b).square().sum() / 2)


def feature_kernel(features: Tensor) -> Tensor:
    """K = h h^T / units, (samples, samples), in float64.

    Example:
        >>> feature_kernel(torch.ones(2, 5)).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    h = features.detach().double().flatten(1)
    return h @ h.T / h.shape[1]


def tangent_kernel(model: nn.Module, x: Tensor, weights: dict[str, float] | None = None) -> Tensor:
    """Empirical tangent kernel of a scalar network, sum over tensors of lr_t <df/dt(x), df/dt(x')>, (samples, samples).

    Args:
        model: a network with one output a sample.
        x: samples.
        weights: learning-rate factor of each tensor by name (1 where it is not given): the kernel that a plan trains with.

    Raises:
        LazyrichError: if the network has more than one output.

    Example:
        >>> net = nn.Linear(2, 1, bias=False)
        >>> tangent_kernel(net, torch.eye(2)).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    state = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def output(params: dict[str, Tensor], sample: Tensor) -> Tensor:
        value = functional_call(model, {**params, **buffers}, (sample.unsqueeze(0),))
        if value.numel() != 1:
            raise LazyrichError(f"got {value.numel()} outputs a sample, expected one; give a network with a scalar output")
        return value.reshape(())

    total = torch.zeros(len(x), len(x), dtype=torch.float64)
    for name in state:  # one tensor at a time: memory for its gradients only

        def by_tensor(value: Tensor, sample: Tensor, name: str = name) -> Tensor:
            return output({**state, name: value}, sample)

        rows = vmap(grad(by_tensor), in_dims=(None, 0))(state[name], x).flatten(1).double()
        total += (weights or {}).get(name, 1.0) * (rows @ rows.T)
    return total

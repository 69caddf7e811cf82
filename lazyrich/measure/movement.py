"""How far features and kernels have moved between two networks of equal shape."""

from __future__ import annotations

from torch import Tensor


def feature_movement(before: Tensor, after: Tensor) -> float:
    """RMS(h_t - h_0) / RMS(h_0), for features of shape (samples, units); 0 where nothing moved, infinite from zero on.

    Example:
        >>> import torch
        >>> feature_movement(torch.ones(2, 3), 1.5 * torch.ones(2, 3))
        0.5
    """
    return relative(after - before, before)


def relative(change: Tensor, size: Tensor) -> float:
    """||change|| / ||size||; of no change 0, also where there is no size.

    Example:
        >>> import torch
        >>> relative(torch.zeros(3), torch.zeros(3)), relative(torch.ones(3), torch.zeros(3))
        (0.0, inf)
    """
    return float(change.norm() / size.norm()) if bool(change.any()) else 0.0


def kernel_movement(before: Tensor, after: Tensor) -> float:
    """||K_t - K_0|| / ||K_0|| in Frobenius norm; sees a change of scale, which ``kernel_distance`` does not.

    Example:
        >>> import torch
        >>> kernel_movement(torch.eye(2), 2 * torch.eye(2))
        1.0
    """
    return feature_movement(before, after)


def kernel_distance(before: Tensor, after: Tensor) -> float:
    """S = 1 - <K, K'> / (||K|| ||K'||), the scale-free kernel distance of Fort et al. 2020 (arXiv:2010.15110).

    Computed from the unit kernels' difference, S = ||K/|K| - K'/|K'|||^2 / 2, which keeps small distances exact.

    Example:
        >>> import torch
        >>> kernel_distance(torch.eye(2), 2 * torch.eye(2))
        0.0
    """
    a, b = (k.double() / k.double().norm() for k in (before, after))
    return float((a - b).square().sum() / 2)

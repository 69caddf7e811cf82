"""A layer with a weight, read as a matrix from what it takes to what it gives, whichever way the layer keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized

from lazyrich.autoencoder.argument import check_modules
from lazyrich.errors import AutoencoderError
from lazyrich.family.semantics import read_axes
from lazyrich.init import Sides

KEPT = 0.999  # cosine from which on a parametrization has kept the direction of what it was given


@dataclass(frozen=True)
class Weighted:
    """A layer and the part of its weight that counts.

    Attributes:
        path: of the layer.
        module: the layer.
        weight: shares the layer's memory, without gradients; of the head of a variational encoder the means' half. Behind a
            parametrization it is what that gives, a copy.
    """

    path: str
    module: nn.Module
    weight: Tensor

    @property
    def sides(self) -> Sides:
        """Which axes of the weight are the layer's outputs, and which its inputs and positions of a kernel."""
        shape = tuple(self.weight.shape)
        kernel = tuple(range(2, len(shape)))
        if isinstance(self.module, _ConvNd):  # depthwise ones too, that sum over no channels
            out, into = (1, 0) if isinstance(self.module, _ConvTransposeNd) else (0, 1)
            return Sides((out,), (into, *kernel))
        axes = read_axes(self.module, "weight", shape)
        return Sides(axes.produced, axes.contracted) if axes.known else Sides((0,), (1, *kernel))

    @property
    def kernel(self) -> tuple[int, ...]:
        """Size of a convolution's kernel."""
        return tuple(self.weight.shape[2:]) if isinstance(self.module, _ConvNd) else ()

    def matrix(self, turned: bool = False) -> Tensor:
        """The weight as (outputs, inputs times kernel); ``turned``, that of the layer's adjoint.

        The adjoint of a convolution is one with the channels exchanged and the kernel turned around; a transposed convolution
        keeps its weight as its adjoint's.

        Example:
            >>> down, up = nn.Conv2d(3, 4, 5), nn.ConvTranspose2d(4, 3, 5)
            >>> [tuple(Weighted("", m, m.weight.detach()).matrix(turned).shape) for m, turned in ((down, False), (up, True))]
            [(4, 75), (4, 75)]
        """
        if not isinstance(self.module, _ConvNd):
            flat = self.sides.matrix(self.weight)
            return flat.T if turned else flat
        by_group = self.weight.unflatten(0, (self.module.groups, -1))
        if turned != isinstance(self.module, _ConvTransposeNd):
            by_group = by_group.transpose(1, 2).flip(tuple(range(3, by_group.dim())))
        return by_group.flatten(0, 1).flatten(1)

    @torch.no_grad()
    def put(self, value: Tensor) -> Weighted:
        """Give the layer a weight, through its parametrization where it has one; the layer with the weight that it has then.

        A spectral norm keeps the direction of what it is given and takes its size.

        Raises:
            AutoencoderError: for a weight that is computed from others and cannot be written.

        Example:
            >>> from torch.nn.utils.parametrizations import weight_norm
            >>> (layer,) = weighted(weight_norm(nn.Linear(2, 2)))
            >>> layer.put(torch.eye(2)).module.weight.detach().round().tolist()
            [[1.0, 0.0], [0.0, 1.0]]
        """
        if not is_parametrized(self.module, "weight"):
            if "weight" not in self.module._parameters and any(
                f"weight_{end}" in self.module._parameters for end in ("v", "orig")
            ):
                raise AutoencoderError(_computed(self, "torch's older norms compute it before every call"))
            self.weight.copy_(value)
            return self
        whole, part = cast(Tensor, self.module.weight).detach().clone(), tuple(slice(n) for n in self.weight.shape)
        whole[part] = value.to(whole)
        try:
            self.module.weight = whole
        except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            raise AutoencoderError(_computed(self, "its parametrization has no right_inverse for it")) from error
        now = cast(Tensor, self.module.weight).detach()
        if not float(cosine_similarity(now.flatten(), whole.flatten(), dim=0)) >= KEPT and bool(whole.any()):
            raise AutoencoderError(_computed(self, "its parametrization makes another weight of it"))
        return Weighted(self.path, self.module, now[part])

    def means(self) -> Weighted:
        """The first half of the outputs: of means and log-variances the means."""
        axis = self.sides.produced[0]
        return Weighted(self.path, self.module, self.weight.narrow(axis, 0, self.weight.shape[axis] // 2))

    def __str__(self) -> str:
        return f"'{self.path}' ({type(self.module).__name__}, {' x '.join(map(str, self.weight.shape))})"


def _computed(layer: Weighted, why: str) -> str:
    return (
        f"the weight of {layer} is computed from other tensors and takes no start: {why}; take the parametrization off this layer, "
        "or keep to the start 'default'"
    )


def weighted(module: nn.Module, prefix: str = "") -> list[Weighted]:
    """The layers of a module whose weights map inputs to outputs, in the order of its parts.

    Raises:
        AutoencoderError: for what is no module.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))
        >>> [str(layer) for layer in weighted(net, "encoder.")]
        ["'encoder.0' (Linear, 5 x 3)", "'encoder.2' (Linear, 2 x 5)"]
    """
    check_modules(model=module)
    found = []
    for path, part in module.named_modules():
        weight = getattr(part, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() > 1:
            found.append(Weighted(f"{prefix}{path}".rstrip("."), part, weight.detach()))
    return [layer for layer in found if layer.sides.contracted]  # a norm's weight scales and maps nothing

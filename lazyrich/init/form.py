"""How the entries of a weight are related: forms of mean square one, made from the weight's own draw.

A form changes what is drawn, never how large it is: the size is the plan's. Each is a map that leaves alone what already has
the form, so applying one twice changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lazyrich.errors import InitError

COUPLED = ("transposed", "inverse")
FORMS = ("normal", "uniform", "orthogonal", "delta_orthogonal", "principal", *COUPLED)


@dataclass(frozen=True)
class Form:
    """A form by name, and what it needs.

    Attributes:
        name: one of ``FORMS``.
        of: name of the tensor that a coupled form is made from.
        correlation: of a transposed copy with that tensor.
        directions: orthonormal rows that a principal form keeps.
    """

    name: str
    of: str = ""
    correlation: float = 1.0
    directions: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.name not in FORMS:
            raise InitError(f"got form '{self.name}', expected one of {', '.join(FORMS)}")
        if not -1 <= self.correlation <= 1:
            raise InitError(f"got correlation = {self.correlation:g}, expected one in [-1, 1]")
        if (self.name in COUPLED) != bool(self.of):
            raise InitError(
                f"got form '{self.name}' of '{self.of}', expected a tensor's name for {' and '.join(COUPLED)} alone"
            )

    @property
    def iid(self) -> bool:
        """Whether sums over a width see the weight as independent entries: not of coupled, sparse or data-made weights."""
        return self.name in ("normal", "uniform", "orthogonal")


@dataclass(frozen=True)
class Sides:
    """Which axes of a weight index its result and which are summed over: channels first, then positions of a kernel.

    Attributes:
        produced: axes of the outputs, (0,) of a dense layer (out, in).
        contracted: axes that are summed over, (1, 2, 3) of a convolution (out, in, height, width).

    Example:
        >>> Sides((0,), (1, 2, 3)).kernel, tuple(Sides((0,), (1, 2, 3)).matrix(torch.zeros(6, 4, 3, 3)).shape)
        ((2, 3), (6, 36))
    """

    produced: tuple[int, ...]
    contracted: tuple[int, ...]

    @property
    def kernel(self) -> tuple[int, ...]:
        """Axes of a kernel's positions."""
        return self.contracted[1:]

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight as (produced, contracted)."""
        rows = math.prod(weight.shape[i] for i in self.produced)
        return weight.permute(*self.produced, *self.contracted).reshape(rows, -1)

    def weight(self, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A matrix as a weight of this shape."""
        order = (*self.produced, *self.contracted)
        return matrix.reshape([shape[i] for i in order]).permute([order.index(i) for i in range(len(order))])


def formed(form: Form, own: Tensor, sides: Sides, other: Tensor | None = None, others: Sides | None = None) -> Tensor:
    """A weight of a form, of mean square one.

    Args:
        form: its form.
        own: the weight's own draw, of any size.
        sides: of the weight.
        other: the weight that a coupled form is made from.
        others: its sides.

    Raises:
        InitError: if the form does not fit the weight's shape.

    Example:
        >>> made = formed(Form("orthogonal"), torch.randn(4, 4), Sides((0,), (1,)))
        >>> torch.allclose(made @ made.T, 4 * torch.eye(4), atol=1e-5)
        True
    """
    made = _made(form, own.double(), sides, None if other is None else other.double(), others)
    return made.to(own)


def _made(form: Form, own: Tensor, sides: Sides, other: Tensor | None, others: Sides | None) -> Tensor:
    if form.name == "normal":
        return unit(_scores(own, torch.special.ndtri))
    if form.name == "uniform":
        return unit(_scores(own, lambda u: 2 * u - 1))
    if form.name == "orthogonal":
        return unit(sides.weight(polar(sides.matrix(own)), tuple(own.shape)))
    if form.name == "delta_orthogonal":
        return unit(_delta(own, sides))
    if form.name == "principal":
        return unit(_projected(own, sides, torch.tensor(form.directions)))
    assert other is not None and others is not None
    if form.name == "inverse":
        return unit(_inverse(other, others, own, sides))
    return mixed(_copy(other, others, own, sides), own, form.correlation)


def unit(weight: Tensor) -> Tensor:
    """At mean square one.

    Example:
        >>> unit(torch.tensor([3.0, -3.0]))
        tensor([ 1., -1.])
    """
    return weight / weight.square().mean().sqrt()


def polar(matrix: Tensor) -> Tensor:
    """The nearest matrix with equal singular values, U V^T of U S V^T: Haar distributed where the entries are Gaussian.

    Example:
        >>> polar(torch.tensor([[2.0, 0.0], [0.0, -0.5]])).tolist()
        [[1.0, 0.0], [0.0, -1.0]]
    """
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    return u @ v


def mixed(copy: Tensor, own: Tensor, correlation: float) -> Tensor:
    """Rho U + sqrt(1 - rho^2) Z, U the copy and Z what the own draw has beside it: their cosine is rho.

    Example:
        >>> made = mixed(torch.ones(2, 2), torch.tensor([[1.0, 2.0], [3.0, 5.0]]), 0.6)
        >>> round(float(made.mean()), 4), round(float(made.square().mean()), 4)
        (0.6, 1.0)
    """
    copy = unit(copy)
    rest = own - (own * copy).mean() * copy
    size = float(rest.square().mean().sqrt())
    if size <= 1e-6 * float(own.square().mean().sqrt()):  # the draw is the copy already
        return copy if correlation >= 0 else -copy
    return correlation * copy + math.sqrt(1 - correlation**2) * rest / size


def _scores(own: Tensor, quantile: Callable[[Tensor], Tensor]) -> Tensor:
    """Quantiles in the order of the own draw: an i.i.d. draw of another distribution, up to 1 / entries."""
    flat = own.flatten()
    ranks = torch.empty(len(flat), dtype=torch.float64, device=own.device)
    ranks[flat.argsort()] = torch.arange(len(flat), dtype=torch.float64, device=own.device)
    return quantile((ranks + 0.5) / len(flat)).reshape(own.shape)


def _delta(own: Tensor, sides: Sides) -> Tensor:
    """Equal singular values at the kernel's centre, nothing elsewhere (Xiao et al. 2018, arXiv:1806.05393).

    Of an even kernel the centre is the place that reads its own position under padding="same".
    """
    if not sides.kernel:
        raise InitError(
            f"got a weight of shape {tuple(own.shape)}, expected a convolution's: its centre is kept; take orthogonal"
        )
    centre = tuple((own.shape[i] - 1) // 2 if i in sides.kernel else slice(None) for i in range(own.dim()))
    plane = own[centre]  # (out, in), or (in, out) of a transposed convolution
    made = torch.zeros_like(own)
    made[centre] = polar(plane)
    return made


def _projected(own: Tensor, sides: Sides, directions: Tensor) -> Tensor:
    matrix, basis = sides.matrix(own), directions.to(own)
    if matrix.shape[1] != basis.shape[1]:
        raise InitError(
            f"got directions of {basis.shape[1]} entries for a weight of shape {tuple(own.shape)}, expected its inputs'"
        )
    return sides.weight(matrix @ basis.T @ basis, tuple(own.shape))


def _copy(other: Tensor, others: Sides, own: Tensor, sides: Sides) -> Tensor:
    """The adjoint of another weight: its two sides change places, and a kernel is turned unless the layer turns it itself."""
    if other.dim() != own.dim() or len(sides.produced) != 1 or len(others.produced) != 1:
        raise _unlike(own, other)
    place = {sides.produced[0]: others.contracted[0], sides.contracted[0]: others.produced[0]}
    place |= dict(zip(sides.kernel, others.kernel, strict=True))
    copy = other.permute([place[i] for i in range(own.dim())])
    if sides.produced == others.produced and sides.kernel:
        copy = copy.flip(sides.kernel)
    if copy.shape != own.shape:
        raise _unlike(own, other)
    return copy


def _inverse(other: Tensor, others: Sides, own: Tensor, sides: Sides) -> Tensor:
    if own.dim() != 2 or other.dim() != 2:
        raise InitError(f"got weights of shapes {tuple(own.shape)} and {tuple(other.shape)}, expected matrices to invert")
    back = torch.linalg.pinv(others.matrix(other))
    if back.shape != sides.matrix(own).shape:
        raise _unlike(own, other)
    return sides.weight(back, tuple(own.shape))


def _unlike(own: Tensor, other: Tensor) -> InitError:
    return InitError(
        f"got a weight of shape {tuple(own.shape)} coupled to one of shape {tuple(other.shape)}, expected mirror images: the "
        "one's inputs are the other's outputs"
    )

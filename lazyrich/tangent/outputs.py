"""The outputs of a network on some inputs as one vector, and its derivatives along directions and along gradient fields."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jvp, vjp

from lazyrich.errors import TangentError
from lazyrich.tangent.function import NetworkFunction, copy_of
from lazyrich.tangent.mixing import refuse_mixed
from lazyrich.tangent.refusals import refuse_frequency, refuse_hooks

Point = dict[str, Tensor]


class Outputs:
    """F(phi): the outputs (N, K) of a network on x as one vector of m = N K entries, output k of sample n at n K + k.

    With a learning rate a tensor, phi_t = theta_t / sqrt(rate_t) are the parameters in which training is plain gradient
    descent, so every kernel of F counts the rates: K2 = sum_t rate_t <df/dt, df/dt>.

    Args:
        model: treats samples one by one.
        x: inputs (N, ...).
        rates: learning-rate factor by tensor name, 1 where it is not given; a tensor of rate 0 is frozen.
        exact: a copy of the model in float64 instead of the model itself.
        nested: whether derivatives will be nested; else ``refuse_nested`` is left to whoever nests them.

    Raises:
        TangentError: for a network or inputs that ``NetworkFunction`` refuses, and rates that are no rates of it.

    Example:
        >>> outputs = Outputs(nn.Linear(3, 2), torch.ones(5, 3))
        >>> outputs(outputs.point).shape, outputs.shape
        (torch.Size([10]), (5, 2))
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        rates: Mapping[str, float] | None = None,
        exact: bool = False,
        nested: bool = True,
    ) -> None:
        fixed = (
            in_float64(model, x, ", or take contracted or ntk_of, which run the network as it is") if exact else nullcontext()
        )
        if exact:
            model = copy_of(model).double()
            x = x.double() if isinstance(x, Tensor) and x.is_floating_point() else x
        self.function = NetworkFunction(model)
        refuse_frequency(model)
        refuse_hooks(model)
        with fixed:
            self._like = self.function.check(x)
        self.x = x.detach()
        refuse_mixed(self.function, self.x)
        if nested:
            self.refuse_nested()
        self.rates = self.function.rates(rates)
        self._roots = _roots(self.rates)
        self.point: Point = {
            n: self.function.parameters[n] / r if r != 1 else self.function.parameters[n] for n, r in self._roots.items()
        }
        self.shape = (len(x), self._like.shape[1])

    def refuse_nested(self) -> None:
        """Refuse outputs that no derivative moves, and operations whose derivatives come out wrong where they are nested."""
        self.function.refuse_still(self.x)
        self.function.refuse_own(self.x)
        self.function.refuse_padding(self.x)

    @cached_property
    def start(self) -> Tensor:
        """The outputs at the starting point, (m,)."""
        return self(self.point).detach()

    @property
    def weights(self) -> int:
        """Number of parameters that train."""
        return sum(p.numel() for p in self.point.values())

    def theta(self, point: Point) -> Point:
        """The network's own parameters at a point."""
        return {name: root * point[name] if root != 1 else point[name] for name, root in self._roots.items()}

    def __call__(self, point: Point) -> Tensor:
        """The vector F, (m,)."""
        return self.function(self.theta(point), self.x).flatten()

    def pull(self, point: Point, r: Tensor) -> Point:
        """sum_b r_b grad F_b, the gradient of r . F."""
        return vjp(self, point)[1](r)[0]

    def cotangent(self, r: Tensor, name: str = "r") -> Tensor:
        """Weights of the outputs, (N, K), or (N,) for one output, as a vector (m,) of the outputs' dtype.

        Raises:
            TangentError: for another shape.
        """
        refuse_unlike(r, self.shape, name)
        return r.detach().to(self._like).flatten()


@contextmanager
def in_float64(model: nn.Module, x: Tensor, instead: str = "") -> Iterator[None]:
    """Within it a network's copy in float64 is checked, and told apart from the network itself where only the copy fails.

    Example:
        >>> with in_float64(nn.Linear(3, 2), torch.ones(5, 3)):
        ...     few = NetworkFunction(nn.Linear(3, 2).double()).check(torch.ones(5, 3).double())
    """
    try:
        yield
    except TangentError as error:
        if "does not take" not in str(error):
            raise
        NetworkFunction(model).check(x)  # says what the inputs themselves have wrong
        raise TangentError(
            f"{type(model).__name__} fixes its precision (a .float(), or a tensor made in one dtype), so its copy in float64 does "
            f"not run ({error}); cast to the dtype of the parameters instead, as h.to(self.weight.dtype){instead}"
        ) from error


def refuse_unlike(r: Tensor, shape: tuple[int, int], name: str) -> None:
    """Raise a TangentError for what is not one finite number an output, (N, K), or (N,) for one output."""
    if not isinstance(r, Tensor):
        raise TangentError(f"got {name} of type {type(r).__name__}, expected a tensor; torch.as_tensor({name}) makes one")
    alone = shape[1] == 1 and tuple(r.shape) == shape[:1]
    if not (alone or tuple(r.shape) == shape):
        raise TangentError(
            f"got {name} of shape {tuple(r.shape)}, expected the outputs' {shape}"
            + ("; give labels as one-hot rows" if r.dim() == 1 and len(r) == shape[0] else "")
        )
    if not torch.isfinite(r).all():
        raise TangentError(f"{name} has entries that are not finite; remove those samples")


def along(function: Callable[[Any], Any], point: Any, *directions: Any) -> Any:
    """D^k function [d_1, ..., d_k] at a point, by k nested forward passes: exact, and no derivative tensor is formed.

    Example:
        >>> along(lambda x: x**3, torch.tensor(2.0), torch.tensor(1.0), torch.tensor(1.0))
        tensor(12.)
    """
    for direction in directions:
        function = following(function, lambda _, d=direction: d)
    return function(point)


def following(function: Callable[[Any], Any], field: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The derivative of a function along a vector field, as a function of the point (the Lie derivative).

    Example:
        >>> square_along_x = following(lambda x: x**2, lambda x: x)
        >>> square_along_x(torch.tensor(3.0)), following(square_along_x, lambda x: x)(torch.tensor(3.0))
        (tensor(18.), tensor(36.))
    """
    return lambda point: jvp(function, (point,), (field(point),))[1]


def _roots(rates: Mapping[str, float]) -> dict[str, float]:
    if not any(rates.values()):
        raise TangentError("every tensor has rate 0, so nothing trains; give at least one a positive rate")
    return {name: math.sqrt(rate) for name, rate in rates.items() if rate > 0}

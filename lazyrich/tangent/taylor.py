"""Taylor expansions of a network in its parameters, as networks that train like it."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from numbers import Integral

import torch
from torch import Tensor, nn
from torch.func import jvp

from lazyrich.errors import TangentError
from lazyrich.functional import as_they_were, functional_call
from lazyrich.tangent.function import (
    NetworkFunction,
    Parameters,
    copy_of,
    differentiable,
    eager,
    is_compiled,
)
from lazyrich.tangent.mixing import refuse_mixed
from lazyrich.tangent.refusals import refuse_frequency
from lazyrich.tangent.written import smooth

HIGHEST = 8  # the cost doubles with every order


def linearize(model: nn.Module) -> TaylorModel:
    """What a network is while its tangent kernel stays: f(theta_0) + df(theta_0)[theta - theta_0].

    Lee et al. 2019, arXiv:1902.06720, eq. 5. The same as ``taylor(model, 1)``.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> lin, x = linearize(net), torch.randn(5, 3)
        >>> torch.allclose(lin(x), net(x))
        True
    """
    return taylor(model, 1)


def taylor(model: nn.Module, order: int) -> TaylorModel:
    """Expand a network to order k around the parameters that it has now.

    f^(k)(theta) = sum_{j <= k} (1/j!) d^j f(theta_0)[(theta - theta_0)^j] (Bai et al. 2020, arXiv:2002.04010).

    Args:
        model: any module that treats samples one by one; it stays as it is.
        order: k, from 0 to 8. One forward costs about 2^k of the network's.

    Returns:
        A module whose parameters have the network's names and start at theta_0, so that optimizer, learning rates by name,
        seeds and data order are those of the network. Its state dict holds theta, not theta_0: to go on from one, expand the
        same network again and load it. Copies hold both, and so do pickles, which torch refuses of networks with
        parametrizations (``nn.utils.parametrizations``); of these keep the state dicts of network and expansion.

    Raises:
        TangentError: for an order that makes no expansion, and networks that mix samples or draw at random.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> quadratic = taylor(net, 2)
        >>> sorted(quadratic.state_dict()) == sorted(net.state_dict())
        True
    """
    if not isinstance(order, Integral) or isinstance(order, bool) or not 0 <= order <= HIGHEST:
        raise TangentError(
            f"got order={order!r}, expected a whole number from 0 to {HIGHEST}; the cost doubles with every order"
        )
    return TaylorModel(model, int(order))


class TaylorModel(nn.Module):
    """A network's expansion around a point: its own copy of the module tree holds theta, and the point stays where it was.

    Derivatives are nested forward-mode products along theta - theta_0, so nothing larger than the outputs is kept, and gradients
    through them are exact.

    Example:
        >>> net, x = nn.Linear(3, 1), torch.randn(5, 3)
        >>> model = TaylorModel(net, order=1)  # as taylor(net, 1): exact for what is linear
        >>> with torch.no_grad():
        ...     _ = model.weight.add_(1.0)
        >>> torch.allclose(model(x), net(x) + x.sum(1, keepdim=True), atol=1e-5)
        True
    """

    def __init__(self, model: nn.Module, order: int) -> None:
        super().__init__()
        NetworkFunction(model)  # refuses what is no fixed function of its samples, as far as its modules show it
        refuse_frequency(model)
        own = copy_of(model)
        self._modules, self._parameters, self._buffers = own._modules, own._parameters, own._buffers
        self._non_persistent_buffers_set = own._non_persistent_buffers_set
        self._network = [own]  # in a list, so that it is no child: what it holds is registered under the network's own names
        self._order, self._compiled = order, is_compiled(own)
        self._point = {name: p.detach().clone() for name, p in own.named_parameters() if p.requires_grad}
        self._seen: dict[tuple[object, ...], int] = {}  # how many inputs of a kind it was found to treat one by one

    def forward(self, x: Tensor, *more: object, **named: object) -> Tensor:
        """Outputs, shaped as the network's."""
        if more or named:
            raise TangentError(
                f"got {1 + len(more) + len(named)} inputs for {type(self._network[0]).__name__}, expected one tensor (N, ...); "
                "expand a module that takes all of them side by side in one tensor and splits it"
            )
        here: dict[str, Tensor] = dict(self.named_parameters())
        self._refuse(x, here)
        if not torch.is_grad_enabled():  # no graph, although derivatives along the step are taken
            x, *values = (t.detach() if t.requires_grad else t for t in (x, *here.values()))
            here = dict(zip(here, values, strict=True))
        return self._expanded(x, here)

    def _expanded(self, x: Tensor, here: Parameters) -> Tensor:
        point = {name: p.to(here[name]) for name, p in self._point.items()}
        step = {name: here[name] - p for name, p in point.items()}

        network = self._network[0]
        held = dict(network.named_buffers())  # given, so that one that the network sets anew is put back

        def f(parameters: Parameters) -> Tensor:
            with as_they_were(list(network.modules())):
                return functional_call(network, {**held, **parameters}, (x,))

        with smooth(), eager(self._compiled), differentiable(network):
            terms = directional(f, point, step, self._order)
        return torch.stack([term / math.factorial(j) for j, term in enumerate(terms)]).sum(0)

    def _refuse(self, x: Tensor, here: Parameters) -> None:
        """What cannot be expanded, on the first inputs of every kind."""
        thawed = [name for name, p in here.items() if p.requires_grad and name not in self._point]
        if thawed:
            raise TangentError(
                f"'{thawed[0]}' was frozen when the network was expanded; expand it again with all that shall train"
            )
        tensor = isinstance(x, Tensor)
        traced = torch.compiler.is_compiling() or (tensor and torch._C._functorch.is_functorch_wrapped_tensor(x))
        if traced or not any(p.requires_grad for p in here.values()):  # a copy that was frozen later has no tangent to check
            return
        plain = tensor and not x.is_nested  # nested ones have no shape
        kind = (tuple(x.shape[1:]), x.dtype, next(iter(here.values())).dtype) if plain else ()
        if kind not in self._seen:
            function = NetworkFunction(self._network[0])
            function.check(x)
            if self._order:
                function.refuse_still(x)
            if self._order > 1:
                function.refuse_own(x)
            _refuse_hooks(function, x[:1])
            self._refuse_infinite(x[:1], here)
        if len(x) > self._seen.get(kind, 0):
            refuse_mixed(NetworkFunction(self._network[0]), x)
            self._seen[kind] = len(x)

    def _refuse_infinite(self, x: Tensor, like: Parameters) -> None:
        """Derivatives that do not exist where the outputs do: of a root of zero, of eigenvalues that meet."""
        with torch.enable_grad(), differentiable(self._network[0]):
            here = {n: p.to(like[n].device, like[n].dtype).clone().requires_grad_() for n, p in self._point.items()}
            out = self._expanded(x, here)
            found = torch.autograd.grad(out.sum(), list(here.values()), allow_unused=True) if out.requires_grad else ()
        if not all(bool(t.isfinite().all()) for t in (out, *found) if t is not None):
            raise TangentError(
                f"{type(self._network[0]).__name__} has derivatives that are not finite where it was expanded (a root or a power "
                "of zero, or equal eigenvalues); expand it at another point, or write the operation without it"
            )

    def train(self, mode: bool = True) -> TaylorModel:
        """Change nothing but ``training``: the modes of the layers are part of the function that was expanded."""
        self.training = mode
        return self


def _refuse_hooks(function: NetworkFunction, x: Tensor) -> None:
    """Checkpointing, which forgets the directions that a backward pass would need: it is seen by its hooks."""
    with ExitStack() as stack:
        try:
            stack.enter_context(torch.autograd.graph.disable_saved_tensors_hooks("saved tensor hooks are at work"))
        except RuntimeError:  # somebody's else are, around the whole
            return
        stack.enter_context(torch.enable_grad())
        function({name: p.detach().requires_grad_() for name, p in function.parameters.items()}, x)


def directional(f: Callable[[Parameters], Tensor], point: Parameters, step: Parameters, order: int) -> list[Tensor]:
    """[f, df[s], d^2 f[s, s], ..., d^order f[s, ..., s]] at ``point``, s = ``step``: each order differentiates the one before."""
    along: Callable[[Parameters], tuple[Tensor, ...]] = lambda p: (f(p),)  # noqa: E731
    for _ in range(order):
        along = _one_more(along, step)
    return list(along(point))


def _one_more(
    along: Callable[[Parameters], tuple[Tensor, ...]], step: Parameters
) -> Callable[[Parameters], tuple[Tensor, ...]]:
    def longer(p: Parameters) -> tuple[Tensor, ...]:
        values, slopes, *_ = jvp(along, (p,), (step,))
        return (*values, slopes[-1])

    return longer

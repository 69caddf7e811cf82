"""The slow referee: kernels of real networks of finite width, drawn by the laws that the kernel assumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from lazyrich.errors import out_of_memory
from lazyrich.family.family import seeded
from lazyrich.functional import functional_call
from lazyrich.gaussian import Dual
from lazyrich.lazy.kernel import Kernel
from lazyrich.lazy.layout import Kind
from lazyrich.lazy.run import Run
from lazyrich.lazy.weights import Drawn


@dataclass(frozen=True)
class Estimate:
    """Monte-Carlo kernels, means over draws and outputs; ``positions`` are axes that the network returns, none of a dense one.

    Attributes:
        nngp: (N1, N2, positions).
        ntk: (N1, N2, positions).
        nngp_error: standard errors of the entries, of the same shape.
        ntk_error: likewise.

    Example:
        >>> one = torch.ones(2, 2)
        >>> Estimate(one, one, 0.1 * one, 0.1 * one).nngp_error.shape
        torch.Size([2, 2])
    """

    nngp: Tensor
    ntk: Tensor
    nngp_error: Tensor
    ntk_error: Tensor


def monte_carlo(
    kernel: Kernel,
    factory: Callable[[int], nn.Module],
    width: int,
    x: Tensor,
    draws: int = 16,
    forward_draws: int | None = None,
    outputs: int = 4,
    seed: int = 0,
) -> Estimate:
    """Average the output products and tangent kernels of finite networks over initialisations.

    Every tensor is drawn by the kernel's law for it, N(mean, sigma^2 / fan_in), and trained at rate / fan_in: the same
    parameterisation at finite width, so the average tends to the kernel as 1/width (a single draw as 1/sqrt(width)).

    Args:
        kernel: gives the laws and rates, by tensor name.
        factory: builds the same architecture at a width.
        width: to build at.
        x: inputs (N, ...), float64 for comparisons.
        draws: number of networks for the tangent kernel.
        forward_draws: number of networks for the covariance of outputs, which is cheap; None takes ``draws``.
        outputs: number of outputs whose tangent kernels are averaged.
        seed: of the draws.

    Example:
        >>> import lazyrich as lzr
        >>> net = lambda n: nn.Sequential(nn.Linear(2, n), nn.ReLU(), nn.Linear(n, 3))
        >>> k = lzr.kernel(net(8), init=lzr.init.variance(2.0))
        >>> x = torch.eye(2, dtype=torch.float64)
        >>> estimate = monte_carlo(k, net, width=512, x=x, draws=8, forward_draws=100)
        >>> bool((estimate.nngp - k.nngp(x)).abs().max() < 0.2)
        True
    """
    with seeded(seed):
        model = factory(width).to(x.dtype if x.is_floating_point() else torch.get_default_dtype())
        model.train(kernel.module.training)
        drawer = _Drawer(model, kernel, x, seed)
        with sdpa_kernel(SDPBackend.MATH):
            nngp = torch.stack([drawer.nngp() for _ in range(forward_draws or draws)])
            ntk = torch.stack([drawer.ntk(outputs) for _ in range(draws)]) if draws else nngp[:0]
    return Estimate(nngp.mean(0), ntk.mean(0), _error(nngp), _error(ntk))


def _error(found: Tensor) -> Tensor:
    return found.std(0, correction=0) / max(len(found) - 1, 1) ** 0.5


def _alone(kernel: Kernel, x: Tensor, tangent: bool, duals: dict[str, Dual]) -> Run:
    """A pass of one sample, for the laws and fan-ins that it uses."""
    traced = kernel.traced(x)
    return Run(traced.graph, kernel.weights, traced.own, traced.readouts, (x[:1],), tangent, duals=duals)


class _Drawer:
    """Draws the tensors of one model again and again."""

    def __init__(self, model: nn.Module, kernel: Kernel, x: Tensor, seed: int) -> None:
        self.model, self.x = model, x
        self.generator = torch.Generator().manual_seed(seed)
        duals = kernel.traced(x).duals
        own = _alone(kernel, x, True, duals)
        own.output()  # laws are those of the kernel's own network, which may hold them as numbers of its width
        # fan-ins and axes are read there, no number, so nonlinearities that are known need no second integration
        wide = _alone(Kernel(model, kernel.weights), x, False, dict(duals))
        layout = wide.output().layout
        self.used = {name: (own.used[name][0], fan_in) for name, (_, fan_in) in wide.used.items()}
        self.feature = [i for i, axis in enumerate(layout.axes) if any(a.kind is Kind.FEATURE for a in axis)]

    def parameters(self) -> dict[str, Tensor]:
        """One draw of every tensor by the law that it was used with; unused ones as they are."""
        found = {}
        for name, p in self.model.named_parameters():
            law, fan_in = self.used.get(name, (Drawn(0.0, 0.0, 0.0), 1.0))
            normal = torch.randn(p.shape, generator=self.generator, dtype=p.dtype)
            found[name] = law.mean + normal * (law.variance / fan_in) ** 0.5
        return found

    def outputs(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """(N, outputs, positions)."""
        buffers = {name: b.detach() for name, b in self.model.named_buffers()}
        returned = functional_call(self.model, {**parameters, **buffers}, (x,))
        (f,) = [leaf for leaf in tree_leaves(returned) if isinstance(leaf, Tensor)]  # the kernel refuses more than one
        return f.movedim(self.feature[0], 1) if self.feature else f.unsqueeze(1)

    def nngp(self) -> Tensor:
        """Products of the outputs of one draw, averaged over outputs."""
        with torch.no_grad():
            f = self.outputs(self.parameters(), self.x)
        return torch.einsum("ic...,jc...->ij...", f, f) / f.shape[1]

    def ntk(self, outputs: int) -> Tensor:
        """Rate-weighted products of the gradients of one draw, averaged over some outputs."""
        drawn = self.parameters()
        trained = {name: value for name, value in drawn.items() if name in self.used and self.used[name][0].rate}

        def some(p: Mapping[str, Tensor], one: Tensor) -> Tensor:
            return self.outputs({**drawn, **p}, one.unsqueeze(0))[0, :outputs]

        each = jacrev(some)
        try:
            jacobian = vmap(each, (None, 0), randomness="different")(trained, self.x)
        except RuntimeError as error:  # recurrent layers take no batch of transforms
            if out_of_memory(error):
                raise
            rows = [each(trained, one) for one in self.x]
            jacobian = {name: torch.stack([row[name] for row in rows]) for name in trained}
        total: Tensor | float = 0.0
        for name, j in jacobian.items():
            law, fan_in = self.used[name]
            flat = j.flatten(j.dim() - trained[name].dim())  # (N, outputs, positions, entries)
            total = total + law.rate / fan_in * torch.einsum("ic...p,jc...p->ij...", flat, flat) / flat.shape[1]
        return total  # type: ignore[return-value]

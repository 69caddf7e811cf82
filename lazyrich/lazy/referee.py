"""The slow referee: kernels of real networks of finite width, drawn by the laws that the kernel assumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from lazyrich.family.family import seeded
from lazyrich.lazy.kernel import Kernel, Traced
from lazyrich.lazy.run import Run


@dataclass(frozen=True)
class Estimate:
    """Monte-Carlo kernels: means over draws and outputs, (N1, N2), and the standard errors of the entries."""

    nngp: Tensor
    ntk: Tensor
    nngp_error: Tensor
    ntk_error: Tensor


def monte_carlo(
    kernel: Kernel, factory: Callable[[int], nn.Module], width: int, x: Tensor, draws: int = 16, seed: int = 0
) -> Estimate:
    """Average the output products and tangent kernels of finite networks over initialisations.

    Every tensor is drawn by the kernel's law for it, N(mean, sigma^2 / fan_in), and trained at rate / fan_in: the same
    parameterisation at finite width, so the average tends to the kernel as 1/width (a single draw as 1/sqrt(width)).

    Args:
        kernel: gives the laws and rates, by tensor name.
        factory: builds the same architecture at a width.
        width: to build at.
        x: inputs (N, ...), float64 for comparisons.
        draws: number of networks.
        seed: of the draws.

    Example:
        >>> import lazyrich as lzr
        >>> net = lambda n: nn.Sequential(nn.Linear(2, n), nn.ReLU(), nn.Linear(n, 3))
        >>> k = lzr.kernel(net(8), init=lzr.init.variance(2.0))
        >>> x = torch.eye(2, dtype=torch.float64)
        >>> estimate = monte_carlo(k, net, width=512, x=x, draws=8)
        >>> bool((estimate.nngp - k.nngp(x)).abs().max() < 0.3)
        True
    """
    with seeded(seed):
        model = factory(width).to(x.dtype if x.is_floating_point() else torch.get_default_dtype())
    model.train(kernel.module.training)
    used = _uses(Kernel(model, kernel.weights), x)
    generator = torch.Generator().manual_seed(seed)
    found = [_draw(model, used, x, generator) for _ in range(draws)]
    nngp, ntk = (torch.stack([f[i] for f in found]) for i in (0, 1))
    scale = max(draws - 1, 1) ** 0.5
    return Estimate(nngp.mean(0), ntk.mean(0), nngp.std(0, correction=0) / scale, ntk.std(0, correction=0) / scale)


def _uses(kernel: Kernel, x: Tensor):
    traced: Traced = kernel.traced(x)
    run = Run(traced.graph, kernel.weights, traced.own, traced.readouts, (x[:1],), True)
    run.output()
    return run.used


def _draw(model: nn.Module, used: dict, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    drawn = {}
    for name, p in model.named_parameters():
        law, fan_in = used.get(name, (None, 1.0))
        if law is None:
            drawn[name] = p.detach().clone()
            continue
        normal = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        drawn[name] = law.mean + normal * (law.variance / fan_in) ** 0.5
    buffers = {name: b.detach() for name, b in model.named_buffers()}

    def outputs(parameters: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(model, {**parameters, **buffers}, (one.unsqueeze(0),)).reshape(-1)

    with torch.no_grad():
        f = vmap(outputs, (None, 0))(drawn, x)
    trained = {name: value for name, value in drawn.items() if name in used and used[name][0].rate}
    jacobian = vmap(jacrev(lambda p, one: outputs({**drawn, **p}, one)), (None, 0))(trained, x)
    ntk = sum(
        used[name][0].rate / used[name][1] * torch.einsum("ikp,jkp->ij", j.flatten(2), j.flatten(2)) / f.shape[1]
        for name, j in jacobian.items()
    )
    return f @ f.T / f.shape[1], ntk  # type: ignore[return-value]

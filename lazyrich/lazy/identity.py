"""Whose matrix it is: a hash of inputs and of the network between them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lazyrich.errors import KernelError, out_of_memory
from lazyrich.graph import Graph, Node, Ref
from lazyrich.lazy.combination import NAME
from lazyrich.lazy.kernel import Kernel
from lazyrich.lazy.weights import Weights

_SPREAD, _DRAWN = 4, 2  # samples of the probe: out of the data, and random ones


def identity_of(kernel: Kernel, x: Tensor, get: str) -> str:
    """A hash of the inputs, of the network's operations and laws, and of its kernel between a few inputs.

    The kernel is taken between samples spread over the data and random ones of their shape, since data may be blind to a
    network: zeros, or one sample many times. Token indices cannot be drawn; there the operations and laws must tell.

    Raises:
        KernelError: for a network without a kernel, or with one for every pair of output positions.

    Example:
        >>> import lazyrich as lzr
        >>> net, x = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)), torch.zeros(5, 3)
        >>> one, other = (identity_of(lzr.kernel(net, init=lzr.init.variance(w, 0.0)), x, "ntk") for w in (1.0, 2.0))
        >>> one == other
        False
    """
    if not isinstance(x, Tensor):
        raise KernelError(f"got inputs {type(x).__name__}, expected a tensor (N, ...); torch.as_tensor makes one")
    state = hashlib.sha256(f"{get} {tuple(x.shape)} {x.dtype}".encode())
    state.update(_bytes(x))
    state.update(json.dumps(_numbers(_probed(kernel, x, get))).encode())
    graph = kernel.traced(x[:1]).graph
    state.update(_words(graph, kernel.weights).encode())
    for name in sorted(graph.constants):
        state.update(_bytes(graph.constants[name]))
    return state.hexdigest()[:16]


def _probed(kernel: Kernel, x: Tensor, get: str) -> Tensor:
    spread = x[torch.linspace(0, len(x) - 1, min(_SPREAD, len(x)), dtype=torch.float64).round().long()].detach()
    if spread.is_floating_point():
        # in double, so that nine digits are the same with any number of threads
        drawn = torch.randn(_DRAWN, *x.shape[1:], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        try:
            return _square(kernel, torch.cat([spread.double(), drawn.to(x.device)]), get)
        except (KernelError, ArithmeticError, LookupError, ValueError, RuntimeError) as error:
            # a network may read no random numbers, as one that looks its inputs up in a table; but another time there is memory,
            # and then the same network would have another name
            if out_of_memory(error):
                raise
    return _square(kernel, spread, get)


def _square(kernel: Kernel, x: Tensor, get: str) -> Tensor:
    found = kernel(x, get=(get,))[0].detach().double().cpu()
    if found.dim() != 2:
        raise KernelError(
            f"got a network with outputs at {tuple(found.shape[2:])} positions, expected one number a pair of samples; end it "
            "with a readout (a mean over positions, or one of them), or stream kernel(x1, x2) by hand"
        )
    return found


def _numbers(square: Tensor) -> list[str]:
    """Variances to nine digits, covariances to nine digits of them: what cancels to zero is no more than rounding."""
    scale = square.diagonal().abs().sqrt().clamp_min(1e-150)
    covariances = (square / torch.outer(scale, scale)).round(decimals=9) + 0.0  # of no sign where it is zero
    return [f"{v:.9e}" for v in square.diagonal().tolist()] + [f"{v:.9f}" for v in covariances.flatten().tolist()]


def _words(graph: Graph, weights: Weights) -> str:
    """Operations with their numbers, and laws and rates of the tensors; where a rule stands no law that was only measured."""
    rows: list[Any] = [weights.scheme.name, weights.planned, sorted(weights.frozen), sorted(weights.rates.items())]
    rows += [[node.op, [_word(leaf) for leaf in tree_leaves((node.args, dict(node.kwargs)))]] for node in _written(graph)]
    rows += [[pattern, rule.w, rule.b] for pattern, rule in weights.init.items()]
    for name, law in weights.laws.items():
        if not law.noise or weights.rule(name) is None:
            rows.append([name, f"{law.mean:.9e}", f"{law.std:.9e}"])
    return json.dumps(rows)


def _written(graph: Graph) -> Iterator[Node]:
    """Operations as they were written, those behind a combination of positions too."""
    for node in graph:
        yield from node.target.nodes if node.op == NAME else ()
        yield node


def _word(leaf: Any) -> str:
    return repr(leaf) if isinstance(leaf, (Ref, bool, int, float, str, type(None))) else type(leaf).__name__


def _bytes(values: Tensor) -> memoryview:
    return values.detach().cpu().reshape(-1).view(torch.uint8).numpy().data

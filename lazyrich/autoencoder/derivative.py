"""Jacobians of a map at many samples, also of maps that cannot be stacked."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacfwd, jacrev, vmap

from lazyrich.errors import LazyrichError, out_of_memory

CHUNK = 64


def derivatives(one: Callable[[Tensor], Tensor], x: Tensor, forward: bool = False, chunk: int = CHUNK) -> Tensor:
    """The derivative at every sample, (samples, *outputs, *inputs); sample by sample where ``vmap`` cannot follow the map.

    Args:
        one: maps one sample.
        x: (samples, ...).
        forward: by forward mode, cheaper where the outputs are more than the inputs.
        chunk: samples at a time.

    Example:
        >>> derivatives(lambda v: v**2, torch.tensor([[1.0, 3.0]])).tolist()
        [[[2.0, 0.0], [0.0, 6.0]]]
    """
    x = x.detach()
    try:
        return vmap((jacfwd if forward else jacrev)(one), chunk_size=chunk)(x).detach()
    except (RuntimeError, LazyrichError) as error:
        if out_of_memory(error):
            raise
        # the map looks at its numbers, as a kernel does when it checks its inputs, or an index that depends on them
        return torch.stack([torch.autograd.functional.jacobian(one, sample) for sample in x]).detach()

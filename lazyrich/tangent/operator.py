"""The tangent kernel of a finite network by its products with vectors, never as a matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import jvp, vjp, vmap

from lazyrich.amount import counted
from lazyrich.errors import TangentError
from lazyrich.tangent.function import NetworkFunction, Parameters, differentiable, unremarked
from lazyrich.tangent.mixing import refuse_mixed
from lazyrich.tangent.refusals import refuse_frequency, refuse_hooks

_each = partial(vmap, randomness="same")  # draws from a generator of the network's own are the same in every direction


class NtkOperator:
    """Theta v = J D J^T v, one backward and one forward-mode pass over the samples a product.

    D holds the learning-rate factors. Entry n K + k of a vector belongs to output k of sample n, so it is the matrix
    ``ntk_of(model, x).transpose(1, 2).reshape(N K, N K)``. Memory is that of one block's passes and one set of parameters.
    ``lazyrich.inference`` takes it wherever it takes an operator: ``top_eigenpairs``, ``density``, ``conjugate_gradients``.

    The Gauss-Newton matrix of sum loss(f(x_n)) is J^T H J with H the loss's second derivative in the outputs; the Fisher
    information is the same for losses that are minus a log-likelihood of an exponential family in f. Under squared loss H = 1, and
    both share the eigenvalues of this operator beyond zeros.

    Args:
        model: any module that treats samples one by one; it stays as it is.
        x: samples (N, ...).
        rates: learning-rate factor by tensor name, 1 where it is not given.
        block: samples a pass.

    Raises:
        TangentError: for networks that mix samples or draw at random, and inputs or names that do not fit.

    Example:
        >>> from lazyrich.inference import top_eigenpairs
        >>> theta = NtkOperator(nn.Linear(3, 2, bias=False), torch.diag(torch.tensor([3.0, 2.0, 1.0])))
        >>> theta.shape, [round(v, 4) for v in top_eigenpairs(theta, 3)[0].tolist()]
        ((6, 6), [9.0, 9.0, 4.0])
    """

    def __init__(self, model: nn.Module, x: Tensor, rates: Mapping[str, float] | None = None, block: int = 256) -> None:
        block = counted("block", block, refusal=TangentError)
        self._function = NetworkFunction(model)
        self._function.real()
        refuse_frequency(model)
        refuse_hooks(model)
        self._function.check(x)
        x = x.detach()
        refuse_mixed(self._function, x, block=block)
        self._function.refuse_still(x)
        self._function.refuse_padding(x)
        self._factors = self._function.rates(rates)
        self._x, self._block = x, block
        self._like = self._function(self._function.parameters, x[:1]).detach()
        self.outputs = self._like.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(N K, N K)."""
        size = len(self._x) * self.outputs
        return size, size

    def matvec(self, v: Tensor) -> Tensor:
        """Theta v for v of shape (N K, R), in v's dtype; the passes run in the network's."""
        if not isinstance(v, Tensor):
            raise TangentError(f"got a vector of type {type(v).__name__}, expected a tensor; torch.as_tensor(v) makes one")
        if v.dim() != 2 or len(v) != self.shape[0]:
            raise TangentError(f"got a vector of shape {tuple(v.shape)}, expected ({self.shape[0]}, R): R columns, N K rows")
        if not v.is_floating_point():
            raise TangentError(f"got a vector of {v.dtype}, expected real numbers; call v.double()")
        with differentiable(self._function.model):
            step = {name: g * self._factors[name] for name, g in self.pull(v).items()}
            return self.push(step).to(v.dtype).to(v.device)

    @unremarked()
    def pull(self, v: Tensor) -> dict[str, Tensor]:
        """J^T v by tensor name, each (R, ...)."""
        total: dict[str, Tensor] = {}
        for at, x in self._blocks():
            signal = v[at].T.reshape(v.shape[1], len(x), self.outputs).to(self._like)
            _, back, *_ = vjp(lambda p, x=x: self._function(p, x), self._function.parameters)
            for name, g in _each(lambda s, back=back: back(s)[0])(signal).items():
                total[name] = total[name] + g if name in total else g  # not in place: of unused tensors it is one zero
        return total

    @unremarked()
    def push(self, step: Parameters) -> Tensor:
        """J s of R directions by tensor name, each (R, ...), as (N K, R)."""
        rows = []
        for _, x in self._blocks():
            forward = _each(lambda s, x=x: jvp(lambda p: self._function(p, x), (self._function.parameters,), (s,))[1])
            rows.append(forward(dict(step)).flatten(1).T)
        return torch.cat(rows)

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for i in range(0, len(self._x), self._block):
            x = self._x[i : i + self._block]
            yield slice(i * self.outputs, (i + len(x)) * self.outputs), x

"""A GPyTorch kernel of an infinitely wide network (the optional extra ``gp``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lazyrich.amount import real, unsigned
from lazyrich.errors import KernelError
from lazyrich.init import Initialiser, variance
from lazyrich.lazy.kernel import Kernel, kernel
from lazyrich.lazy.sample import sample_shape, shaped
from lazyrich.scaling import Scheme

try:
    from gpytorch.constraints import Positive  # type: ignore[missing-import]
    from gpytorch.kernels import Kernel as Base  # type: ignore[missing-import]
except ImportError:  # the class says so when it is made
    Base, Positive = nn.Module, None


class NetworkKernel(Base):  # type: ignore[misc,valid-type]
    """The NNGP or NTK of a network as a ``gpytorch.kernels.Kernel``; of the NNGP sigma_w^2 and sigma_b^2 are learnable.

    The variances w and b of all linear and convolutional layers (weights w / fan_in, biases b) are then parameters under a
    positivity constraint (``raw_w``, ``raw_b``), and gradients of the kernel reach them and the inputs. b = 0 stays fixed at
    zero, and so do both for the NTK, whose gradients reach the inputs alone. Wrap it in ``gpytorch.kernels.ScaleKernel`` for
    a learnable output scale, and take the noise of the likelihood; for a rectifier network without biases w and the output
    scale say the same. Set w and b by ``k.w = 1.2`` or ``k.initialize(w=1.2)``.

    Use it in double precision: Gram matrices of deep networks are close to singular.

    Args:
        network: any ``nn.Module`` with a kernel.
        get: "nngp" (Lee et al. 2018, arXiv:1711.00165) or "ntk" (Jacot et al. 2018, arXiv:1806.07572).
        w: sigma_w^2 to start from.
        b: sigma_b^2 to start from.
        learn: whether w and b are learnt; by default those of the NNGP are.
        scheme: a parameterisation in the kernel regime; ``ntk()`` by default.
        input_shape: shape of one sample as the network reads it; flat features by default.
        options: of ``gpytorch.kernels.Kernel``, such as ``active_dims``.

    Raises:
        KernelError: without GPyTorch, for another ``get``, for ``learn`` with the NTK, for inputs with batch axes or that do
            not fill ``input_shape``, or for a network that returns positions.

    Example:
        >>> import pytest; _ = pytest.importorskip("gpytorch")
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> k = NetworkKernel(net, w=2.0, b=0.0).double()
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
        >>> [[round(v, 4) for v in row] for row in k(x).to_dense().tolist()]
        [[1.0, 0.3183], [0.3183, 1.0]]
    """

    has_lengthscale = False

    def __init__(
        self,
        network: nn.Module,
        get: str = "nngp",
        w: float = 2.0,
        b: float = 0.1,
        learn: bool | None = None,
        scheme: Scheme | None = None,
        input_shape: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        if Positive is None:
            raise KernelError(
                "got no GPyTorch, expected it for this kernel; pip install -e 'path/to/lazyrich[gp]' (or pip install gpytorch)"
            )
        if get not in ("nngp", "ntk"):
            raise KernelError(f"got get={get!r}, expected 'nngp' or 'ntk'")
        if learn and get == "ntk":
            raise KernelError(
                "got learn=True with get='ntk', expected get='nngp': the variances of an NTK are fixed; leave learn out"
            )
        if options.get("batch_shape"):
            raise KernelError(
                f"got batch_shape={tuple(options['batch_shape'])}, expected none: there is one w and one b; make one kernel a batch"
            )
        start = {name: unsigned(name, value, KernelError) for name, value in (("w", w), ("b", b))}
        super().__init__(**options)
        self.get, self.input_shape = get, sample_shape(input_shape)
        object.__setattr__(
            self, "traced", kernel(network, scheme, variance(w, b))
        )  # the network is no submodule: its weights are drawn
        learn = get == "nngp" if learn is None else learn
        for name, value in start.items():
            self._register(name, value, learn and value > 0)

    def _register(self, name: str, value: float, learn: bool) -> None:
        if learn:
            self.register_parameter(f"raw_{name}", nn.Parameter(torch.tensor(value, dtype=torch.float64)))
            self.register_constraint(f"raw_{name}", Positive())  # type: ignore[not-callable]
            constraint = getattr(self, f"raw_{name}_constraint")
            self.initialize(**{f"raw_{name}": constraint.inverse_transform(torch.tensor(value, dtype=torch.float64))})
        else:
            self.register_buffer(f"fixed_{name}", torch.tensor(value, dtype=torch.float64))

    def _variance(self, name: str) -> Tensor:
        raw = getattr(self, f"raw_{name}", None)
        return getattr(self, f"fixed_{name}") if raw is None else getattr(self, f"raw_{name}_constraint").transform(raw)

    def _set(self, name: str, value: float | Tensor) -> None:
        learnt = hasattr(self, f"raw_{name}")
        least, number = "positive" if learnt else "not negative", real(value)
        if not 0 <= number < math.inf or (learnt and number == 0):
            said = f"{number:g}" if math.isfinite(number) else repr(value)
            raise KernelError(f"got {name} = {said}, expected a variance: finite and {least}")
        held = getattr(self, f"raw_{name}" if learnt else f"fixed_{name}")
        target = torch.as_tensor(number).to(held)
        if learnt:
            self.initialize(**{f"raw_{name}": getattr(self, f"raw_{name}_constraint").inverse_transform(target)})
        else:
            held.copy_(target)

    @property
    def w(self) -> Tensor:
        """sigma_w^2."""
        return self._variance("w")

    @w.setter
    def w(self, value: float | Tensor) -> None:
        self._set("w", value)

    @property
    def b(self) -> Tensor:
        """sigma_b^2."""
        return self._variance("b")

    @b.setter
    def b(self, value: float | Tensor) -> None:
        self._set("b", value)

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, last_dim_is_batch: bool = False, **options: Any) -> Tensor:
        """The Gram matrix (N1, N2), or its diagonal (N,)."""
        if x1.dim() != 2 or x2.dim() != 2 or last_dim_is_batch:
            raise KernelError(f"got inputs {tuple(x1.shape)} and {tuple(x2.shape)}, expected (N, features) without batch axes")
        made, same = self._kernel(), x1.shape == x2.shape and torch.equal(x1, x2)
        first = self._sample(x1)
        if diag and same:
            return _plain(made.diagonal(first, self.get), 1)
        found = _plain(made(first, None if same else self._sample(x2), get=(self.get,))[0], 2)
        return found.diagonal() if diag else found

    def _kernel(self) -> Kernel:
        """Under the variances of now: tensors where they carry a gradient, else numbers, which nothing has to keep."""
        w, b = (value if value.requires_grad else float(value) for value in (self.w, self.b))
        rule: Any = Initialiser(w, b)  # type: ignore[arg-type]
        return self.traced.reweighted(replace(self.traced.weights, init={"*": rule}))

    def _sample(self, x: Tensor) -> Tensor:
        """Inputs as the network reads them; gradients reach the variances only where they reach the inputs."""
        if torch.is_grad_enabled() and not x.requires_grad and list(self.parameters()):
            x = x.detach().requires_grad_()
        return shaped(x, self.input_shape)


def _plain(found: Tensor, axes: int) -> Tensor:
    """A Gram matrix or its diagonal, of a network with one output a sample."""
    if found.dim() != axes:
        raise KernelError(
            f"got a network with outputs at {tuple(found.shape[axes:])} positions, expected none; end it with a readout"
        )
    return found

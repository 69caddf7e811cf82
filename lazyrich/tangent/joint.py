"""Linear and quadratic term of a two-layer network trained together, with the linear term held to the kernel's top directions."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

from lazyrich.errors import TangentError
from lazyrich.tangent.ntk import refuse_large
from lazyrich.tangent.quadratic import Activation, Features, TwoLayerExpansion


class JointModel(TwoLayerExpansion):
    """f_L + f_Q around W = 0 (Nichani, Bai & Lee 2022, arXiv:2206.03688).

    Of a target that is a dense polynomial of degree k plus a low-rank one of degree k + 1, f_L fits the dense part along the top
    eigendirections of its tangent kernel, f_Q the low-rank part, so about d^k samples suffice where the kernel needs d^{k+1}.
    The linear term is kept to those directions by ``TangentDirections``. Rows w0_r are uniform on the unit sphere, units come in
    pairs, so the output starts at zero and any optimizer can train ``weight`` from there.

    Args:
        inputs: d; inputs with entries of variance about 1.
        width: m, even.
        activation: a name or a function; its second derivative must not vanish on average.
        seed: of w0.

    Raises:
        TangentError: for an activation without mean curvature, an odd width, or inputs that do not fit.

    Example:
        >>> model, x, y = JointModel(4, 64), torch.randn(20, 4), torch.randn(20, 1)
        >>> top, sgd = TangentDirections(model, x, top=4), torch.optim.SGD(model.parameters(), lr=1.0)
        >>> for _ in range(2):
        ...     sgd.zero_grad()
        ...     loss = (model(x) - y).square().mean() + 0.01 * top.outside_train() + 0.1 * top.outside(torch.randn(50, 4))
        ...     loss.backward()
        ...     sgd.step()
        >>> model(x).shape
        torch.Size([20, 1])
    """

    def __init__(self, inputs: int, width: int, activation: str | Activation = "shifted_sigmoid", seed: int = 0) -> None:
        super().__init__(inputs, width, activation, seed)
        self.w0 /= self.w0.norm(dim=1, keepdim=True)

    def forward(self, x: Tensor | Features) -> Tensor:
        """f_L(x) + f_Q(x), (N, 1)."""
        at = x if isinstance(x, Features) else self.features(x)
        return self.linear(at) + self.quadratic(at)


class TangentDirections:
    """The top eigendirections of f_L's tangent kernel on training inputs, and how large f_L is outside of them.

    With the Jacobian of f_L on the n inputs J = U S V^T (n, m d) and its first k right vectors V_k, the linear term's good part
    is V_k V_k^T W. Everything is computed from kernels of n samples: J itself is never made.

    Args:
        model: any two-layer expansion; its W at the time of a call is what is measured.
        x: training inputs (n, d).
        top: k, the directions that stay free; d of them carry a linear target.

    Raises:
        TangentError: for a k outside 1 .. the rank of J.

    Example:
        >>> model, x = JointModel(4, 64), torch.randn(20, 4)
        >>> TangentDirections(model, x, top=4).outside_train().item()  # W = 0
        0.0
    """

    def __init__(self, model: TwoLayerExpansion, x: Tensor, top: int) -> None:
        self.model = model
        self.at = model.features(x)
        refuse_large(8 * len(x) ** 2, f"the tangent kernel of {len(x)} inputs", "fewer of them")
        with torch.no_grad():
            values, vectors = torch.linalg.eigh(tangent_kernel(self.at, self.at).double())
        rank = int((values > values[-1] * len(values) * torch.finfo(self.at.x.dtype).eps).sum())
        if not isinstance(top, Integral) or isinstance(top, bool) or not 1 <= top <= rank:
            raise TangentError(
                f"got top={top!r}, expected 1 to {rank} of them, the rank of the tangent kernel on these {len(x)} inputs"
            )
        self.values = values.flip(0)[:top].to(self.at.x)
        self.vectors = vectors.flip(1)[:, :top].to(self.at.x)

    def outside_train(self) -> Tensor:
        """||J_large W||^2 / n, J_large = J without its top k directions: f_L's mean square on the training inputs off them."""
        f = self.model.linear(self.at)
        return (f - self.vectors @ (self.vectors.T @ f)).square().mean()

    def outside(self, x: Tensor | Features) -> Tensor:
        """R_1 = E_x[f_L(x; W - V_k V_k^T W)^2] over fresh inputs x (unlabelled ones will do)."""
        at = x if isinstance(x, Features) else self.model.features(x)
        return (self.model.linear(at) - self._inside(at)).square().mean()

    def _inside(self, at: Features) -> Tensor:
        """f_L(x; V_k V_k^T W) = K(x, X) U_k S_k^{-2} U_k^T f_L(X; W), as V_k = J^T U_k S_k^{-1}."""
        parts = self.vectors.T @ self.model.linear(self.at)
        return tangent_kernel(at, self.at) @ (self.vectors @ (parts / self.values[:, None]))


def tangent_kernel(a: Features, b: Features) -> Tensor:
    """The kernel of f_L, (1/m) sum_r sigma'(w0_r . x) sigma'(w0_r . x') (x . x'), (N1, N2).

    Example:
        >>> at = JointModel(4, 64).features(torch.randn(3, 4))
        >>> tangent_kernel(at, at).shape
        torch.Size([3, 3])
    """
    return (a.x @ b.x.T) * (a.slope @ b.slope.T)

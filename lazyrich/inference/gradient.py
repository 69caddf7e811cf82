"""Training a network in its lazy limit on the squared loss, solved mode by mode."""

from __future__ import annotations

import torch
from torch import Tensor

from lazyrich.errors import KernelError
from lazyrich.inference.flow import Flow
from lazyrich.inference.layout import Layout, check_starts, layout_of, precision
from lazyrich.inference.modes import Modes, modes_of
from lazyrich.inference.normalisation import loss_scale
from lazyrich.inference.response import response
from lazyrich.inference.times import Times, check_rate, check_ridge, times_of

KINDS = ("ntk", "ntkgp", "readout")


def gradient_flow(
    theta_dd: Tensor,
    y: Tensor,
    theta_td: Tensor | None = None,
    t: Times = float("inf"),
    *,
    lr: float = 1.0,
    loss: str = "sum",
    momentum: float = 0.0,
    discrete: bool = False,
    f0_train: Tensor | None = None,
    f0_test: Tensor | None = None,
    ridge: float = 0.0,
    kind: str = "ntk",
    k_dd: Tensor | None = None,
    k_td: Tensor | None = None,
    k_tt: Tensor | None = None,
) -> Flow:
    """Outputs of a network in its lazy limit, trained on the squared loss, at any time, exactly.

    f_t(X) = y + e^{-lr c Theta t} (f_0 - y),
    f_t(x) = f_0(x) + Theta(x, X) Theta^{-1} (I - e^{-lr c Theta t}) (y - f_0)
    (Jacot et al. 2018, arXiv:1806.07572; Lee et al. 2019, arXiv:1902.06720, eq. 8-11), with c the scale of the loss
    (``loss_scale``) and e^{-lr c Theta t} -> (I - lr c Theta)^t for gradient descent. Over initialisations f_0 ~ GP(0, K)
    the outputs are Gaussian at every t: with A_t = Theta(x, X) Theta^{-1} (I - e^{-lr c Theta t}),
    mean = A_t y,  covariance = K(x, x') + A_t K(X, X) A_t^T - A_t K(X, x') - K(x, X) A_t^T (Lee et al. 2019, eq. 14-15).

    Args:
        theta_dd: tangent kernel of the training inputs, (N, N) shared by the outputs, or (N, K, N, K).
        y: targets, (N,) or (N, K).
        theta_td: tangent kernel of test with training inputs, (M, N) or (M, K, N, K).
        t: one time or several, in steps; infinity allowed, and the default.
        lr: learning rate. With ``loss="sum"`` time is lr * t of the papers.
        loss: normalisation of the squared loss: "sum" (1/2 sum, the papers'), "mean" (1/(2N) sum), "mse" (torch's mean over
            samples and outputs), or "neural_tangents" (1/(2NK) sum).
        momentum: of the heavy ball in torch's form; in continuous time of the flow it follows (see ``response``).
        discrete: gradient descent with whole steps instead of gradient flow.
        f0_train: initial outputs on the training inputs, as ``y``; zeros by default. With ``k_dd``: the prior mean.
        f0_test: initial outputs on the test inputs.
        ridge: weight decay towards the initial weights: c ridge/2 ||w - w_0||^2 beside the loss. At infinity this is kernel
            ridge regression with Theta + ridge I.
        kind: "ntk": initial outputs vary as ``k_dd``, ``k_td``, ``k_tt`` say (a deep ensemble); "ntkgp" (a GP prior
            with covariance Theta, He et al. 2020, arXiv:2007.05864) and "readout" (only the last layer is trained: pass the
            NNGP Gram as theta): initial outputs vary as Theta itself, so only ``k_tt`` is needed, and the limit is
            a GP posterior.
        k_dd: NNGP Gram of the training inputs, for the ensemble's covariance.
        k_td: NNGP Gram of test with training inputs.
        k_tt: NNGP Gram of the test inputs (of Theta's own kind for "ntkgp" and "readout").

    Returns:
        The flow. Modes whose eigenvalue is rounding (below N eps lambda_max, with eps of theta_dd's dtype) are never learnt.

    Raises:
        KernelError: for inputs that do not fit, an indefinite theta, or the limit of steps that diverge.

    Example:
        >>> theta = torch.tensor([[2.0]])
        >>> flow = gradient_flow(theta, torch.tensor([1.0]), theta, t=[0, 1, 2], lr=0.25, discrete=True)
        >>> flow.train.T
        tensor([[0.0000, 0.5000, 0.7500]], dtype=torch.float64)
        >>> print(flow)
        gradient descent on 1 samples, loss sum, lr 0.25
        time 0           train_loss 0.5
        time 1           train_loss 0.125
        time 2           train_loss 0.03125
    """
    check_rate(lr, momentum)
    check_starts(theta_td, f0_train, f0_test)
    _check_kind(kind, theta_td, k_dd, k_td, k_tt)
    check_ridge(ridge)
    times, layout = times_of(t), layout_of(y, theta_dd, theta_td, k_dd, k_td)
    theta = layout.gram(theta_dd, "theta_dd")
    cross = None if theta_td is None else layout.cross(theta_td, "theta_td")
    targets, start = layout.columns(y, "y"), layout.columns(f0_train, "f0_train")
    modes, scale = modes_of(theta, "theta_dd", precision(theta_dd)), loss_scale(loss, layout.samples, layout.outputs)
    alpha = response(modes.values + ridge, times.reshape(-1), lr * scale, momentum, discrete)
    dual = modes.vectors @ (alpha[:, :, None] * (modes.vectors.T @ (targets - start)))
    train = start + theta @ dual
    if kind != "ntk":
        k_dd, k_td = (theta_dd, theta_td) if k_tt is not None or cross is None else (theta_dd, None)
    train_covariance, test_covariance = _covariances(layout, modes, alpha, cross, k_dd, k_td, k_tt)
    flow = "gradient descent" if discrete else "gradient flow"
    return Flow(
        times=times,
        train=_shaped(layout.restore(train), times),
        test=None if cross is None else _shaped(layout.restore(_test(layout, cross, dual, f0_test)), times),
        losses=(0.5 * scale * (train - targets).square().sum((1, 2))).reshape(times.shape),
        dual=_shaped(layout.restore(dual), times),
        train_covariance=None if train_covariance is None else _shaped(layout.restore_covariance(train_covariance), times),
        test_covariance=None if test_covariance is None else _shaped(layout.restore_covariance(test_covariance), times),
        title=f"{flow} on {layout.samples} samples, loss {loss}, lr {lr:g}" + (f", momentum {momentum:g}" if momentum else ""),
        layout=layout,
    )


def _test(layout: Layout, cross: Tensor, dual: Tensor, f0_test: Tensor | None) -> Tensor:
    rows = len(cross) // (layout.outputs if layout.full else 1)
    return layout.columns(f0_test, "f0_test", rows) + cross @ dual


def _covariances(
    layout: Layout,
    modes: Modes,
    alpha: Tensor,
    cross: Tensor | None,
    k_dd: Tensor | None,
    k_td: Tensor | None,
    k_tt: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    if k_dd is None:
        return None, None
    u, prior = modes.vectors, layout.gram(k_dd, "k_dd")
    inner = u.T @ prior @ u
    left = 1 - modes.values * alpha
    train = torch.stack([u @ (a[:, None] * inner * a) @ u.T for a in left])
    if cross is None or k_td is None or k_tt is None:
        return train, None
    rows = len(cross) // (layout.outputs if layout.full else 1)
    start, mixed = layout.square(k_tt, "k_tt", rows), layout.cross(k_td, "k_td") @ u
    if len(mixed) != len(cross):
        raise KernelError(f"got k_td for {len(mixed)} rows and theta_td for {len(cross)}, expected the same test inputs")
    return train, torch.stack([_test_covariance(start, mixed, inner, cross @ u * a) for a in alpha])


def _test_covariance(start: Tensor, mixed: Tensor, inner: Tensor, a: Tensor) -> Tensor:
    """K(x,x') + A K A^T - (A K(X,x') + its transpose), with A and K(x,X) in the eigenbasis."""
    overlap = a @ mixed.T
    return start + a @ inner @ a.T - overlap - overlap.T


def _shaped(values: Tensor, times: Tensor) -> Tensor:
    return values if times.ndim else values[0]


def _check_kind(kind: str, theta_td: Tensor | None, k_dd: Tensor | None, k_td: Tensor | None, k_tt: Tensor | None) -> None:
    if kind not in KINDS:
        raise KernelError(f"got kind {kind!r}, expected one of {', '.join(KINDS)}")
    if kind != "ntk" and (k_dd is not None or k_td is not None):
        raise KernelError(f"got k_dd or k_td with kind={kind!r}, expected theta alone: there the initial outputs vary as theta")
    given = [name for name, gram in (("k_dd", k_dd), ("k_td", k_td), ("k_tt", k_tt)) if gram is not None]
    if kind == "ntk" and given not in ([], ["k_dd"], ["k_dd", "k_td", "k_tt"]):
        raise KernelError(f"got {' and '.join(given)}, expected k_dd alone (covariance on train), or k_dd, k_td and k_tt")
    if theta_td is None and ("k_td" in given or "k_tt" in given):
        raise KernelError("got k_tt without theta_td, expected the tangent kernel of the same test inputs; pass theta_td=")

"""Random weight-tied autoencoders at infinite width (Li & Nguyen 2019, ICLR, "On random deep weight-tied autoencoders").

    xhat = phi_0(W_1^T phi_1(... W_L^T phi_L(W_L sigma_{L-1}(... W_1 sigma_0(x) + b_1 ...) + b_L) + v_L ...) + v_1),

W_l ~ N(0, sw^2 / n_{l-1}), n_l / n_{l-1} -> alpha. Each entry of what phi_0 sees is S_signal sigma_0(x) + S_noise z: a copy of the
input and independent noise. The paper prints the backward recursion for l = L-1 .. 2; it starts at l = L.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lazyrich.amount import real
from lazyrich.autoencoder.argument import check_samples, count
from lazyrich.errors import AutoencoderError

Phi = Callable[[Tensor], Tensor]
NODES = 128
REACH = 12.0  # standard deviations that integrals go to
TINY = 1e-300  # least spread
SMALL = 1e-16  # mean square at which the limit for inputs of zero is taken


@dataclass(frozen=True)
class TiedSignal:
    """What a random tied autoencoder returns: ``signal`` times its input plus ``noise`` times a standard Gaussian.

    Attributes:
        signal: S_signal.
        noise: S_noise, a standard deviation.
        variances: of the pre-activations on the way in, layers 1 to L.
    """

    signal: float
    noise: float
    variances: tuple[float, ...]

    @property
    def cosine(self) -> float:
        """Correlation of input and output before phi_0, for an input of mean square one."""
        return self.signal / math.hypot(self.signal, self.noise)


def tied_signal(
    phi: Phi, depth: int, weight: float, bias: float = 0.0, out_bias: float = 0.0, ratio: float = 1.0,
    mean_square: float = 1.0, decoder: Phi | None = None,
) -> TiedSignal:  # fmt: skip
    """S_signal and S_noise of a random tied autoencoder with equal layers.

    With beta = ratio * weight and s_l^2 the variances on the way in, gamma_{L+1} = E[z phi(s_L z)] / s_L and
    rho_{L+1} = E phi(s_L z)^2; then for l = L to 2, with M = beta gamma_{l+1} phi(s_{l-1} z) + sqrt(beta rho_{l+1} + out_bias) z',
    gamma_l = E[z phi(M)] / s_{l-1} and rho_l = E phi(M)^2. At last S_signal = beta gamma_2, S_noise^2 = beta rho_2 + out_bias.

    Args:
        phi: nonlinearity of the encoder; sigma_0 is the identity.
        depth: L, encoder layers.
        weight: sw^2.
        bias: variance of the encoder's biases.
        out_bias: variance of the decoder's biases.
        ratio: alpha = n_l / n_{l-1}.
        mean_square: of the input, ||x||^2 / n_0; the limit for inputs of zero.
        decoder: nonlinearity of the decoder, that of the encoder by default.

    Raises:
        AutoencoderError: for a depth below one or variances that are none.

    Example:
        >>> found = tied_signal(torch.relu, depth=1, weight=2.0)
        >>> round(found.signal, 4), round(found.noise, 4)  # gamma_2 = 1/2, rho_2 = tb^2 / 2 with tb^2 = 2
        (1.0, 1.4142)
    """
    depth = _checked(phi, decoder, depth)
    _refuse({"weight": weight, "ratio": ratio}, {"bias": bias, "out_bias": out_bias, "mean_square": mean_square})
    back = decoder or phi
    z, w = _gauss()
    mean_square = max(mean_square, SMALL)
    into, size = [mean_square], [mean_square]  # tau-bar^2 by layer; mean square of what enters the layer
    for layer in range(depth):
        entering = mean_square if layer == 0 else float((w * phi(math.sqrt(into[layer]) * z) ** 2).sum())
        size.append(entering)
        into.append(weight * entering + bias)
    root = math.sqrt(into[depth])
    gain = float((w * z * back(root * z)).sum()) / root
    power = float((w * back(root * z) ** 2).sum())
    for layer in range(depth, 1, -1):
        root = math.sqrt(into[layer - 1])
        spread = max(math.sqrt(ratio * weight * power + out_bias), TINY)
        mean = ratio * weight * gain * phi(root * z)
        gain = float((w * z * _moved(back, mean, spread)).sum()) / root
        power = float((w * _expected(lambda u: back(u) ** 2, mean, spread)).sum())
    return TiedSignal(ratio * weight * gain, math.sqrt(ratio * weight * power + out_bias), tuple(into[1:]))


@torch.no_grad()
def tied_draw(
    phi: Phi, x: Tensor, depth: int, weight: float, bias: float = 0.0, out_bias: float = 0.0, ratio: float = 1.0, seed: int = 0,
    decoder: Phi | None = None,
) -> TiedSignal:  # fmt: skip
    """The same two numbers measured on one random network: the referee, and what a finite width scatters by.

    Args:
        phi: nonlinearity of the encoder.
        x: one input, (n_0,).
        depth: encoder layers.
        weight: sw^2.
        bias: variance of the encoder's biases.
        out_bias: variance of the decoder's biases.
        ratio: n_l / n_{l-1}.
        seed: of the draw.
        decoder: nonlinearity of the decoder, that of the encoder by default.

    Raises:
        AutoencoderError: for an input that is not (n_0,) or zero, a depth below one, or variances that are none.

    Example:
        >>> x = torch.randn(2000, generator=torch.Generator().manual_seed(0))
        >>> abs(tied_draw(torch.relu, x / x.square().mean().sqrt(), 1, 2.0).signal - 1) < 0.1
        True
    """
    depth = _checked(phi, decoder, depth)
    _refuse({"weight": weight, "ratio": ratio}, {"bias": bias, "out_bias": out_bias})
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise AutoencoderError(f"got an input of {got}, expected a tensor of real numbers, (n_0,); pass x.float()")
    if x.dim() != 1 or not bool(x.any()):
        raise AutoencoderError(f"got an input of shape {tuple(x.shape)}, expected one, (n_0,), that is not zero: give x[0]")
    check_samples(x[None])
    draw = torch.Generator().manual_seed(1_000_003 * (seed + 1))  # not the stream of a caller's own x
    sizes = [round(len(x) * ratio**layer) for layer in range(depth + 1)]
    weights = [
        math.sqrt(weight / a) * torch.randn(b, a, generator=draw, dtype=x.dtype)
        for a, b in zip(sizes[:-1], sizes[1:], strict=True)
    ]
    h, variances = x, []
    for layer, matrix in enumerate(weights):
        h = matrix @ (h if layer == 0 else phi(h))
        h = h + math.sqrt(bias) * torch.randn(len(h), generator=draw, dtype=x.dtype)
        variances.append(float(h.square().mean()))
    for matrix in reversed(weights):
        h = matrix.T @ (decoder or phi)(h)
        h = h + math.sqrt(out_bias) * torch.randn(len(h), generator=draw, dtype=x.dtype)
    signal = float((h @ x) / (x @ x))
    return TiedSignal(signal, float((h - signal * x).square().mean().sqrt()), tuple(variances))


def _checked(phi: Phi, decoder: Phi | None, depth: int) -> int:
    """The depth, once it and the nonlinearities are what they should be."""
    for name, given in (("phi", phi), ("decoder", phi if decoder is None else decoder)):
        if not callable(given):
            raise AutoencoderError(f"got {name} {given!r}, expected a function of a tensor; pass such as torch.relu")
    return count(depth, "depth")


def _refuse(positive: dict[str, float], others: dict[str, float]) -> None:
    wrong = [f"{name} = {value!r}" for name, value in positive.items() if not 0 < real(value) < math.inf]
    wrong += [f"{name} = {value!r}" for name, value in others.items() if not 0 <= real(value) < math.inf]
    if wrong:
        raise AutoencoderError(
            f"got {', '.join(wrong)}, expected finite numbers: weight and ratio above zero, and bias, out_bias and "
            "mean_square, which are variances, of at least zero"
        )


def _moved(back: Phi, mean: Tensor, spread: float) -> Tensor:
    """E back(mean + spread z) - E back(spread z), without taking the difference of the two where the mean is small.

    In a deep stack the mean falls below the rounding of the spread, and the difference would lose the signal. Moving a Gaussian by
    r is weighting it by exp(r z - r^2 / 2), so the difference is E[back(spread z) expm1(r z - r^2 / 2)].
    """
    z, w = _gauss()
    r = (mean / spread)[:, None]
    small = r.clamp(-1, 1)
    weighted = (w * back(spread * z) * torch.expm1(small * z - small**2 / 2)).sum(1)
    far = _expected(back, mean, spread) - float((w * back(spread * z)).sum())
    return torch.where(r[:, 0].abs() <= 1, weighted, far)


def _expected(f: Phi, mean: Tensor, spread: float) -> Tensor:
    """E f(mean + spread z) for every mean, the integral split where the argument is zero."""
    z, w = _gauss(-mean / spread)
    return (w * f(mean[:, None] + spread * z)).sum(-1)


@functools.cache
def _legendre() -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return torch.tensor(nodes), torch.tensor(weights)


def _gauss(kink: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Nodes and weights of E f(z): Gauss-Legendre on both sides of the kink, zero by default, of a rectifier."""
    nodes, weights = _legendre()
    kink = torch.zeros((), dtype=torch.float64) if kink is None else kink.double()
    kink = kink.clamp(-REACH, REACH)[..., None]
    below, above = (kink + REACH) / 2, (REACH - kink) / 2  # half the lengths of the two parts
    z = torch.cat([below * (nodes + 1) - REACH, above * (nodes + 1) + kink], -1)
    w = torch.cat([below * weights, above * weights], -1)
    return z, w * torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)

"""Classes and their probabilities from a Gaussian prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from lazyrich.amount import counted, real
from lazyrich.errors import KernelError
from lazyrich.inference.layout import finite, tensor
from lazyrich.inference.targets import labels_of

_NODES = 96  # of the Gauss-Hermite rule; differences to 200 nodes are below 1e-6 for equal variances
_REACH = 9.0  # standard deviations that panels cover
_BLOCK = 2_000_000  # numbers held at a time
_TEMPERATURES = (1e-3, 1e3)


@dataclass(frozen=True)
class Probabilities:
    """A probability for every class of every sample.

    Attributes:
        probabilities: (M, C), rows sum to 1.
        labels: the most probable class, (M,).
        temperature: by which scores or deviations were scaled.
        method: "softmax" of the scores, or "gaussian".
    """

    probabilities: Tensor
    labels: Tensor
    temperature: float
    method: str

    def accuracy(self, labels: Tensor) -> float:
        """The part of the labels that is right.

        Raises:
            KernelError: for labels that do not fit.
        """
        return float((self.labels == self._truth(labels)).double().mean())

    def log_loss(self, labels: Tensor) -> float:
        """Minus the mean log probability of the labels, in nats.

        Raises:
            KernelError: for labels that do not fit.
        """
        return _log_loss(self.probabilities, self._truth(labels))

    def calibration_error(self, labels: Tensor, bins: int = 15) -> float:
        """Expected calibration error: |accuracy - confidence| averaged over bins of confidence (Guo et al. 2017).

        Raises:
            KernelError: for labels that do not fit, or bins that are no whole number above zero.
        """
        bins = counted("bins", bins, refusal=KernelError)
        confidence = self.probabilities.max(1).values
        gap = (self.labels == self._truth(labels)).double() - confidence
        bin_of = (confidence * bins).long().clamp_max(bins - 1)
        return float(torch.zeros(bins, dtype=torch.float64).index_add(0, bin_of, gap).abs().sum() / len(gap))

    def _truth(self, labels: Tensor) -> Tensor:
        labels = labels_of(labels)
        if len(labels) != len(self.labels) or int(labels.max()) >= self.probabilities.shape[1]:
            m, c = self.probabilities.shape
            raise KernelError(
                f"got {len(labels)} labels up to {int(labels.max())}, expected {m} from 0 to {c - 1}; give those of these samples"
            )
        return labels

    def __str__(self) -> str:
        confidence = float(self.probabilities.max(1).values.mean())
        m, c = self.probabilities.shape
        return f"{m} samples, {c} classes: mean confidence {confidence:.3f} ({self.method}, temperature {self.temperature:.3g})"


def classify(
    mean: Tensor,
    variance: Tensor | None = None,
    temperature: float = 1.0,
    held_out: tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor] | None = None,
) -> Probabilities:
    """Class probabilities from the predictions of a regression on one-hot targets.

    Without ``variance``: softmax(mean / T). With it: the probability that a class has the largest latent output,
    P_c = E_z prod_{j != c} Phi((mean_c + s_c z - mean_j)/s_j), s = T sqrt(variance), outputs independent, by
    quadrature. Predictions of a regression are not calibrated: fit T to predictions whose labels are known and that
    were not trained on (Guo et al. 2017, arXiv:1706.04599), such as those of ``leave_one_out``.

    Args:
        mean: predicted scores, (M, C).
        variance: of the prediction, (M,) shared by the classes or (M, C); add the noise for that of a noisy target.
        temperature: T; not used with ``held_out``.
        held_out: (mean, labels) or (mean, variance, labels) of held-out samples to fit T to, as the predictions.

    Raises:
        KernelError: for predictions that do not fit, a temperature that is not positive, or held-out labels that do not fit.

    Example:
        >>> scores = torch.tensor([[0.9, -0.1], [0.2, 0.3]])
        >>> classify(scores, temperature=0.1).labels.tolist()
        [0, 1]
        >>> print(classify(scores, variance=torch.tensor([0.1, 0.1])))
        2 samples, 2 classes: mean confidence 0.788 (gaussian, temperature 1)
    """
    mean, variance = _checked(mean, variance)
    if held_out is not None:
        temperature = _fitted_temperature(held_out, variance is not None)
    if not 0 < real(temperature) < float("inf"):
        raise KernelError(f"got temperature {temperature!r}, expected a positive number")
    probabilities = _probabilities(mean, variance, temperature)
    method = "softmax" if variance is None else "gaussian"
    return Probabilities(probabilities, probabilities.argmax(1), temperature, method)


def _probabilities(mean: Tensor, variance: Tensor | None, temperature: float) -> Tensor:
    if variance is None:
        return torch.softmax(mean / temperature, 1)
    s = temperature * variance.sqrt().clamp_min(1e-12 * (1 + float(mean.abs().max())))
    nodes = max(_NODES, 8 * (12 + 9 * mean.shape[1]))
    rows = max(1, _BLOCK // (nodes * mean.shape[1]))
    return torch.cat([_largest(m, d) for m, d in zip(mean.split(rows), s.split(rows), strict=True)])


def _largest(mean: Tensor, s: Tensor) -> Tensor:
    """The probability that each of independent Gaussians is the largest of its row."""
    alike = bool((s.amin(1) > s.amax(1) / 2).all())
    columns = []
    for c in range(mean.shape[1]):
        z, w = _smooth_nodes(mean) if alike else _stepped_nodes(mean, s, c)  # (1 or M, nodes)
        draw = mean[:, c, None] + s[:, c, None] * z
        below = torch.special.log_ndtr((draw[:, :, None] - mean[:, None, :]) / s[:, None, :])
        columns.append(((below.sum(2) - below[:, :, c]).exp() * w).sum(1))
    found = torch.stack(columns, 1)
    return found / found.sum(1, keepdim=True)


def _smooth_nodes(like: Tensor) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite nodes: enough where no class is much surer than another."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    z, w = (torch.as_tensor(v, dtype=like.dtype, device=like.device)[None] for v in (nodes, weights / math.sqrt(2 * math.pi)))
    return z, w


def _stepped_nodes(mean: Tensor, s: Tensor, c: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre panels for class c that follow the steps which surer classes make."""
    x, weight = (torch.as_tensor(v, dtype=mean.dtype, device=mean.device) for v in np.polynomial.legendre.leggauss(8))
    own = s[:, c, None]
    steps = torch.tensor([-8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0], dtype=mean.dtype, device=mean.device)
    splits = ((mean - mean[:, c, None]) / own)[:, :, None] + (s / own)[:, :, None] * steps
    grid = torch.linspace(-_REACH, _REACH, 13, dtype=mean.dtype, device=mean.device).expand(len(mean), -1)
    edges = torch.cat([grid, splits.flatten(1)], 1).clamp(-_REACH, _REACH).sort(1).values
    half = edges.diff(dim=1)[:, :, None] / 2
    z = (edges[:, :-1, None] + half * (1 + x)).flatten(1)
    return z, (half * weight).flatten(1) * torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _fitted_temperature(held_out: tuple[Tensor, ...], gaussian: bool) -> float:
    if len(held_out) != (3 if gaussian else 2):
        wanted = "(mean, variance, labels)" if gaussian else "(mean, labels)"
        raise KernelError(f"got {len(held_out)} held-out tensors, expected {wanted}, as the predictions")
    mean, variance = _checked(held_out[0], held_out[1] if gaussian else None)
    labels = labels_of(held_out[-1])
    if len(labels) != len(mean) or int(labels.max()) >= mean.shape[1]:
        raise KernelError(
            f"got {len(labels)} held-out labels up to {int(labels.max())}, expected {len(mean)} below {mean.shape[1]}"
        )

    def cost(log_temperature: float) -> float:
        return _log_loss(_probabilities(mean, variance, math.exp(log_temperature)), labels)

    bounds = tuple(math.log(t) for t in _TEMPERATURES)
    return math.exp(float(minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-4}).x))


def _log_loss(probabilities: Tensor, labels: Tensor) -> float:
    return float(-probabilities.gather(1, labels[:, None]).clamp_min(1e-300).log().mean())


def _checked(mean: Tensor, variance: Tensor | None) -> tuple[Tensor, Tensor | None]:
    mean = finite(tensor(mean, "mean"), "mean").detach()
    if mean.ndim != 2 or mean.shape[1] < 2 or not len(mean):
        raise KernelError(f"got mean of shape {tuple(mean.shape)}, expected (M, C) with at least two classes")
    if variance is None:
        return mean, None
    variance = finite(tensor(variance, "variance"), "variance").detach()
    if tuple(variance.shape) not in {(len(mean),), tuple(mean.shape)} or bool((variance < 0).any()):
        raise KernelError(
            f"got variance of shape {tuple(variance.shape)}, expected {(len(mean),)} or {tuple(mean.shape)}, none < 0"
        )
    return mean, (variance[:, None] if variance.ndim == 1 else variance).expand_as(mean)

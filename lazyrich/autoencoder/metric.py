"""What is measured of one trained autoencoder. A new metric is a function of ``Trained`` in ``METRICS``."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lazyrich.autoencoder.derivative import derivatives
from lazyrich.autoencoder.evaluated import evaluated
from lazyrich.autoencoder.iterated import iterate
from lazyrich.autoencoder.latent import codes, stretch
from lazyrich.autoencoder.mirror import mirrors
from lazyrich.autoencoder.pair import halves
from lazyrich.autoencoder.variational import Vae, collapse, importance_bound
from lazyrich.errors import AutoencoderError, LazyrichError, out_of_memory
from lazyrich.measure.movement import feature_movement
from lazyrich.tangent.features import features

FEW = 24  # samples of a metric that takes a Jacobian each
ITERATIONS = 100
SCORED = 200  # samples of the evidence bound
RIDGE = 1e-3
UNDEFINED = "undefined: "  # before the reason of a metric that has no meaning for a network, and no defect


@dataclass(frozen=True)
class Trained:
    """One network at three times, with data that it has not seen.

    Attributes:
        before: at the start.
        early: after a tenth of the steps.
        after: at the end.
        losses: before every step.
        x: held-out inputs, (samples, size).
        labels: their classes, if there are any.
        seen: training inputs.
        network: the trained network itself: of a variational one the others are its means.
    """

    before: nn.Module
    early: nn.Module
    after: nn.Module
    losses: tuple[float, ...]
    x: Tensor
    labels: Tensor | None
    seen: Tensor
    network: nn.Module | None = None


Metric = Callable[[Trained], float | None]
"""``metric(trained)``: one number of a network before, early in and after its training; None where it has no meaning."""


def unexplained(run: Trained) -> float:
    """Part of the held-out variance that is not reconstructed: sum |x - f(x)|^2 / sum |x - mean|^2."""
    with torch.no_grad():
        error = (run.after(run.x).flatten(1) - run.x).square().sum()
    return float(error / (run.x - run.seen.mean(0)).square().sum())


def delay(run: Trained) -> float | None:
    """Steps until the loss, averaged over five steps, has made half of its way to the best; None if it made none."""
    values = torch.tensor(run.losses, dtype=torch.float64)
    if len(values) < 5 or not bool(torch.isfinite(values).all()):
        return None
    smooth = values.unfold(0, 5, 1).mean(1)
    low = smooth <= (smooth[0] + smooth.min()) / 2
    return float(low.int().argmax()) + 2 if float(smooth.min()) < float(smooth[0]) else None


def probe_accuracy(run: Trained) -> float | None:
    """Accuracy of a ridge classifier on the codes: trained on one half of the held-out samples, asked on the other."""
    if run.labels is None or len(run.x) < 20:
        return None
    z = codes(halves(run.after)[0], run.x).double()
    z = torch.cat([(z - z.mean(0)) / z.std(0).clamp_min(1e-12), torch.ones(len(z), 1, dtype=z.dtype)], 1)
    half = len(z) // 2
    targets = nn.functional.one_hot(run.labels).double()
    gram = z[:half].T @ z[:half] + RIDGE * half * torch.eye(z.shape[1], dtype=z.dtype)
    guess = z[half:] @ torch.linalg.solve(gram, z[:half].T @ targets[:half])
    return float((guess.argmax(1) == run.labels[half:]).double().mean())


def code_dimension(run: Trained) -> float | None:
    """Participation ratio of the codes' covariance, (tr C)^2 / tr C^2: how many dimensions are used evenly.

    Plug-in, biased low by about k / samples; with hundreds of samples and tens of latents that is nothing.
    """
    z = codes(halves(run.after)[0], run.x).double()
    spectrum = torch.linalg.eigvalsh(torch.cov(z.T).reshape(z.shape[1], -1))
    return float(spectrum.sum() ** 2 / spectrum.square().sum()) if float(spectrum.sum()) > 0 else None


def stretching(run: Trained) -> float | None:
    """Geometric mean of the decoder's largest over its smallest singular value."""
    encoder, decoder = halves(run.after)
    found = stretch(decoder, codes(encoder, run.x[:FEW])).condition
    return found if math.isfinite(found) else None


def radius(run: Trained) -> float:
    """Median spectral radius of df/dx at training points; below one they attract, if they are reconstructed.

    df/dx = J_g J_u has the eigenvalues of J_u J_g, a matrix as small as the code.
    """
    encoder, decoder = halves(run.after)

    few = run.seen[:FEW]
    with torch.no_grad(), evaluated(run.after):
        code = encoder(few)
        inward = derivatives(lambda x: encoder(x.unsqueeze(0)).flatten(), few, chunk=8).flatten(2)
        outward = derivatives(lambda z: decoder(z.unsqueeze(0)).flatten(), code, forward=True, chunk=8).flatten(2)
    return float(torch.linalg.eigvals(inward @ outward).abs().amax(-1).median())


def settled(run: Trained) -> float:
    """Part of held-out samples whose iterates reach a fixed point or a short cycle within a hundred steps."""
    return iterate(run.after, run.x[:FEW], ITERATIONS, tolerance=1e-3).settled


def mirror_cosine(model: nn.Module, x: Tensor) -> float | None:
    """Mean cosine of decoder weights with the transposes of their mirror images; None where there are none."""
    try:
        found = mirrors(model, x[: max(FEW, 8)])
    except AutoencoderError:
        return None
    known = [m.weight for m in found if m.weight is not None]
    return sum(known) / len(known) if known else None


def mirror_correlation(run: Trained) -> float | None:
    """Mean unbiased CKA of what enters a layer of the encoder and what its mirror image in the decoder returns."""
    try:
        found = [m.correlation for m in mirrors(run.after, run.x)]
    except AutoencoderError:
        return None
    known = [c for c in found if c is not None and math.isfinite(c)]
    return sum(known) / len(known) if known else None


def moved(side: str, early: bool) -> Metric:
    """RMS movement of the features of a half's first layer, relative to their size at the start.

    Args:
        side: encoder, decoder, or code.
        early: after a tenth of the steps instead of all.
    """

    def movement(run: Trained) -> float | None:
        now = run.early if early else run.after
        if side == "code":
            a, b = (codes(halves(m)[0], run.x) for m in (run.before, now))
        else:
            path = _first(run.before, side)
            a, b = (features(m, run.x, [path])[path] for m in (run.before, now))
        return feature_movement(a, b) if float(a.norm()) > 0 else None

    return movement


def _first(model: nn.Module, side: str) -> str:
    half = halves(model)[0 if side == "encoder" else 1]
    path = next((path for path, m in half.named_modules() if getattr(m, "weight", None) is not None), None)
    if path is None:
        raise AutoencoderError(
            f"the {side} has no layer that holds a weight; for tied weights let two modules hold one tensor, as in "
            "lazyrich.zoo.tied_autoencoder"
        )
    return f"{side}.{path}".rstrip(".")


def active_latents(run: Trained) -> float | None:
    """Latents of a variational autoencoder whose posterior mean varies over the data."""
    return float(collapse(run.network, run.x).active) if isinstance(run.network, Vae) else None


def code_rate(run: Trained) -> float | None:
    """What the code of a variational autoencoder carries, E KL(q(z|x) || p(z)) in nats a sample."""
    return float(collapse(run.network, run.x).rates.sum()) if isinstance(run.network, Vae) else None


def evidence_bound(run: Trained) -> float | None:
    """Importance-weighted bound on log p(x) of held-out samples, in nats a sample, with a hundred draws each."""
    return float(importance_bound(run.network, run.x[:SCORED]).mean()) if isinstance(run.network, Vae) else None


METRICS: dict[str, Metric] = {
    "unexplained": unexplained,
    "probe": probe_accuracy,
    "delay": delay,
    "encoder early": moved("encoder", early=True),
    "decoder early": moved("decoder", early=True),
    "code early": moved("code", early=True),
    "encoder moved": moved("encoder", early=False),
    "code moved": moved("code", early=False),
    "mirror before": lambda run: mirror_cosine(run.before, run.x),
    "mirror after": lambda run: mirror_cosine(run.after, run.x),
    "mirror shared": mirror_correlation,
    "dimension": code_dimension,
    "stretch": stretching,
    "radius": radius,
    "settled": settled,
    "active latents": active_latents,
    "code rate": code_rate,
    "evidence bound": evidence_bound,
}


def measured(run: Trained, metrics: dict[str, Metric], failed: dict[str, str] | None = None) -> dict[str, float | None]:
    """Every metric of a run, in evaluation mode, without gradients of weights; None where it is undefined for network or data.

    A metric that fails is None too, so that a finished training is not lost; ``failed`` takes what it said, by its name, and why
    the library has one undefined.
    """
    found: dict[str, float | None] = {}
    with ExitStack() as looking, torch.no_grad():
        for model in (run.before, run.early, run.after, run.network):
            looking.enter_context(evaluated(model))
        for name, metric in metrics.items():
            try:
                value = metric(run)
            except torch.linalg.LinAlgError:
                value = None
            except LazyrichError as error:
                value = None
                if failed is not None:
                    failed[name] = f"{UNDEFINED}{(str(error).strip().splitlines() or [''])[0]}"
            except Exception as error:  # one's own code may raise anything
                if out_of_memory(error):
                    raise
                value = None
                if failed is not None:
                    said = (str(error).strip().splitlines() or [""])[0]
                    failed[name] = f"{type(error).__name__}{said and f': {said}'}"
            found[name] = None if value is None else _finite(name, value)
    return found


def _finite(name: str, value: Any) -> float | None:
    """The number that a metric returned, None where it is not finite."""
    try:
        number = None if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last: a tensor of several entries
        number = None
    if number is None:
        raise AutoencoderError(
            f"metric '{name}' returned {reprlib.repr(value)} of type {type(value).__name__}, expected a number, or None where it "
            "is undefined"
        )
    return number if math.isfinite(number) else None

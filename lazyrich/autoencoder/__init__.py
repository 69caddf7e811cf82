"""The autoencoder laboratory: halves, variational and denoising training, iteration, geometry, and the theory beside them."""

from lazyrich.autoencoder.iterated import Iterates, Memory, iterate, jacobian, memory, spectral_radius
from lazyrich.autoencoder.laboratory import study
from lazyrich.autoencoder.latent import Stretch, codes, stretch, used
from lazyrich.autoencoder.linear import LinearVae, Principal, linear_course, principal, subspace_angle
from lazyrich.autoencoder.metric import METRICS, Metric, Trained
from lazyrich.autoencoder.mirror import Mirror, mirrored, mirrors
from lazyrich.autoencoder.mirror_probe import MirrorProbe
from lazyrich.autoencoder.noise import noisy
from lazyrich.autoencoder.pair import Pair, fit, halves
from lazyrich.autoencoder.result import AutoencoderResult
from lazyrich.autoencoder.start import STARTS, Start, coupled, start_for, transposed
from lazyrich.autoencoder.tied import TiedSignal, tied_draw, tied_signal
from lazyrich.autoencoder.variational import Collapse, Vae, Variational, collapse, importance_bound, objective, plain, vae

__all__ = [
    "METRICS",
    "STARTS",
    "AutoencoderResult",
    "Collapse",
    "Iterates",
    "LinearVae",
    "Memory",
    "Metric",
    "Mirror",
    "MirrorProbe",
    "Pair",
    "Principal",
    "Start",
    "Stretch",
    "TiedSignal",
    "Trained",
    "Vae",
    "Variational",
    "codes",
    "collapse",
    "coupled",
    "fit",
    "halves",
    "importance_bound",
    "iterate",
    "jacobian",
    "linear_course",
    "memory",
    "mirrored",
    "mirrors",
    "noisy",
    "objective",
    "plain",
    "principal",
    "spectral_radius",
    "start_for",
    "stretch",
    "study",
    "subspace_angle",
    "tied_draw",
    "tied_signal",
    "transposed",
    "used",
    "vae",
]

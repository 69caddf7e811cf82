"""Infinite-width autoencoders with a finite bottleneck."""

from lazyrich.lazy.bottleneck.decoder import TrainedDecoder
from lazyrich.lazy.bottleneck.derivative import derivative_covariance
from lazyrich.lazy.bottleneck.drawn import DrawnFunction
from lazyrich.lazy.bottleneck.dynamics import BottleneckDynamics
from lazyrich.lazy.bottleneck.likelihood import LogLikelihood
from lazyrich.lazy.bottleneck.moment import Measured, dependence, homogeneous_dependence, homogeneous_kurtosis, kurtosis
from lazyrich.lazy.bottleneck.path import BottleneckPath
from lazyrich.lazy.bottleneck.prior import BottleneckPrior, Draws
from lazyrich.lazy.bottleneck.side import Side
from lazyrich.lazy.bottleneck.tangent import BottleneckTangents, bottleneck_ntk

__all__ = [
    "BottleneckDynamics",
    "BottleneckPath",
    "BottleneckPrior",
    "BottleneckTangents",
    "Draws",
    "DrawnFunction",
    "LogLikelihood",
    "Measured",
    "Side",
    "TrainedDecoder",
    "bottleneck_ntk",
    "dependence",
    "derivative_covariance",
    "homogeneous_dependence",
    "homogeneous_kurtosis",
    "kurtosis",
]

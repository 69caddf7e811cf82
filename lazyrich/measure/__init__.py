"""Measuring networks in training: update decomposition, slopes, verdicts and the coordinate check."""

import importlib
from typing import Any

from lazyrich.measure.alignment import AlignmentLine, AlignmentResult, LayerRatios, alignment_ratios, alignments
from lazyrich.measure.check import check
from lazyrich.measure.decompose import Decomposition, decompose
from lazyrich.measure.deep import check_depth
from lazyrich.measure.deep_result import DepthResult
from lazyrich.measure.dial import dial
from lazyrich.measure.dial_result import DialResult
from lazyrich.measure.initialisation import SignalLine, SignalResult, signals
from lazyrich.measure.limit_result import LimitResult
from lazyrich.measure.limit_study import limit
from lazyrich.measure.predict import Prediction, predict
from lazyrich.measure.result import CheckResult
from lazyrich.measure.slope import Slope, fit_slope
from lazyrich.measure.tangent_result import TangentResult
from lazyrich.measure.tangents import tangents
from lazyrich.measure.transfer import transfer
from lazyrich.measure.transfer_result import TransferResult
from lazyrich.measure.updates import UpdateProbe
from lazyrich.measure.verdict import Line, Overall

__all__ = [
    "AlignmentLine",
    "AlignmentResult",
    "CheckResult",
    "Decomposition",
    "DepthResult",
    "DialResult",
    "LayerRatios",
    "LimitResult",
    "Line",
    "Overall",
    "Prediction",
    "SignalLine",
    "SignalResult",
    "Slope",
    "TangentResult",
    "TransferResult",
    "UpdateProbe",
    "alignment_ratios",
    "alignments",
    "check",
    "check_depth",
    "decompose",
    "dial",
    "fit_slope",
    "limit",
    "predict",
    "signals",
    "tangents",
    "transfer",
]


def __getattr__(name: str) -> Any:
    if name == "feature":  # a room of its own, loaded on use
        return importlib.import_module("lazyrich.measure.feature")
    raise AttributeError(f"module 'lazyrich.measure' has no attribute '{name}'; it has {', '.join(['feature', *__all__])}")


def __dir__() -> list[str]:
    return sorted([*globals(), "feature"])

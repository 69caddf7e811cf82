"""The network that the user has, at its own width: tangent kernels, their hierarchy, and expansions around a point."""

from lazyrich.tangent.alignment import Alignments, LayerAlignment, align, layer_alignment, layer_kernels, target_alignment
from lazyrich.tangent.contraction import contracted, ntk_velocity
from lazyrich.tangent.design import Candidate, Designs, design
from lazyrich.tangent.early import EarlyModel, EarlyNetwork, EarlyTraining, early_model
from lazyrich.tangent.equilibrium import Equilibrium, equilibrium
from lazyrich.tangent.features import feature_kernel, features
from lazyrich.tangent.function import NetworkFunction
from lazyrich.tangent.higher import HigherKernels, higher_kernels
from lazyrich.tangent.joint import JointModel, TangentDirections
from lazyrich.tangent.laziness import Laziness, laziness
from lazyrich.tangent.ntk import ntk_of
from lazyrich.tangent.onset import Onset, onset
from lazyrich.tangent.operator import NtkOperator
from lazyrich.tangent.quadratic import QuadNTK, TwoLayerExpansion
from lazyrich.tangent.taylor import TaylorModel, linearize, taylor
from lazyrich.tangent.truncated import Hierarchy, hierarchy

__all__ = [
    "EarlyModel",
    "EarlyNetwork",
    "EarlyTraining",
    "early_model",
    "JointModel",
    "TangentDirections",
    "QuadNTK",
    "TwoLayerExpansion",
    "Alignments",
    "Candidate",
    "Designs",
    "Equilibrium",
    "Hierarchy",
    "HigherKernels",
    "LayerAlignment",
    "Laziness",
    "NetworkFunction",
    "NtkOperator",
    "Onset",
    "TaylorModel",
    "align",
    "contracted",
    "design",
    "equilibrium",
    "feature_kernel",
    "features",
    "hierarchy",
    "higher_kernels",
    "layer_alignment",
    "layer_kernels",
    "laziness",
    "linearize",
    "ntk_of",
    "ntk_velocity",
    "onset",
    "target_alignment",
    "taylor",
]

"""A network moving along gradients: derivatives in time of its outputs and of its tangent kernel, operation by operation."""

from lazyrich.tangent.motion.entries import moving_entries
from lazyrich.tangent.motion.kernel import moving_kernel
from lazyrich.tangent.motion.network import Motion, motion

__all__ = ["Motion", "motion", "moving_entries", "moving_kernel"]

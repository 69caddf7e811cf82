"""Data as tensors: digits, MNIST, Fashion-MNIST, arrays and data sets of one's own."""

from lazyrich.data.arrays import ArrayData
from lazyrich.data.load import load

__all__ = ["ArrayData", "load"]

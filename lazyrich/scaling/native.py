"""What an optimizer's own step already does to its size, so that a plan adds only the rest.

A scheme speaks of entrywise steps: every entry moves by the learning rate, in a direction that aligns with the features. An
optimizer whose step is normalised otherwise is asked for the same movement of the layer's output:

| optimizer | its step at rate 1 | the entrywise step that moves the output alike |
|---|---|---|
| adam, lion, signsgd | entries of size 1 | 1 |
| adafactor | entries of the size of the weights | std |
| muon | spectral norm sqrt(max(1, rows/columns)) | that / sqrt(fan_in fan_out) |
| muon_rms | spectral norm 0.2 sqrt(max(rows, columns)) | that / sqrt(fan_in fan_out) |
| shampoo | spectral norm 1 | 1 / sqrt(fan_in fan_out) |

The last three rows are the spectral condition of Yang, Simon & Bernstein 2023 (arXiv:2310.17813) when the scheme is muP. The
matrix optimizers take hidden matrices; embeddings, readouts, kernels and vectors stay on AdamW.

SOAP, Adam in the eigenbasis of Shampoo's factors, is in no row. Its step has entries of size 1 in a basis that turns with the
gradients, so its size depends on how many directions they have filled: a layer's output moves as n on samples that are few beside
the width and new to the basis, and about as n^(1/2) once the basis has seen as many as the width. No one exponent fits both.
"""

from __future__ import annotations

import math

from lazyrich.family import Role

MATRIX = ("muon", "muon_rms", "shampoo")
LAWLESS = {
    "soap": (
        "it steps as Adam in a basis that turns with the gradients, which asks for rates from n^-1 (few samples beside the width "
        "n) to about n^-1/2 (many). Plan for 'adamw', whose rates are the careful ones, or for 'shampoo' or 'muon'"
    ),
}
ADJUST = {"muon": "original", "muon_rms": "match_rms_adamw"}
Shape = tuple[int, ...]


def by_matrix(optimizer: str, role: Role, shape: Shape) -> bool:
    """Whether a tensor is stepped as a matrix: a hidden one with two axes, under an optimizer of matrices.

    Example:
        >>> by_matrix("muon", Role.HIDDEN, (8, 8)), by_matrix("muon", Role.OUTPUT, (2, 8))
        (True, False)
    """
    return optimizer in MATRIX and role is Role.HIDDEN and len(shape) == 2


def native_step(optimizer: str, role: Role, shape: Shape, base: Shape, shrink: float) -> float:
    """How the step of an optimizer at rate 1 differs between a shape and its base shape, as an entrywise step.

    Args:
        optimizer: its name.
        role: of the tensor.
        shape: in the model.
        base: at the base width.
        shrink: initial std in the model over the one at the base.

    Example:
        >>> native_step("muon", Role.HIDDEN, (64, 64), (16, 16), 0.5), native_step("muon_rms", Role.HIDDEN, (64, 64), (16, 16), 0.5)
        (0.25, 0.5)
    """
    if optimizer == "adafactor":
        return shrink
    if by_matrix(optimizer, role, shape):
        return _entry(optimizer, shape) / _entry(optimizer, base)
    return 1.0


def _entry(optimizer: str, shape: Shape) -> float:
    """Entry of the rank-one step that has the spectral norm of the optimizer's."""
    rows, columns = shape
    if optimizer == "muon":
        norm = math.sqrt(max(1.0, rows / columns))
    else:
        norm = math.sqrt(max(rows, columns)) if optimizer == "muon_rms" else 1.0
    return norm / math.sqrt(rows * columns)

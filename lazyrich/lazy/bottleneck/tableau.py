"""Explicit Runge-Kutta methods by their coefficients."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tableau:
    """Stages s_i from z + h sum_j a_ij z'_j, a step z + h sum_j b_j z'_j, and its error h sum_j (b - b*)_j z'_j.

    Attributes:
        a: rows of coefficients, the first empty.
        b: of the step.
        gap: b - b*, empty where no lower order is embedded.
        order: of the error estimate.

    Example:
        >>> abs(sum(DORMAND_PRINCE.b) - 1) < 1e-15
        True
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    gap: tuple[float, ...] = ()
    order: int = 1


EULER = Tableau(a=((),), b=(1.0,))

# Dormand & Prince 1980, RK5(4)7M
DORMAND_PRINCE = Tableau(
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
    gap=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    order=5,
)

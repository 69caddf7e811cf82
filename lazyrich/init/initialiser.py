"""A rule for the start of a weight: its size from its fans, and its form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lazyrich.errors import InitError
from lazyrich.init.form import Form

FANS: dict[str, Callable[[float, float], float]] = {
    "fan_in": lambda i, o: i,
    "fan_out": lambda i, o: o,
    "fan_avg": lambda i, o: (i + o) / 2,
    "spectral": lambda i, o: i * (1 + math.sqrt(i / o)) ** 2,  # so that the spectral norm is sqrt(fan_out / fan_in)
}


@dataclass(frozen=True)
class Initialiser:
    """Weights with variance ``w / fan`` (sigma_w^2 = w), biases with variance ``b`` (sigma_b^2 = b).

    The fan-in of a transposed convolution with stride is what an output position sums on average, in_channels times the kernel's
    entries over the strides' product; a depthwise kernel's is its own entries. So is the fan-out of a plain one with stride what an
    input position feeds on average; of groups either counts the channels of one.

    Attributes:
        w: None leaves the size to the plan.
        b: None leaves biases alone.
        fan: fan_in, fan_out, fan_avg or spectral.
        form: how entries are related; None keeps the factory's own draw.
    """

    w: float | None = None
    b: float | None = None
    fan: str = "fan_in"
    form: Form | None = None

    def __post_init__(self) -> None:
        for name, value in (("w", self.w), ("b", self.b)):
            if value is not None and not 0 <= value < math.inf:
                raise InitError(f"got {name} = {value}, expected a variance: finite and not negative")
        if self.fan not in FANS:
            raise InitError(f"got fan '{self.fan}', expected one of {', '.join(FANS)}")

    def weight_std(self, fan_in: float, fan_out: float) -> float | None:
        """Standard deviation of a weight, None where it is the plan's.

        Example:
            >>> Initialiser(2.0, fan="fan_avg").weight_std(100, 300)
            0.1
        """
        return None if self.w is None else math.sqrt(self.w / FANS[self.fan](fan_in, fan_out))

    @property
    def bias_std(self) -> float | None:
        """Standard deviation of a bias, None where it is the plan's."""
        return None if self.b is None else math.sqrt(self.b)

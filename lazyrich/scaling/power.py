"""Numbers that are powers of how much a tensor has grown since the base width."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Growth:
    """How much a tensor has grown since the base width: its fan-in, its fan-out, and the width of the whole network.

    Example:
        >>> Growth(fan_in=4.0, fan_out=1.0, width=4.0).is_base
        False
    """

    fan_in: float = 1.0
    fan_out: float = 1.0
    width: float = 1.0

    @property
    def is_base(self) -> bool:
        """Whether nothing has grown."""
        return self.fan_in == self.fan_out == self.width == 1.0


@dataclass(frozen=True)
class Power:
    """constant * fan_in^p * fan_out^q * width^s of a tensor's growth.

    Example:
        >>> Power(fan_in=-1)(Growth(fan_in=4.0, fan_out=4.0, width=4.0))
        0.25
    """

    constant: float = 1.0
    fan_in: float = 0.0
    fan_out: float = 0.0
    width: float = 0.0

    def __call__(self, growth: Growth) -> float:
        """The value at a growth."""
        return self.constant * growth.fan_in**self.fan_in * growth.fan_out**self.fan_out * growth.width**self.width

    def __mul__(self, other: Power) -> Power:
        return Power(
            self.constant * other.constant,
            self.fan_in + other.fan_in,
            self.fan_out + other.fan_out,
            self.width + other.width,
        )

    def __pow__(self, k: float) -> Power:
        return Power(self.constant**k, k * self.fan_in, k * self.fan_out, k * self.width)

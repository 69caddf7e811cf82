"""A scheme: a parameterisation as frozen numbers, and the exact symmetry that it is defined up to."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from lazyrich.amount import real
from lazyrich.errors import UsageError
from lazyrich.scaling.dichotomy import Verdict, classify
from lazyrich.scaling.exponents import Exponents, Layers
from lazyrich.scaling.optimizer import is_entrywise


@dataclass(frozen=True)
class Scheme:
    """A parameterisation: how initialisation and learning rate of each role scale with the width n.

    Attributes:
        name: how the scheme is written, for example ``mup()``.
        sgd: exponents under SGD, with or without momentum.
        entrywise: exponents under optimizers that act entry by entry (Adam, AdamW, sign methods).
        own_init: keep the initialisation that the factory itself scales (the plain network).
        global_rate: one learning rate for all tensors, n^-c, instead of one a role.
        gamma: constant richness: readout init divided by gamma, all other learning rates times gamma^2 (entrywise: gamma).
        taper: shrink the init of layers that narrow by sqrt(fan_out / fan_in) (Yang, Simon & Bernstein 2023).

    Example:
        >>> import lazyrich as lzr
        >>> lzr.mup().classify("sgd").regime
        'feature learning'
    """

    name: str
    sgd: Layers
    entrywise: Layers
    own_init: bool = False
    global_rate: bool = False
    gamma: float = 1.0
    taper: bool = False

    def __str__(self) -> str:
        ways = ", ".join(f"{self.classify(optimizer).regime} under {optimizer}" for optimizer in ("sgd", "adam"))
        return f"{self.name}: {ways}; `lazyrich scheme '{self.name}'` prints its exponents"

    def layers(self, entrywise: bool) -> Layers:
        """The exponents for SGD, or for entrywise optimizers."""
        return self.entrywise if entrywise else self.sgd

    def shift(self, theta: float | tuple[float, float, float]) -> Scheme:
        """The same training written in another gauge (Yang & Hu 2021, arXiv:2011.14522, Eq. (5)).

        Under SGD ``a -> a + theta, b -> b - theta, c -> c - 2 theta`` leaves f_t unchanged at every finite width; entrywise
        optimizers take ``c - theta, d + theta``. With one theta a layer it holds layer by layer.

        Example:
            >>> import lazyrich as lzr
            >>> lzr.mup().shift(0.5).sgd.output.init == lzr.mup().sgd.output.init
            True
        """
        several = tuple(theta) if isinstance(theta, (tuple, list)) else (theta,) * 3
        thetas = tuple(th if type(th) is int else real(th) for th in several)
        if len(thetas) != 3 or not all(map(math.isfinite, thetas)):
            raise UsageError(f"got theta = {theta!r}, expected a finite number, or three: input, hidden, output")

        def moved(layers: Layers, entrywise: bool) -> Layers:
            return Layers(*(row.shifted(th, entrywise) for row, th in zip(layers, thetas, strict=True)))

        return replace(
            self, name=f"{self.name}.shift({theta})", sgd=moved(self.sgd, False), entrywise=moved(self.entrywise, True)
        )

    def classify(self, optimizer: str = "sgd", hidden_layers: int = 2) -> Verdict:
        """Stable? trivial? lazy or rich? See ``lazyrich.scaling.dichotomy.classify``.

        Example:
            >>> import lazyrich as lzr
            >>> print(lzr.ntk().classify("sgd").why)
            r = 0.5 > 0: features move as n^-0.5 while the function moves, so training is a kernel method in the limit
        """
        entrywise = is_entrywise(optimizer)
        return classify(self.layers(entrywise), entrywise, hidden_layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Scheme:
        """The scheme that ``to_dict`` wrote.

        Raises:
            UsageError: if a key is missing or unknown.

        Example:
            >>> import lazyrich as lzr
            >>> Scheme.from_dict(lzr.ntk().to_dict()) == lzr.ntk()
            True
        """
        try:
            rows: dict[str, Any] = {
                key: Layers(**{k: Exponents(**v) for k, v in data[key].items()}) for key in ("sgd", "entrywise")
            }
            return cls(**{**data, **rows})
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"this is not a saved scheme: {error}") from error

"""A training run, and the protocol of what may watch it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import nn


@dataclass
class Run:
    """A training run so far: the live model, how many steps are done, the loss before each of them, and whether it blew up.

    ``engine`` says whether it was trained by itself ('loop') or stacked with others ('vmap').
    """

    model: nn.Module
    step: int = 0
    losses: list[float] = field(default_factory=list)
    diverged: bool = False
    engine: str = "loop"


class Probe(Protocol):
    """Looks at a run and leaves it as it was: weights, buffers, gradients and random generators.

    ``begin`` is called before the first step, ``after`` once each step is done (``run.step`` steps so far).
    """

    def begin(self, run: Run) -> None:
        """Look at the untrained network."""
        ...

    def after(self, run: Run) -> None:
        """Look at the network after ``run.step`` steps."""
        ...

"""Encoder against decoder while they train."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lazyrich.autoencoder.argument import check_samples, count
from lazyrich.autoencoder.mirror import Mirror, mirrors
from lazyrich.train.probe import Run


class MirrorProbe:
    """Reads every mirrored pair of an autoencoder every few steps: weight alignment, principal angles, what features share.

    Works on single runs and on members of ensembles alike.

    Args:
        x: samples.
        every: steps between readings.

    Raises:
        AutoencoderError: for what are no samples, or no count of steps.

    Example:
        >>> import torch
        >>> import lazyrich as lzr
        >>> x, net = lzr.data.load("digits").x, lzr.zoo.autoencoder(16)
        >>> probe, adam = MirrorProbe(x[:50], every=10), torch.optim.Adam(net.parameters(), lr=0.01)
        >>> run = lzr.train.train(net, adam, lambda step: (x[:50], x[:50]), torch.nn.functional.mse_loss, 20, probes=[probe])
        >>> [(row["step"], row["decoder"]) for row in probe.rows()][::2]
        [(0, 'decoder.readout'), (10, 'decoder.readout'), (20, 'decoder.readout')]
    """

    def __init__(self, x: Tensor, every: int = 10) -> None:
        self.x, self.every = check_samples(x, floating=False), count(every, "every")
        self.readings: list[tuple[int, Mirror]] = []

    def begin(self, run: Run) -> None:
        """Look at the untrained network."""
        self._look(run, 0)

    def after(self, run: Run) -> None:
        """Look every few steps."""
        if run.step % self.every == 0:
            self._look(run, run.step)

    def _look(self, run: Run, step: int) -> None:
        self.readings += [(step, pair) for pair in mirrors(run.model, self.x)]

    def rows(self) -> list[dict[str, Any]]:
        """One record a pair and reading."""
        return [{"step": step, **vars(pair)} for step, pair in self.readings]

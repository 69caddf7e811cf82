"""Training small networks deterministically, with probes that look and change nothing."""

from lazyrich.train.loop import train
from lazyrich.train.loss import Loss, loss_for
from lazyrich.train.probe import Probe, Run

__all__ = ["Loss", "Probe", "Run", "loss_for", "train"]

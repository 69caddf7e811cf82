"""Training small networks deterministically, with probes that look and change nothing."""

from lazyrich.train.ensemble import Engine, Member, engine_for, train_all
from lazyrich.train.loop import train
from lazyrich.train.loss import Loss, loss_for
from lazyrich.train.probe import Probe, Run

__all__ = ["Engine", "Loss", "Member", "Probe", "Run", "engine_for", "loss_for", "train", "train_all"]

"""Training small networks deterministically, with probes that look and change nothing."""

from lazyrich.train.alignment import AlignmentProbe
from lazyrich.train.ensemble import Engine, Member, engine_for, train_all
from lazyrich.train.flow import flow
from lazyrich.train.freezing import Alone, only, train_alone
from lazyrich.train.loop import rehearse, train
from lazyrich.train.loss import Loss, loss_for, wrong
from lazyrich.train.probe import Probe, Run

__all__ = [
    "AlignmentProbe",
    "Alone",
    "Engine",
    "Loss",
    "Member",
    "Probe",
    "Run",
    "engine_for",
    "flow",
    "loss_for",
    "wrong",
    "only",
    "rehearse",
    "train",
    "train_all",
    "train_alone",
]

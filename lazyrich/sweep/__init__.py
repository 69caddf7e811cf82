"""Grids of trials over any function: kept on disk as they finish, run here, in processes or on a cluster."""

from lazyrich.fingerprint import fingerprint
from lazyrich.sweep.executor import Executor, Futures, Inline, Processes, executor_for
from lazyrich.sweep.folder import RunFolder, kept
from lazyrich.sweep.grid import grid, part_of, shard_of
from lazyrich.sweep.optuna import Proposals
from lazyrich.sweep.results import Results
from lazyrich.sweep.store import Store, store_in
from lazyrich.sweep.summary import summarise
from lazyrich.sweep.sweep import sweep
from lazyrich.sweep.tracker import MLflow, TensorBoard, Tracker, Wandb, tracker_for
from lazyrich.sweep.trial import Outcome, Trial

__all__ = [
    "Executor",
    "Futures",
    "Inline",
    "MLflow",
    "Outcome",
    "Processes",
    "Proposals",
    "Results",
    "RunFolder",
    "Store",
    "TensorBoard",
    "Tracker",
    "Trial",
    "Wandb",
    "executor_for",
    "fingerprint",
    "grid",
    "kept",
    "part_of",
    "shard_of",
    "store_in",
    "summarise",
    "sweep",
    "tracker_for",
]

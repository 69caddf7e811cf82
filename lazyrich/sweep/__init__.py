"""Grids of trials over any function: kept on disk as they finish, run here, in processes or on a cluster."""

from lazyrich.sweep.executor import Executor, Futures, Inline, Processes, executor_for
from lazyrich.sweep.folder import RunFolder
from lazyrich.sweep.grid import grid, shard_of
from lazyrich.sweep.optuna import Proposals
from lazyrich.sweep.results import Results
from lazyrich.sweep.store import Store
from lazyrich.sweep.sweep import sweep
from lazyrich.sweep.trial import Outcome, Trial

__all__ = [
    "Executor",
    "Futures",
    "Inline",
    "Outcome",
    "Processes",
    "Proposals",
    "Results",
    "RunFolder",
    "Store",
    "Trial",
    "executor_for",
    "grid",
    "shard_of",
    "sweep",
]

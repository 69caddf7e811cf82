"""Where trials run: in this process, in supervised local processes, or on a Ray or Dask cluster, behind one seam."""

from lazyrich.sweep.executor.choose import executor_for
from lazyrich.sweep.executor.futures import Futures
from lazyrich.sweep.executor.inline import Executor, Inline
from lazyrich.sweep.executor.processes import Processes

__all__ = ["Executor", "Futures", "Inline", "Processes", "executor_for"]

"""Executors by name."""

from __future__ import annotations

from lazyrich.errors import SweepError
from lazyrich.sweep.executor.inline import Executor, Inline
from lazyrich.sweep.executor.processes import Processes


def executor_for(name: str = "inline", workers: int | None = None, retries: int = 2, timeout: float | None = None) -> Executor:
    """``inline``, ``processes``, ``ray``, ``ray://HOST:PORT``, ``ray://auto``, ``dask`` or ``dask://HOST:PORT``.

    Args:
        name: one of these.
        workers: of local processes or a local cluster; all cores by default.
        retries: how often a trial is tried again whose process died.
        timeout: seconds that a trial may take; local processes only.

    Raises:
        SweepError: for another name, or a cluster library that is not installed.

    Example:
        >>> type(executor_for("processes", workers=2)).__name__
        'Processes'
    """
    kind, _, address = name.partition("://")
    if timeout is not None and kind != "processes":
        raise SweepError(f"got a timeout for executor '{name}', expected --executor processes, which alone can end a trial")
    if name == "inline":
        return Inline()
    if name == "processes":
        return Processes(workers, retries, timeout)
    if kind == "dask":
        from lazyrich.sweep.executor.dask import Dask

        return Dask(address or None, workers)
    if kind == "ray":
        from lazyrich.sweep.executor.ray import Ray

        return Ray(address or None, workers, retries)
    raise SweepError(f"got executor '{name}', expected inline, processes, ray, ray://HOST:PORT, dask or dask://HOST:PORT")

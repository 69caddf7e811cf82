"""Executors by name."""

from __future__ import annotations

from lazyrich.errors import SweepError
from lazyrich.sweep.executor.inline import Executor, Inline
from lazyrich.sweep.executor.processes import Processes

RETRIES = 2


def executor_for(
    name: str = "inline", workers: int | None = None, retries: int | None = None, timeout: float | None = None
) -> Executor:
    """``inline``, ``processes``, ``ray``, ``ray://HOST:PORT``, ``ray://auto``, ``dask`` or ``dask://HOST:PORT``.

    Args:
        name: one of these.
        workers: of local processes or a local cluster; all cores by default.
        retries: how often a trial is tried again whose process died (2); local processes and Ray only.
        timeout: seconds that a trial may take; local processes only.

    Raises:
        SweepError: for another name, an option that the executor does not have, or a cluster library that is not installed.

    Example:
        >>> type(executor_for("processes", workers=2)).__name__
        'Processes'
    """
    kind, slashes, address = name.partition("://")
    if slashes and not address:
        raise SweepError(
            f"got executor '{name}' without a place, expected {kind}://HOST:PORT, or {kind} for this machine alone"
        )
    if timeout is not None and kind != "processes":
        raise SweepError(f"got a timeout for executor '{name}', expected --executor processes, which alone can end a trial")
    _refuse(name, kind, address, workers, retries)
    tries = RETRIES if retries is None else retries
    if name == "inline":
        return Inline()
    if name == "processes":
        return Processes(workers, tries, timeout)
    if kind == "dask":
        from lazyrich.sweep.executor.dask import Dask

        return Dask(address or None, workers)
    if kind == "ray":
        from lazyrich.sweep.executor.ray import Ray

        return Ray(address or None, workers, tries)
    raise SweepError(f"got executor '{name}', expected inline, processes, ray, ray://HOST:PORT, dask or dask://HOST:PORT")


def _refuse(name: str, kind: str, address: str, workers: int | None, retries: int | None) -> None:
    """An option that would be dropped is no option, and no workers run no trial."""
    if workers is not None and workers < 1:
        raise SweepError(f"got workers={workers}, expected at least 1, or none given for all cores")
    if workers is not None and (kind == "inline" or address):
        mend = "take processes, whose workers they are" if kind == "inline" else "start the cluster with as many"
        raise SweepError(f"got workers={workers} for executor '{name}', which starts none; {mend}")
    if retries is not None and kind in ("inline", "dask"):
        mend = ("set Dask's distributed.scheduler.allowed-failures, or " if kind == "dask" else "") + "take processes or ray"
        raise SweepError(f"got retries={retries} for executor '{name}', which does not count them; {mend}")

"""Where results come from: an object, a mapping, a list of either, or a run's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lazyrich.errors import ReportError
from lazyrich.report.autoencoder_result import AutoencoderPage, read_autoencoder
from lazyrich.report.depth_result import DepthPage, read_depth
from lazyrich.report.dial_result import DialPage, read_dial
from lazyrich.report.kernel_result import KernelResult, read_kernel
from lazyrich.report.limit_result import LimitPage, read_limit
from lazyrich.report.result import CheckResult, read_result
from lazyrich.report.signal_result import SignalPage, read_signals
from lazyrich.report.sweep_result import SweepPage, read_sweep
from lazyrich.report.tangent_result import TangentPage, read_tangent
from lazyrich.report.transfer_result import TransferPage, read_transfer

FILE = "result.json"


Result = (
    AutoencoderPage | CheckResult | DepthPage | DialPage | KernelResult | LimitPage | SignalPage | SweepPage | TangentPage
    | TransferPage
)  # fmt: skip
READERS = {
    "autoencoder": read_autoencoder,
    "depth": read_depth,
    "dial": read_dial,
    "kernel": read_kernel,
    "limit": read_limit,
    "signals": read_signals,
    "sweep": read_sweep,
    "tangent": read_tangent,
    "transfer": read_transfer,
}


def read_source(source: Any) -> tuple[Result, ...]:
    """Every result that a source holds, in its order.

    Args:
        source: a result (a mapping, or an object with ``to_dict()``), a list of results, or the path of a run
            folder that holds ``result.json`` (the file's own path will do).

    Returns:
        At least one result.

    Raises:
        ReportError: the source is empty, unreadable, or not a result; the message names the key or the path.

    Example:
        >>> read_source([])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        lazyrich.errors.ReportError: got an empty list, expected at least one result; ...
    """
    if isinstance(source, (str, os.PathLike)):
        file = _file(Path(source))
        return _read(_load(file), f"{file}: result")
    return _read(source, "result")


def _read(value: Any, path: str) -> tuple[Result, ...]:
    if isinstance(value, (list, tuple)):
        if not value:
            raise ReportError(_of(path, "got an empty list, expected at least one result; run lazyrich check first"))
        return tuple(_one(_mapping(item, f"{path}[{i}]"), f"{path}[{i}]") for i, item in enumerate(value))
    return (_one(_mapping(value, path), path),)


def _one(value: Mapping[str, Any], path: str) -> Result:
    return READERS.get(str(value.get("kind")), read_result)(value, path)


def _of(path: str, message: str) -> str:
    """A message with the file before it, where there is one."""
    return message if path == "result" else f"{path}: {message}"


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    to_dict = getattr(value, "to_dict", None)
    if callable(to_dict):
        given = to_dict()
        if isinstance(given, Mapping):
            return given
    raise ReportError(
        f"{path}: got {type(value).__name__}, expected a result; "
        "pass what lazyrich.check returned, its dictionary, or a run's folder"
    )


def _file(path: Path) -> Path:
    file = path / FILE if path.is_dir() else path
    if file.is_file():
        return file
    if path.is_dir():
        raise ReportError(
            f"got the folder {path} without {FILE}, expected a run's folder, as lazyrich's studies write it with --out"
        )
    raise ReportError(f"got {path}, which does not exist, expected a run's folder; check the path")


def _load(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"got {file}, which cannot be read ({error}), expected JSON; check the file") from error
    except ValueError as error:
        mend = "it is damaged: give the command that made it again" if file.name == FILE else "check the path"
        raise ReportError(f"got {file}, which is not JSON ({error}), expected a run's folder or its {FILE}; {mend}") from error

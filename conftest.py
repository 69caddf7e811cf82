"""Every test and every example draws the same numbers in every run, and files with examples are imported by their names."""

import contextlib
import gc
import importlib
from pathlib import Path

import pytest
import torch

from lazyrich import compiled

ROOT = Path(__file__).parent


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    compiled._done = 0  # whatever tests before have computed, the same loops are taken


def pytest_collect_file(file_path: Path) -> None:
    """Before pytest imports a file by its path: then that of lazyrich.inference.classify would hide the function classify."""
    if file_path.suffix == ".py" and ROOT / "lazyrich" in file_path.parents and not file_path.name.startswith("__"):
        with contextlib.suppress(ImportError):  # pytest reports those itself
            importlib.import_module(".".join(file_path.relative_to(ROOT).with_suffix("").parts))


def pytest_collection_finish() -> None:
    """Modules stay: the garbage collector, which traces of networks keep busy, need not look at them again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)

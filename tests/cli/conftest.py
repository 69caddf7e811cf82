"""A small finished run, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from lazyrich.cli import main


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    words = ["check", "lazyrich.zoo:mlp", "--base", "8", "--widths", "8", "16", "--seeds", "1", "--steps", "2"]
    assert main([*words, "--out", str(folder)]) == 0
    return folder

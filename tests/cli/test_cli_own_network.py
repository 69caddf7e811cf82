"""A user's own network, in a file of theirs, with a convolution, a norm and a tied layer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lazyrich.cli import main

NET = """
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(4, channels)
        self.mix = nn.Linear(channels, channels)
        self.again = nn.Linear(channels, channels)
        self.again.weight = self.mix.weight
        self.head = nn.Linear(channels, 10)

    def forward(self, x):
        h = F.relu(self.norm(self.conv(x))).mean(dim=(2, 3))
        return self.head(F.relu(self.again(F.relu(self.mix(h)))))


class ByHand(nn.Module):
    \"\"\"The decoder is the encoder's weight again; no module shows it.\"\"\"

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return F.conv_transpose2d(F.relu(self.norm(self.conv(x))), self.conv.weight, padding=1).flatten(1)
"""
SETTINGS = ["--images", "--base", "32", "--widths", "32", "64", "128", "256", "--seeds", "3"]


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("mynet.py").write_text(NET)
    return "mynet.py"


def result_of(*words: str) -> dict:
    assert main(["check", *words, *SETTINGS, "--out", "run"]) == 0
    return json.loads(Path("run/result.json").read_text())[0]


def verdicts(result: dict) -> dict[str, str]:
    return {line["layer"]: line["verdict"] for line in result["lines"] if line["verdict"]}


def test_mup_is_well_behaved_and_every_layer_is_listed(network: str) -> None:
    result = result_of(f"{network}:Net", "--scheme", "mup", "--optimizer", "adamw")
    assert result["verdict"]["word"] == "well-behaved"
    assert set(verdicts(result)) == {"conv", "norm", "mix", "again", "head"}


def test_standard_explodes_and_the_culprits_are_named(network: str) -> None:
    result = result_of(f"{network}:Net", "--scheme", "standard", "--optimizer", "adamw")
    assert result["verdict"]["word"] == "exploding"
    assert verdicts(result)["head"] == "exploding"
    assert verdicts(result)["conv"] != "exploding"
    assert any(m.startswith("head: ") and "learning rate must fall as 1/width" in m for m in result["verdict"]["mends"])
    assert any(m.startswith("mix: ") and "learning rate must fall as 1/width" in m for m in result["verdict"]["mends"])


def test_a_tie_made_by_hand_is_caught_at_the_function(network: str) -> None:
    result = result_of(f"{network}:ByHand", "--scheme", "mup", "--target", "input")
    assert result["verdict"]["word"] == "exploding"
    assert verdicts(result)["(function)"] == "exploding"
    assert verdicts(result)["conv"] == "well-behaved"
    slope = next(line["slope"] for line in result["lines"] if line["layer"] == "(function)" and line["verdict"])
    assert slope == pytest.approx(1, abs=0.15)
    assert "outside any layer" in result["verdict"]["mends"][0]

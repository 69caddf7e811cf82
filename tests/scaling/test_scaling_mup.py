"""muP as the package mup 1.0.0 has it, at four times the base width, tensor by tensor, in numbers that no gauge changes.

The referee is the package's rule written out: tensors with two growing axes are matrices (Adam's rate over the width ratio,
SGD's over fan-in by fan-out ratio), with one they are vectors (SGD's rate times the ratio); readouts are multiplied by one over
the ratio and drawn larger by its root, as are biases of layers whose fan-in grows.
"""

from __future__ import annotations

import pytest
from torch import nn

import lazyrich as lzr

BASE, RATIO = 16, 4


class BatchNormed(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, n, 3), nn.BatchNorm2d(n)
        self.second, self.norm2 = nn.Conv2d(n, 2 * n, 3), nn.BatchNorm2d(2 * n)
        self.readout = nn.Linear(2 * n, 10)

    def forward(self, x):
        h = self.norm2(self.second(self.norm(self.first(x)).relu())).relu()
        return self.readout(h.mean((2, 3)))


FAMILIES = {"mlp": lzr.zoo.mlp, "conv net with batch norm": BatchNormed, "untied transformer": lzr.zoo.transformer}


def by_mup(name, small, large, law):
    """(multiplier, standard deviation, Adam's rate, SGD's rate) of a tensor, relative to a rate of one at the base."""
    growth = [b / a for a, b in zip(small, large, strict=True)]
    grown = [g for g in growth if g != 1]
    readout = name == "readout.weight"
    if len(grown) == 2:
        return 1.0, law, 1 / grown[0], growth[0] / growth[1]
    if len(grown) == 1:
        return (1 / RATIO, law * RATIO**0.5, 1.0, RATIO) if readout else (1.0, law, 1.0, RATIO)
    return 1.0, law, 1.0, 1.0


@pytest.mark.parametrize("which", FAMILIES)
def test_invariants_are_those_of_the_package(which):
    family = lzr.Family(FAMILIES[which], base=BASE)
    small, large, laws = family.shapes(BASE), family.shapes(RATIO * BASE), family.laws(RATIO * BASE)
    adam, sgd = (lzr.plan(family, lzr.mup(), optimizer).settings(RATIO * BASE) for optimizer in ("adamw", "sgd"))
    for name in small:
        law = laws[name].std
        if name.endswith("bias"):  # rescaled by the package to what they are at the base
            law = family.laws(BASE)[name].std
        multiplier, std, adam_rate, sgd_rate = by_mup(name, small[name], large[name], law)
        assert adam[name].multiplier * adam[name].std == pytest.approx(multiplier * std, rel=1e-6), name
        assert sgd[name].std == pytest.approx(adam[name].std, rel=1e-6), name
        assert adam[name].multiplier * adam[name].lr == pytest.approx(multiplier * adam_rate, rel=1e-6), name
        assert sgd[name].multiplier ** 2 * sgd[name].lr == pytest.approx(multiplier**2 * sgd_rate, rel=1e-6), name
        for settings in (adam, sgd):
            assert settings[name].lr * settings[name].weight_decay == pytest.approx(1.0, rel=1e-6), name

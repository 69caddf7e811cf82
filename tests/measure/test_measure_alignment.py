"""Alignment ratios: where they are known, and their slopes in the width."""

import math

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import UsageError
from lazyrich.measure import alignment_ratios, alignments, fit_slope


class Stack(nn.Module):
    """Two layers, of which the second meets what the first has moved."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return self.second(self.first(x))


def states(net, move):
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    return before, {name: value + move(value) for name, value in before.items()}


@pytest.mark.parametrize(("norm", "order"), [("frobenius", "fro"), ("spectral", 2)])
def test_a_dense_layers_ratios_are_the_three_quotients(norm, order):
    torch.manual_seed(0)
    net, x = Stack(nn.Linear(5, 7), nn.Linear(7, 4)).double(), torch.randn(6, 5, dtype=torch.float64)
    before, after = states(net, lambda w: 0.1 * torch.randn_like(w))
    h = x @ before["first.weight"].T + before["first.bias"]
    dh = x @ after["first.weight"].T + after["first.bias"] - h
    w, dw = before["second.weight"], after["second.weight"] - before["second.weight"]
    found = alignment_ratios(net, before, after, x, norm)
    for name, matrix, met in (("weight", w, dh), ("update", dw, h), ("both", dw, dh)):
        quotient = (met @ matrix.T).norm() / (torch.linalg.matrix_norm(matrix, order) * met.norm())
        assert getattr(found["second"], name) == pytest.approx(float(quotient), rel=1e-9)
    assert math.isnan(found["first"].weight)  # the network's own input does not move
    assert list(found) == ["first", "second"]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_is_a_dense_layer_of_its_patches(groups):
    torch.manual_seed(0)
    conv, x = nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=groups), torch.randn(3, 4, 6, 6)
    before, after = states(conv, lambda w: 0.1 * torch.randn_like(w))
    change = (after["weight"] - before["weight"]).double().reshape(groups, 6 // groups, -1)
    patches = nn.functional.unfold(x.double(), 3, padding=1, stride=2).transpose(1, 2).reshape(-1, groups, 36 // groups)
    out = torch.einsum("ngi,goi->ngo", patches, change)
    quotient = out.norm() / (torch.linalg.matrix_norm(change, 2).max() * patches.norm())
    assert alignment_ratios(conv, before, after, x, "spectral")[""].update == pytest.approx(float(quotient), rel=1e-5)


def test_a_plans_multipliers_do_not_enter_and_tables_have_an_update_alone():
    plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=16), lzr.mup(), "sgd", gauge="multipliers")
    x = lzr.data.load("digits").x[:8]
    net = plan.build(128)
    before, after = states(net, lambda w: 0.01 * torch.randn_like(w))
    found = alignment_ratios(net, before, after, x)
    assert all(0 < ratios.update <= 1 for ratios in found.values())
    bare = plan.release_(net) or net
    again = alignment_ratios(bare, before, after, x)
    assert found[next(iter(found))].update == pytest.approx(again[next(iter(again))].update, rel=1e-6)
    table, ids = nn.Embedding(5, 3), torch.tensor([[0, 1], [1, 4]])
    ratios = alignment_ratios(table, *states(table, torch.ones_like), ids, "spectral")[""]
    assert ratios.update == pytest.approx(math.sqrt(12) / (math.sqrt(15) * 2), rel=1e-6)
    assert math.isnan(ratios.weight)


def test_gradients_stay_aligned_with_features_and_random_changes_do_not():
    plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=64), lzr.mup(), "sgd")
    widths = [64, 256, 1024]
    found = alignments(plan, "digits", widths=widths, steps=3, seeds=2, lr=0.1)
    hidden = [layer for layer, ratio in found.slopes if ratio == "update"][1]
    assert found.slopes[hidden, "update"].value == pytest.approx(0, abs=0.1)
    assert "0: fully aligned at any width" in str(found)
    values = {"frobenius": [], "spectral": []}
    for width in widths:
        torch.manual_seed(0)
        net, x = nn.Linear(width, width), torch.randn(16, width)
        before, after = states(net, torch.randn_like)
        for norm, row in values.items():
            row.append(alignment_ratios(net, before, after, x, norm)[""].update)
    assert fit_slope(widths, [values["frobenius"]]).value == pytest.approx(-0.5, abs=0.05)
    assert values["spectral"][-1] == pytest.approx(0.5, abs=0.05)  # the largest gain of a random matrix is twice its usual one


def test_states_of_another_network_are_refused():
    net = nn.Linear(3, 2)
    before, after = states(net, torch.ones_like)
    with pytest.raises(UsageError, match="got after that is not the network's state, expected its tensors by name"):
        alignment_ratios(net, before, {"other": after["weight"]}, torch.zeros(1, 3))
    with pytest.raises(UsageError, match="got norm = 'l1', expected one of 'frobenius', 'spectral'"):
        alignment_ratios(net, before, after, torch.zeros(1, 3), "l1")

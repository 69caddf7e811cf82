"""Training with all but one layer frozen, and alignment through training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import TrainError
from lazyrich.tangent.alignment import layer_alignment
from lazyrich.train.alignment import AlignmentProbe
from lazyrich.train.freezing import layers_of, only, train_alone
from lazyrich.train.loop import train
from lazyrich.train.loss import half_mse


def net(width: int = 12) -> nn.Module:
    return lzr.zoo.MLP(width, 2, inputs=4, outputs=3).double()


def data() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(10, 4, dtype=torch.float64)
    return x, torch.nn.functional.one_hot(torch.arange(10) % 3).double()


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


def test_only_one_layer_moves_in_each_run_and_the_start_stays() -> None:
    start, (x, y) = net(), data()
    before = {name: p.detach().clone() for name, p in start.named_parameters()}
    found = train_alone(start, sgd, lambda _: (x, y), half_mse, steps=5)
    assert list(found.runs) == ["hidden.0", "hidden.1", "readout"]
    for layer, run in (*found.runs.items(), ("", found.whole)):
        moved = {name.rpartition(".")[0] for name, p in run.model.named_parameters() if not torch.equal(p, before[name])}
        assert moved == ({layer} if layer else set(found.runs))
        assert all(p.requires_grad for p in run.model.parameters())
    assert all(torch.equal(p, before[name]) for name, p in start.named_parameters())
    assert found.best == min(found.runs, key=lambda layer: found.runs[layer].losses[-1])


def test_the_first_step_falls_by_the_layers_speed() -> None:
    """Loss after a small step: L - lr r^T K_l r / N^2."""
    start, (x, y) = net(), data()
    lr = 1e-6
    found = train_alone(start, lambda p: torch.optim.SGD(p, lr=lr), lambda _: (x, y), half_mse, steps=2)
    speeds = layer_alignment(start, x, y)
    for line, run in zip((*speeds.layers, speeds.whole), (*found.runs.values(), found.whole), strict=True):
        assert (run.losses[0] - run.losses[1]) / lr == pytest.approx(line.speed, rel=1e-4)


def test_what_was_frozen_before_stays_frozen() -> None:
    start = net()
    start.readout.bias.requires_grad_(False)
    assert layers_of(start) == ["hidden.0", "hidden.1", "readout"]
    with only(start, "readout") as parameters:
        assert [p is start.readout.weight for p in parameters] == [True]
        assert not start.hidden[0].weight.requires_grad
    assert start.hidden[0].weight.requires_grad
    assert not start.readout.bias.requires_grad
    with pytest.raises(RuntimeError), only(start, "readout"):
        raise RuntimeError
    assert start.hidden[0].weight.requires_grad


def test_a_networks_own_tensors_are_a_layer_with_a_name_for_people() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift, self.last = nn.Parameter(torch.zeros(4)), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(x + self.shift)

    start, (x, y) = Shifted().double(), data()
    told: list[str] = []
    found = train_alone(start, sgd, lambda _: (x, y), half_mse, steps=1, probes=lambda layer: told.append(layer) or [])
    assert list(found.runs) == ["(network)", "last"]
    for name in ("", "(network)"):
        alone = train_alone(start, sgd, lambda _: (x, y), half_mse, steps=1, layers=[name]).runs["(network)"]
        assert torch.equal(alone.model.shift, found.runs["(network)"].model.shift)
    with pytest.raises(TrainError, match=r"such as \['\(network\)'\]"):
        train_alone(start, sgd, lambda _: (x, y), half_mse, steps=1, layers=[])
    assert told == ["(network)", "last", ""]  # the last is the whole network
    assert str(found).splitlines()[1].startswith("(network)  ")
    with pytest.raises(TrainError, match=r"expected layers .*: \(network\), last"), only(start, "head"):
        pass


def test_probes_of_every_run_and_chosen_layers() -> None:
    start, (x, y) = net(), data()
    probes: dict[str, AlignmentProbe] = {}

    def watch(layer: str) -> list[AlignmentProbe]:
        probes[layer] = AlignmentProbe(x, y, every=2)
        return [probes[layer]]

    found = train_alone(start, sgd, lambda _: (x, y), half_mse, steps=4, layers=["hidden.1"], probes=watch)
    assert list(found.runs) == ["hidden.1"]
    assert list(probes) == ["hidden.1", ""]
    assert list(probes[""].records) == [0, 2, 4]
    assert [line.layer for line in probes["hidden.1"].records[4].layers] == ["hidden.1"]  # frozen ones have no kernel
    assert len(probes[""].records[4].layers) == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": ["head"]}, "'head'"),
        ({"layers": "readout"}, "got layers='readout', expected a list of module paths"),
        ({"layers": []}, "got layers=\\[\\], expected a list"),
        ({"steps": 0}, "steps = 0"),
        ({"steps": 2.5}, "steps = 2.5, expected a whole number"),
    ],
)
def test_bad_input(options: dict, says: str) -> None:
    x, y = data()
    with pytest.raises(TrainError, match="no layer"), only(net()):
        pass
    with pytest.raises(TrainError, match=says):
        train_alone(net(), sgd, lambda _: (x, y), half_mse, **{"steps": 2, **options})


def test_the_probe_looks_without_changing_the_run() -> None:
    (x, y), runs = data(), []
    for probes in ([], [AlignmentProbe(x, y, at=(0, 1, 3))]):
        torch.manual_seed(0)
        model = net()
        runs.append(train(model, sgd(list(model.parameters())), lambda _: (x, y), half_mse, 4, probes=probes))
    assert runs[0].losses == runs[1].losses
    probe = probes[0]
    assert list(probe.records) == [0, 1, 3]
    assert {row["step"] for row in probe.rows()} == {0, 1, 3}
    assert len(probe.rows()) == 3 * 4
    torch.manual_seed(0)
    assert probe.records[0] == layer_alignment(net(), x, y)
    rated = AlignmentProbe(x, y, rates={"readout.weight": 0.0, "readout.bias": 0.0})
    train(net(), sgd(list(net().parameters())), lambda _: (x, y), half_mse, 1, probes=[rated])
    torch.manual_seed(0)
    assert [layer.layer for layer in rated.records[0].layers if layer.share == 0] == ["readout"]
    with pytest.raises(TrainError, match="every = 0"):
        AlignmentProbe(x, y, every=0)
    with pytest.raises(TrainError, match=r"at = 5, expected the steps to look after, as \(5,\)"):
        AlignmentProbe(x, y, at=5)


def test_a_network_that_dies_in_training_is_watched_on() -> None:
    (x, y), probe, model = data(), AlignmentProbe(*data()), net()
    torch.nn.init.zeros_(model.readout.weight)
    model.readout.requires_grad_(False)
    run = train(model, sgd([p for p in model.parameters() if p.requires_grad]), lambda _: (x, y), half_mse, 2, probes=[probe])
    assert [found.whole.centred for found in probe.records.values()] == [0, 0, 0]
    assert len(run.losses) == 2


class Remembers(nn.Module):
    """Keeps its features, as networks do for looking at them."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.readout = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = self.hidden(x).tanh()
        return self.readout(self.last)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("make", [Remembers, lambda: nn.utils.weight_norm(nn.Linear(4, 3))])
def test_a_network_that_holds_results_of_its_last_forward_is_copied(make) -> None:
    start, (x, y) = make().double(), data()
    start(x)
    found = train_alone(start, sgd, lambda _: (x, y), half_mse, steps=2)
    assert all(run.losses[1] < run.losses[0] for run in (*found.runs.values(), found.whole))


def test_what_cannot_be_copied_is_refused() -> None:
    start, (x, y) = net(), data()
    start.running = (_ for _ in range(3))  # type: ignore[assignment]
    with pytest.raises(TrainError, match="cannot be copied"):
        train_alone(start, sgd, lambda _: (x, y), half_mse, steps=2)


class Detached(Remembers):
    """The first layer moves nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.readout(self.hidden(x).detach())


def test_a_layer_that_moves_nothing_is_named() -> None:
    start, (x, y) = Detached().double(), data()
    with pytest.raises(TrainError, match="with 'hidden' trained alone: the loss depends on nothing"):
        train_alone(start, sgd, lambda _: (x, y), half_mse, steps=2)
    assert list(train_alone(start, sgd, lambda _: (x, y), half_mse, steps=2, layers=["readout"]).runs) == ["readout"]

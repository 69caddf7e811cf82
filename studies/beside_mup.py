"""Where we differ from the package mup 1.0.0 on purpose: the same networks, trained by both, in one run.

    pip install mup==1.0.0 torchvision && python studies/beside_mup.py

mup wants its own readout layers. Networks that end in a convolution have none, recurrent layers keep initialisations that know
the width, a tied table is rescaled as a readout, and experts kept as one tensor (experts, out, in) are read by their first two
axes. Each network is trained for a few steps at widths 64 to 512; printed is the slope in the width, of what is named, of both.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

import mup
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lazyrich as lzr
from lazyrich.measure.slope import fit_slope

WIDTHS, BASE, STEPS, SAMPLES = (64, 128, 256, 512), 64, 4, 64


class ConvReadout(nn.Module):
    """A 1x1 convolution to the classes, then a mean over positions."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.first, self.second, self.readout = nn.Conv2d(1, n, 3), nn.Conv2d(n, n, 3), nn.Conv2d(n, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.second(F.relu(self.first(x))))
        return self.readout(h).mean((2, 3))


class Decoder(nn.Module):
    """A transposed convolution to the image."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, n, 2, stride=2), nn.Conv2d(n, n, 1)
        self.readout = nn.ConvTranspose2d(n, 1, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(F.relu(self.second(F.relu(self.first(x)))))


class Recurrent(nn.Module):
    """An LSTM over the rows of an image."""

    def __init__(self, n: int, readout: Callable[..., nn.Module] = nn.Linear) -> None:
        super().__init__()
        self.first = nn.LSTM(8, n, batch_first=True)
        self.readout = readout(n, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.first(x[:, 0])[0][:, -1])


class Tied(nn.Module):
    """A table of sixteen grey levels, read and returned: what comes next in a row."""

    def __init__(self, n: int, shared: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Embedding(17, n), nn.Linear(n, n)
        if shared:
            self.readout = mup.MuSharedReadout(self.first.weight, bias=False)
        else:
            self.readout = nn.Linear(n, 17, bias=False)
            self.readout.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.readout(h + torch.tanh(self.second(h)))


class Experts(nn.Module):
    """Four experts in one tensor (experts, out, in); sample i goes to expert i mod 4."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, n, n) / math.sqrt(n))

    def forward(self, h: Tensor) -> Tensor:
        return torch.einsum("boi,bi->bo", self.weight[torch.arange(len(h)) % 4], h)


class Mixture(nn.Module):
    """Experts between a first layer and a readout."""

    def __init__(self, n: int, readout: Callable[..., nn.Module] = nn.Linear) -> None:
        super().__init__()
        self.first, self.experts, self.readout = nn.Linear(64, n), Experts(n), readout(n, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(F.relu(self.experts(F.relu(self.first(x.flatten(1))))))


@dataclass(frozen=True)
class Case:
    """A network, the same with mup's layers, and what of it to look at: the update or the level of a module's output."""

    plain: Callable[[int], nn.Module]
    theirs: Callable[[int], nn.Module]
    what: str
    where: str
    optimizer: str = "adam"
    lr: float = 3e-3
    only: str = ""  # train tensors of this name alone
    next_pixel: bool = False


CASES = {
    "1x1 convolution as readout": Case(ConvReadout, ConvReadout, "update", "readout"),
    "transposed convolution as readout": Case(Decoder, Decoder, "update", "readout"),
    "LSTM": Case(Recurrent, lambda n: Recurrent(n, mup.MuReadout), "level", "first"),
    "tied table": Case(Tied, lambda n: Tied(n, shared=True), "level", "first", next_pixel=True),
    "experts in one tensor, SGD": Case(
        Mixture, lambda n: Mixture(n, mup.MuReadout), "update", "experts", "sgd", 0.3, only="experts.weight"
    ),
}


def batch(case: Case, seed: int) -> tuple[Tensor, Tensor]:
    x, y = lzr.data.load("digits", flatten=False).batch(SAMPLES, 0, seed)
    if case.next_pixel:
        levels = (4 * x[:, 0] - x.min() * 4).round().clamp(0, 16).long().flatten(1)
        return levels[:, :-1], levels[:, 1:]
    return (x, x) if case.plain is Decoder else (x, y)


def loss_of(out: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(out, y) if y.is_floating_point() else F.cross_entropy(out.flatten(0, -2), y.flatten())


def seen(model: nn.Module, where: str, x: Tensor) -> Tensor:
    found = []
    hook = model.get_submodule(where).register_forward_hook(
        lambda _m, _a, out: found.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad():
        model(x)
    hook.remove()
    return found[0]


def by_mup(case: Case, width: int, seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = case.theirs(width)
    mup.set_base_shapes(model, case.theirs(BASE), delta=case.theirs(2 * BASE))
    make = mup.MuAdam if case.optimizer == "adam" else mup.MuSGD
    return model, make(model.parameters(), lr=case.lr)


def by_plan(case: Case, width: int, seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    plan = lzr.plan(lzr.Family(case.plain, base=BASE), lzr.mup(), case.optimizer)
    model = plan.build(width, seed, meet=True)
    return model, plan.optimizer(model, lr=case.lr)


def size(case: Case, make: Callable[..., tuple[nn.Module, torch.optim.Optimizer]], width: int, seed: int) -> float:
    """RMS of what the case looks at."""
    model, optimizer = make(case, width, seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(case.only in name)
    x, y = batch(case, seed)
    before = seen(model, case.where, x)
    if case.what == "level":
        return float(before.square().mean().sqrt())
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model(x), y).backward()
        optimizer.step()
    return float((seen(model, case.where, x) - before).square().mean().sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    words = parser.parse_args()
    print(f"{'network':36}{'looked at':20}{'lazyrich':>16}{'mup':>16}")
    for name, case in CASES.items():
        slopes = []
        for make in (by_plan, by_mup):
            values = [[size(case, make, width, seed) for width in WIDTHS] for seed in range(words.seeds)]
            slopes.append(str(fit_slope(WIDTHS, values)))
        print(f"{name:36}{case.what + ' of ' + case.where:20}{slopes[0]:>16}{slopes[1]:>16}", flush=True)


if __name__ == "__main__":
    main()

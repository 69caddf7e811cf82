"""Plans beside the packages that they replace, and inside of other people's trainers; each wants its package."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lazyrich as lzr

pytestmark = pytest.mark.filterwarnings("ignore")
BASE, RATIO = 16, 4


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = lzr.data.load("digits").batch(32, step, 0)
    return x, y


def assert_alike(models, optimizers) -> None:
    """Losses of both agree step by step, in float64."""
    for step in range(6):
        x, y = batch(step)
        losses = []
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x.double()), y)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[0] == pytest.approx(losses[1], rel=1e-9), step


class WithReadout(nn.Module):
    def __init__(self, n, readout=nn.Linear):
        super().__init__()
        self.first, self.second, self.readout = nn.Linear(64, n), nn.Linear(n, n), readout(n, 10)

    def forward(self, x):
        return self.readout(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Normed(nn.Module):
    def __init__(self, n, readout=nn.Linear):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, n, 3), nn.BatchNorm2d(n)
        self.second, self.readout = nn.Conv2d(n, 2 * n, 3), readout(2 * n, 10)

    def forward(self, x):
        h = self.second(self.norm(self.first(x.reshape(-1, 1, 8, 8))).relu()).relu()
        return self.readout(h.mean((2, 3)))


def untied_transformer(n, readout=nn.Linear):
    model = lzr.zoo.transformer(n)
    model.readout = readout(n, 16, bias=False)
    return model


@pytest.mark.parametrize("net", [WithReadout, Normed, untied_transformer])
def test_a_plan_trains_as_the_package_mup_does(net):
    """Same weights through the gauge: the readout's multiplier moves into its weight, losses under Adam agree step by step."""
    mup = pytest.importorskip("mup", reason="mup is not installed")
    torch.manual_seed(0)
    theirs = net(RATIO * BASE, mup.MuReadout)
    mup.set_base_shapes(theirs, net(BASE, mup.MuReadout), delta=net(2 * BASE, mup.MuReadout))
    theirs = theirs.double()
    plan = lzr.plan(lzr.Family(net, base=BASE), lzr.mup(), "adam")
    ours = net(RATIO * BASE).double()
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        ours.readout.weight.div_(RATIO)
    table = plan.settings(ours)
    for name, p in theirs.named_parameters():  # drawn as the plan would have
        if p.dim() > 1:
            multiplier = 1 / RATIO if name.startswith("readout") else 1.0
            assert multiplier * float(p.detach().std()) == pytest.approx(
                table[name].std, rel=5 / math.sqrt(p.numel()) + 0.02
            ), name
    optimizers = (mup.MuAdam(theirs.parameters(), lr=0.01, eps=1e-30), plan.optimizer(ours, lr=0.01, eps=1e-30))
    assert_alike((theirs, ours), optimizers)


@pytest.mark.parametrize("width", [BASE, RATIO * BASE])
def test_a_plan_trains_as_unit_scaling_does(width):
    """docs/training.md, from unit-scaling: multipliers move into initialisation and rates."""
    uu = pytest.importorskip("unit_scaling", reason="unit-scaling is not installed")
    torch.manual_seed(0)
    tanh = nn.Tanh()
    theirs = nn.Sequential(uu.Linear(64, width), tanh, uu.Linear(width, width), tanh, uu.LinearReadout(width, 10)).double()

    def factory(n):
        return nn.Sequential(
            nn.Linear(64, n, bias=False), tanh, nn.Linear(n, n, bias=False), tanh, nn.Linear(n, 10, bias=False)
        )

    init = {"0.weight": lzr.init.lecun(), "2.weight": lzr.init.lecun(), "4.weight": 1 / BASE}
    overrides = {"0.weight": {"lr": BASE / 64}}
    plan = lzr.plan(lzr.Family(factory, base=BASE), lzr.mup(), "adam", init=init, overrides=overrides)
    ours, table = factory(width).double(), plan.settings(width)
    with torch.no_grad():
        for name, scale in (("0", 64**-0.5), ("2", width**-0.5), ("4", 1 / width)):
            ours.get_submodule(name).weight.copy_(scale * theirs.get_submodule(name).weight)
            assert table[f"{name}.weight"].std == pytest.approx(scale)
    rate = 0.3
    optimizers = (uu.optim.Adam(theirs.parameters(), lr=rate, eps=1e-30), plan.optimizer(ours, lr=rate / BASE, eps=1e-30))
    assert_alike((theirs, ours), optimizers)


def plain_losses(plan, width, steps, lr):
    model = plan.build(width, seed=1)
    optimizer, losses = plan.optimizer(model, lr=lr), []
    for step in range(steps):
        x, y = batch(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


class Batches(torch.utils.data.Dataset):
    def __len__(self):
        return 4 * 32

    def __getitem__(self, i):
        x, y = batch(i // 32)
        return {"x": x[i % 32], "labels": y[i % 32]}


def test_lightning_trains_a_plan(tmp_path):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")
    plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=16), lzr.mup(), "adamw")
    losses = []

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = plan.build(64, seed=1)

        def training_step(self, rows, index):
            loss = F.cross_entropy(self.model(rows["x"]), rows["labels"])
            losses.append(float(loss.detach()))
            return loss

        def configure_optimizers(self):
            return plan.optimizer(self.model, lr=3e-3)

    trainer = lightning.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                                accelerator="cpu", default_root_dir=tmp_path, enable_model_summary=False)  # fmt: skip
    trainer.fit(Module(), torch.utils.data.DataLoader(Batches(), batch_size=32))
    assert losses == pytest.approx(plain_losses(plan, 64, 4, 3e-3), rel=1e-5)


def test_hugging_faces_trainer_trains_a_plan(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=16), lzr.mup(), "adamw")
    losses = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = plan.build(64, seed=1)

        def forward(self, x, labels):
            loss = F.cross_entropy(self.model(x), labels)
            losses.append(float(loss.detach()))
            return {"loss": loss}

    net = Net()
    args = transformers.TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=32, max_steps=4, lr_scheduler_type="constant", report_to=[],
        save_strategy="no", use_cpu=True, max_grad_norm=0.0, disable_tqdm=True,
    )  # fmt: skip

    class Ordered(transformers.Trainer):
        def _get_train_sampler(self, *args):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    optimizer = plan.optimizer(net.model, lr=3e-3)
    Ordered(model=net, args=args, train_dataset=Batches(), optimizers=(optimizer, None)).train()
    assert losses == pytest.approx(plain_losses(plan, 64, 4, 3e-3), rel=1e-5)

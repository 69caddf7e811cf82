"""Losses step by step, float64, of a met plan: plain, copied, exported, compiled, sharded, and continued from a checkpoint."""

from __future__ import annotations

import copy
import io
import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import lazyrich as lzr

STEPS, WIDTH = 5, 32


class Net(nn.Module):
    """Residual branches that need a multiplier, a tied readout that needs one, and a norm."""

    def __init__(self, n, depth=4):
        super().__init__()
        self.embed = nn.Embedding(11, n)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(n), nn.Linear(n, 2 * n), nn.GELU(), nn.Linear(2 * n, n)) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(n)
        self.readout = nn.Linear(n, 11, bias=False)
        self.readout.weight = self.embed.weight

    def forward(self, tokens):
        h = self.embed(tokens)
        for block in self.blocks:
            h = h + block(h)
        return self.readout(self.norm(h))


def plan_of(optimizer):
    return lzr.plan(lzr.Family(Net, base=8, depth=4), lzr.mup(), optimizer, branches=["blocks.*"], base_depth=2)


def batch(step):
    return torch.randint(11, (6, 7), generator=torch.Generator().manual_seed(step))


def losses(model, optimizer, steps=range(STEPS)):
    found = []
    for step in steps:
        tokens = batch(step)
        loss = nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def start(plan):
    return plan.build(WIDTH, seed=3, meet=True).double()


@pytest.fixture(params=["adamw", "sgd", "muon"])
def made(request):
    plan = plan_of(request.param)
    model = start(plan)
    return plan, losses(model, plan.optimizer(model, 0.01))


@pytest.fixture
def group():
    """A process group of this process alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_the_obligations_matter_here(made):
    plan, plain = made
    bare = plan.build(WIDTH, seed=3).double()
    assert losses(bare, plan.optimizer(bare, 0.01)) != pytest.approx(plain, rel=1e-3)


def test_a_deepcopy(made):
    plan, plain = made
    model = copy.deepcopy(start(plan))
    assert losses(model, plan.optimizer(model, 0.01)) == plain


def test_an_export(made):
    """What is exported holds the multipliers in its graph, and trains by the plan under the same names."""
    plan, plain = made
    model = torch.export.export(start(plan), (batch(0)[:, :-1],), strict=False).module()
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in start(plan).named_parameters()}
    assert losses(model, plan.optimizer(model, 0.01)) == pytest.approx(plain, rel=1e-12)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_model(made):
    plan, plain = made
    model = start(plan)
    found = losses(torch.compile(model, backend="aot_eager", fullgraph=True), plan.optimizer(model, 0.01))
    assert found == pytest.approx(plain, rel=1e-12)
    wrapped = torch.compile(start(plan), backend="aot_eager")
    assert losses(wrapped, plan.optimizer(wrapped, 0.01)) == pytest.approx(plain, rel=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("when", ["before the plan's groups", "after"])
def test_data_parallel(made, group, when):
    plan, plain = made
    model = start(plan)
    optimizer = plan.optimizer(model, 0.01) if when == "after" else None
    wrapped = DistributedDataParallel(model)
    assert losses(wrapped, optimizer or plan.optimizer(wrapped, 0.01)) == pytest.approx(plain, rel=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_fully_sharded(made, group):
    """Groups are made of the sharded parameters: their names and shapes are the plan's."""
    plan, plain = made
    model = start(plan)
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)
    assert losses(model, plan.optimizer(model, 0.01)) == pytest.approx(plain, rel=1e-12)


def materialised():
    """Sharded on the meta device, then drawn in real memory, as models too large for one are."""
    with torch.device("meta"):
        model = Net(WIDTH)
        model.readout.weight = model.embed.weight
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    for module in model.modules():
        if hasattr(module, "reset_parameters") and module is not model.readout:
            module.reset_parameters()
    return model


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_is_sharded_before_it_is_drawn(made, group):
    plan, _ = made
    model = plan.apply_(materialised())
    wanted = plan.settings(WIDTH)
    for name, parameter in model.named_parameters():
        entries = parameter.full_tensor().detach()
        assert float(entries.std(correction=0)) == pytest.approx(wanted[name].std, rel=4 / entries.numel() ** 0.5), name
    plan.meet_(model)
    found = losses(model, plan.optimizer(model, 0.01))
    assert found[-1] < found[0]


def test_gradients_that_are_accumulated(made):
    """Two halves of a batch, each loss halved, step as the whole batch does; nothing of a plan knows of it."""
    plan, plain = made
    model = start(plan)
    optimizer, found = plan.optimizer(model, 0.01), []
    for step in range(STEPS):
        optimizer.zero_grad()
        parts = batch(step).split(3)
        halves = [nn.functional.cross_entropy(model(t[:, :-1]).flatten(0, 1), t[:, 1:].flatten()) / 2 for t in parts]
        for half in halves:
            half.backward()
        optimizer.step()
        found.append(sum(half.item() for half in halves))
    assert found == pytest.approx(plain, rel=1e-10)


def test_a_functional_call(made):
    plan, _ = made
    model, tokens = start(plan), batch(0)
    moved = {name: 2 * p.detach() for name, p in model.named_parameters()}
    found = torch.func.functional_call(model, moved, (tokens,))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2)
    assert torch.equal(found, model(tokens))


def test_autocast(made):
    """In bfloat16 the multipliers are there too: outputs are those of float64 to its three digits."""
    plan, _ = made
    model, tokens = start(plan), batch(0)
    wanted = model(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.float()(tokens)
    assert float(((found.double() - wanted).norm() / wanted.norm()).detach()) < 0.03


def test_a_checkpoint(made):
    plan, plain = made
    model = start(plan)
    optimizer = plan.optimizer(model, 0.01)
    first = losses(model, optimizer, range(2))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    again = plan.build(WIDTH, seed=99, meet=True).double()
    again.load_state_dict(kept["model"])
    other = plan.optimizer(again, 0.01)
    other.load_state_dict(kept["optimizer"])
    assert first + losses(again, other, range(2, STEPS)) == plain


RESUME = """
import sys, torch
import lazyrich as lzr
sys.path.insert(0, sys.argv[1])
from test_scaling_wrappers import STEPS, WIDTH, Net, losses
kept = torch.load(sys.argv[2], weights_only=True)
plan = lzr.Plan.load(sys.argv[3])
model = plan.meet_(Net(WIDTH).double())
model.load_state_dict(kept["model"])
optimizer = plan.optimizer(model, 0.01)
optimizer.load_state_dict(kept["optimizer"])
print(losses(model, optimizer, range(2, STEPS)))
"""


def test_a_checkpoint_in_a_fresh_process(tmp_path):
    """The plan comes from its file, without the family; the model from the user's own class."""
    plan = plan_of("adamw")
    model = start(plan)
    optimizer = plan.optimizer(model, 0.01)
    losses(model, optimizer, range(2))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pt")
    words = [os.path.dirname(__file__), str(tmp_path / "checkpoint.pt"), str(plan.save(tmp_path / "plan.json"))]
    done = subprocess.run([sys.executable, "-c", RESUME, *words], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == losses(model, optimizer, range(2, STEPS))


def test_an_average_of_weights(made):
    plan, _ = made
    model = start(plan)
    average = torch.optim.swa_utils.AveragedModel(model)
    tokens = batch(0)
    assert torch.equal(average(tokens), model(tokens))
    assert [group["lr"] for group in plan.param_groups(average, 0.01)] == [
        group["lr"] for group in plan.param_groups(model, 0.01)
    ]


def two(rank, port, out):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    plan = plan_of("adamw")
    model = start(plan)
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)
    found = losses(model, plan.optimizer(model, 0.01))  # all ranks see the same batch, so the mean gradient is its own
    if rank == 0:
        torch.save(found, out)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_fully_sharded_over_two_processes(tmp_path):
    plan = plan_of("adamw")
    model = start(plan)
    plain = losses(model, plan.optimizer(model, 0.01))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "losses.pt"
    both = [subprocess.Popen([sys.executable, __file__, str(rank), str(port), str(out)]) for rank in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert torch.load(out) == pytest.approx(plain, rel=1e-12)


if __name__ == "__main__":
    two(int(sys.argv[1]), sys.argv[2], sys.argv[3])

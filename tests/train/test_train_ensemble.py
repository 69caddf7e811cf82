"""Stacked members do what each would do alone, whoever is trained beside them."""

import re
import shutil
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lazyrich as lzr
from lazyrich.errors import TrainError
from lazyrich.train import Member, engine_for, train, train_all
from lazyrich.train.likeness import likeness
from lazyrich.train.optimizers import StackedOptimizer
from lazyrich.train.probe import Probe

X, Y = torch.randn(6, 16, 5, dtype=torch.float64), torch.randint(3, (6, 16))
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


def batches(step):
    return X[step % 6], Y[step % 6]


def other_batches(step):
    return X[-1 - step % 6], Y[-1 - step % 6]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.second.weight = self.first.weight
        self.out = nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.second(self.first(x).tanh()).tanh())


def test_members_of_one_model_and_optimizers_of_another_are_refused():
    model, other = (nn.Linear(5, 3).double() for _ in range(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for engine in ("vmap", "loop"):
        with pytest.raises(TrainError, match="members 0 and 1 train the same parameters; give each a copy"):
            train_all([Member(model, optimizer, batches)] * 2, F.cross_entropy, 1, engine=engine)
        with pytest.raises(TrainError, match="optimizer of member 1 holds no parameter of its model"):
            train_all([Member(m, optimizer, batches) for m in (model, other)], F.cross_entropy, 1, engine=engine)


NETWORKS = {
    "mlp": lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)),
    "batch norm": lambda: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(12, 3)
    ),
    "layer norm": lambda: nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.SiLU(), nn.Linear(8, 3)),
    "tied": Tied,
}
OPTIMIZERS = {
    "sgd": lambda m, lr, decay: torch.optim.SGD(m.parameters(), lr=lr, momentum=0.9, weight_decay=decay),
    "adam": lambda m, lr, decay: torch.optim.Adam(m.parameters(), lr=lr),
    "adamw groups": lambda m, lr, decay: torch.optim.AdamW(
        [{"params": [p for p in m.parameters() if p.dim() > 1], "weight_decay": decay},
         {"params": [p for p in m.parameters() if p.dim() < 2], "lr": 2 * lr}], lr=lr),
    "by tensor": lambda m, lr, decay: Normalised(m.parameters(), lr),
}  # fmt: skip


class Normalised(torch.optim.Optimizer):
    """Normalised by each tensor's own norm: not entry by entry, so members must not share a tensor."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad / (p.grad.norm() + 1e-3)


def members(network, optimizer, rates=(0.01, 0.03, 0.01, 0.1)):
    made = []
    for i, lr in enumerate(rates):
        torch.manual_seed(i)
        model = NETWORKS[network]().double()
        made.append(Member(model, OPTIMIZERS[optimizer](model, lr, 0.1 * (i % 2)), other_batches if i == 3 else batches))
    return made


def state(model):
    return {name: t.clone() for name, t in model.state_dict().items()}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_members_do_what_each_does_alone(network, optimizer):
    alone = members(network, optimizer)
    want = [train(m.model, m.optimizer, m.batches, F.cross_entropy, 8) for m in alone]
    together = members(network, optimizer)
    got = train_all(together, F.cross_entropy, 8, engine="vmap")
    for a, b, one, other in zip(want, got, alone, together, strict=True):
        assert b.losses == pytest.approx(a.losses, rel=1e-9)
        assert b.step == 8
        assert b.engine == "vmap"
        for name, tensor in one.model.state_dict().items():
            torch.testing.assert_close(other.model.state_dict()[name], tensor, rtol=1e-7, atol=1e-9)


def test_numbers_do_not_depend_on_the_chunks():
    found = []
    for chunk in (1, 2, 3, 4):
        some = members("mlp", "adam")
        runs = train_all(some, F.cross_entropy, 5, engine="vmap", chunk=chunk)
        found.append(([r.losses for r in runs], [state(m.model) for m in some]))
    for losses, states in found[1:]:
        assert losses == found[0][0]
        for one, other in zip(states, found[0][1], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)  # sums over a batch differ in their last bit


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_becomes_steps_where_a_gradient_is_nothing_else_and_nowhere_else(dtype):
    """A bias before a batch norm has no gradient: what Adam makes of its rounding is seen by evaluation in float32 only."""

    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)

    found = []
    for engine in ("vmap", "loop"):
        models = [network() for _ in range(2)]
        rates = zip(models, (0.003, 0.03), strict=True)
        some = [Member(m, torch.optim.Adam(m.parameters(), lr=lr), lambda s: (X[s].to(dtype), Y[s])) for m, lr in rates]
        train_all(some, F.cross_entropy, 5, engine=engine)
        found.append([(m.state_dict(), m.eval()(X[5].to(dtype)).detach()) for m in models])
    exact = {torch.float32: 1e-4, torch.float64: 1e-9}[dtype]
    for (one, f), (other, g) in zip(*found, strict=True):
        same = {name: torch.allclose(one[name].double(), other[name].double(), rtol=exact, atol=exact) for name in one}
        assert all(same[name] for name in one if name not in ("0.bias", "1.running_mean"))
        assert dtype is torch.float32 or torch.allclose(f, g, rtol=1e-7, atol=1e-9)


def test_a_member_that_diverges_retires_and_the_others_do_not_notice():
    def run(rates):
        some = members("mlp", "adam", rates)
        for m in some:
            m.optimizer.param_groups[0]["lr"] = float("nan") if m.optimizer.param_groups[0]["lr"] > 1 else 0.01
        return train_all(some, F.cross_entropy, 6, engine="vmap"), some

    (with_it, others), (without, alone) = run((0.01, 5.0, 0.01)), run((0.01, 0.01, 0.01))
    assert [r.diverged for r in with_it] == [False, True, False]
    assert with_it[1].step == 1
    assert len(with_it[1].losses) == 2
    for i in (0, 2):
        assert with_it[i].losses == pytest.approx(without[i].losses, rel=1e-12)
        torch.testing.assert_close(others[i].model[0].weight, alone[i].model[0].weight)


def test_training_can_be_continued_alone_with_the_optimizers_states():
    once, twice = members("mlp", "adam"), members("mlp", "adam")
    train_all(once, F.cross_entropy, 12, engine="vmap")
    train_all(twice, F.cross_entropy, 6, engine="vmap")
    for m in twice:
        train(m.model, m.optimizer, m.batches, F.cross_entropy, 6)
    for a, b in zip(once, twice, strict=True):
        torch.testing.assert_close(a.model[0].weight, b.model[0].weight, rtol=1e-8, atol=1e-10)
    assert twice[0].model[0].weight.untyped_storage().nbytes() == twice[0].model[0].weight.nbytes, "no views are left behind"


def test_probes_see_live_models():
    seen = []

    class Watch:
        def begin(self, run):
            seen.append(("begin", run.model[0].weight.detach().clone()))

        def after(self, run):
            seen.append((run.step, run.model[0].weight.detach().clone()))

    some = members("mlp", "sgd", (0.1, 0.1))
    start = some[1].model[0].weight.detach().clone()
    train_all([some[0], Member(some[1].model, some[1].optimizer, batches, [Watch()])], F.cross_entropy, 3, engine="vmap")
    assert [name for name, _ in seen] == ["begin", 1, 2, 3]
    assert torch.equal(seen[0][1], start)
    assert torch.equal(seen[-1][1], some[1].model[0].weight)
    assert not torch.equal(seen[1][1], seen[2][1])


def test_gradients_are_seen_by_probes_and_stay():
    found = {}

    class Watch:
        def begin(self, run):
            assert all(p.grad is None for p in run.model.parameters())

        def after(self, run):
            found.setdefault(engine, []).append([p.grad.clone() for p in run.model.parameters()])

    for engine in ("vmap", "loop"):
        first, second = members("mlp", "adam", (0.1, 0.2))
        train_all([first, replace(second, probes=[Watch()])], F.cross_entropy, 3, engine=engine)
        found[engine].append([p.grad for m in (first, second) for p in m.model.parameters()])
    assert [len(steps) for steps in found.values()] == [4, 4]
    for ours, alone in zip(*found.values(), strict=True):
        torch.testing.assert_close(ours, alone, rtol=1e-9, atol=1e-12)


def test_a_plans_groups_are_kept_member_by_member():
    family = lzr.Family(lzr.zoo.mlp, base=16)
    data = lzr.data.load("digits")
    runs = {}
    for engine in ("vmap", "loop"):
        some = []
        for lr in (0.01, 0.1):
            model = lzr.plan(family, lzr.mup(), "adam").build(32, seed=1)
            some.append(Member(model, lzr.plan(family, lzr.mup(), "adam").optimizer(model, lr=lr), lambda s: data.batch(32, s)))
        runs[engine] = train_all(some, F.cross_entropy, 5, engine=engine)
    for a, b in zip(runs["vmap"], runs["loop"], strict=True):
        assert a.losses == pytest.approx(b.losses, rel=1e-4)


def test_frozen_tensors_stay():
    some = []
    for m in members("mlp", "sgd", (0.1, 0.2)):
        m.model[0].weight.requires_grad_(False)
        trained = [p for p in m.model.parameters() if p.requires_grad]
        some.append(Member(m.model, torch.optim.SGD(trained, lr=0.1), batches))
    before = [m.model[0].weight.clone() for m in some]
    train_all(some, F.cross_entropy, 3, engine="vmap")
    assert all(torch.equal(b, m.model[0].weight) for b, m in zip(before, some, strict=True))


def test_models_that_differ_in_an_attribute_do_not_step_together():
    """Otherwise all would be trained with the first one's."""

    class Scaled(nn.Module):
        def __init__(self, gamma):
            super().__init__()
            self.gamma, self.inner = gamma, nn.Linear(5, 3)

        def forward(self, x):
            return self.inner(x) / self.gamma

    def some():
        made = []
        for gamma in (1.0, 10.0):
            torch.manual_seed(0)
            model = Scaled(gamma).double()
            made.append(Member(model, torch.optim.SGD(model.parameters(), lr=0.1), batches))
        return made

    assert likeness(Scaled(1.0)) != likeness(Scaled(2.0))
    trained, frozen = nn.Linear(2, 3), nn.Linear(2, 3)
    frozen.weight.requires_grad_(False)
    assert likeness(trained) != likeness(frozen)
    want = [train(m.model, m.optimizer, m.batches, F.cross_entropy, 3).losses for m in some()]
    got = [r.losses for r in train_all(some(), F.cross_entropy, 3, engine="vmap")]
    for a, b in zip(want, got, strict=True):
        assert b == pytest.approx(a, rel=1e-10)


class Holding(nn.Linear):
    """It keeps a value, or a buffer that it does not train."""

    def __init__(self, kept=None, buffer=None):
        super().__init__(2, 3)
        self.kept = kept
        self.register_buffer("mask", buffer)


def test_plain_values_count_with_their_kind_and_buffers_with_their_shape_and_dtype():
    for values in ((1, 1.0, True), ([1], (1,), [True]), ({"a": 1}, {"a": 1.0}, {"a": 2})):
        assert len({likeness(Holding(value)) for value in values}) == 3
    assert likeness(Holding({"a": [1, "x"]})) == likeness(Holding({"a": [1, "x"]}))
    buffers = (None, torch.ones(3), torch.ones(1), torch.ones(3, dtype=torch.bool), torch.ones(3, device="meta"))
    assert len({likeness(Holding(buffer=buffer)) for buffer in buffers}) == len(buffers)
    assert likeness(Holding(buffer=torch.ones(3))) == likeness(Holding(buffer=torch.zeros(3)))


@pytest.mark.parametrize(
    ("model", "name", "why"),
    [
        (nn.Linear(4, 4), "vmap", "small enough"),
        (nn.Linear(1024, 1024), "loop", "1,048,576 entries"),
        (nn.Sequential(nn.Linear(4, 4), nn.Dropout()), "loop", r"1 \(Dropout\) draws"),
        (nn.Sequential(nn.Linear(4, 4), nn.Dropout()).eval(), "vmap", "small"),
        (nn.LSTM(4, 4), "loop", r"the model \(LSTM\)"),
    ],
)
def test_the_engine_is_chosen_by_rule_and_says_why(model, name, why):
    found = engine_for(model)
    assert found.name == name
    assert re.search(why, found.why)


def test_hooks_are_kept_by_the_loop():
    model = nn.Linear(4, 4)
    model.register_forward_hook(lambda m, a, out: 2 * out)
    assert engine_for(model).name == "loop"


@pytest.mark.parametrize("engine", ["auto", "vmap", "loop"])
def test_what_is_no_member_no_batch_and_no_number_of_steps_is_refused(engine):
    some = members("mlp", "sgd", (0.1, 0.1))
    with pytest.raises(TrainError, match="got steps = 2.5, expected a whole number"):
        train_all(some, F.cross_entropy, 2.5, engine=engine)
    with pytest.raises(TrainError, match=r"got a member of type Sequential, expected Member\(model, optimizer, batches\)"):
        train_all([m.model for m in some], F.cross_entropy, 1, engine=engine)
    own = [Member(m.model, m.optimizer, lambda s: torch.zeros(4, 5).double()) for m in some]
    for alone in (own, [Member(m.model, m.optimizer, own[0].batches) for m in some]):
        with pytest.raises(TrainError, match=r"batches\(step\) gave Tensor, expected a pair"):
            train_all(alone, F.cross_entropy, 1, engine=engine)


def test_refusals_name_what_was_got():
    some = members("mlp", "sgd", (0.1, 0.1))
    with pytest.raises(TrainError, match="got engine='fast'"):
        train_all(some, F.cross_entropy, 1, engine="fast")
    with pytest.raises(TrainError, match="got chunk=0"):
        train_all(some, F.cross_entropy, 1, chunk=0)
    wrong = [
        Member(m.model, m.optimizer, lambda s: (torch.zeros(4, 7, dtype=torch.float64), torch.zeros(4).long())) for m in some
    ]
    with pytest.raises(TrainError, match=r"do not take the data.*\(2, 4, 7\)"):
        train_all(wrong, F.cross_entropy, 1, engine="vmap")
    with pytest.raises(TrainError, match="one number a member"):
        train_all(some, lambda f, y: F.cross_entropy(f, y, reduction="none"), 1, engine="vmap")
    assert some[0].model[0].weight.untyped_storage().nbytes() == some[0].model[0].weight.nbytes, (
        "given back also after an error"
    )


def test_progress_reaches_its_total_also_when_members_retire():
    seen = []
    some = members("mlp", "sgd", (0.1, 0.1))
    some[1].optimizer.param_groups[0]["lr"] = float("nan")
    train_all(some, F.cross_entropy, 4, engine="vmap", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (8, 8)


def small(seed: int, tied: bool | None = None) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Tanh(), nn.Linear(6, 6, bias=False))
    if tied:
        model[2].weight = model[0].weight
    return model


def regression(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(step)
    return torch.randn(16, 6, generator=g), torch.randn(16, 6, generator=g)


def square(f, y):
    return (f - y).square().mean()


def trained(engine, models, optimizers, steps=15, probes=()):
    runs = train_all(
        [Member(m, o, regression, probes) for m, o in zip(models, optimizers, strict=True)], square, steps, engine=engine
    )
    return runs, [[float(v) for v in m[0].weight.detach().flatten()[:4]] for m in models]


@pytest.mark.parametrize("kind", [lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), lambda p: torch.optim.Adam(p, 0.01)])
@pytest.mark.parametrize("ages", [(0, 30), (30, 0), (3, 30)])
def test_neighbours_of_other_ages_keep_their_states(kind, ages):
    found = {}
    for engine in ("loop", "vmap"):
        models = [small(i) for i in range(2)]
        optimizers = [kind(m.parameters()) for m in models]
        for model, optimizer, steps in zip(models, optimizers, ages, strict=True):
            train_all([Member(model, optimizer, regression)], square, steps, engine="loop")
        found[engine] = trained(engine, models, optimizers)[1]
    torch.testing.assert_close(found["vmap"], found["loop"], rtol=1e-5, atol=1e-6)


class Scheduled:
    """Steps a schedule of one optimizer after every step of its run."""

    def __init__(self, optimizer):
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 15)

    def begin(self, run):
        pass

    def after(self, run):
        self.schedule.step()


def test_schedules_are_followed_and_a_neighbours_divergence_changes_nothing():
    found = []
    for engine, other in (("loop", 0.1), ("vmap", 0.1), ("vmap", 1e38)):
        models = [small(i) for i in range(2)]
        optimizers = [torch.optim.SGD(m.parameters(), lr, momentum=0.9) for m, lr in zip(models, (0.2, other), strict=True)]
        members = [
            Member(models[0], optimizers[0], regression, (Scheduled(optimizers[0]),)),
            Member(models[1], optimizers[1], regression),
        ]
        runs = train_all(members, square, 15, engine=engine)
        found.append(runs[0].losses)
        assert optimizers[0].param_groups[0]["lr"] < 1e-8
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[2], found[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_tied_and_untied_networks_do_not_share_a_stack(order):
    found = {}
    for engine in ("loop", "auto"):
        models = [small(0, tied) for tied in order]
        found[engine] = trained(engine, models, [torch.optim.Adam(m.parameters(), 0.05) for m in models])[0]
    for one, other in zip(found["loop"], found["auto"], strict=True):
        torch.testing.assert_close(one.losses, other.losses, rtol=1e-5, atol=1e-6)


def test_hooks_and_what_does_not_vectorise_are_looped():
    clipped, stepped = small(0), small(0)
    clipped[0].weight.register_hook(lambda g: g.clamp(-1e-3, 1e-3))
    optimizer = torch.optim.SGD(stepped.parameters(), 1.0)
    optimizer.register_step_pre_hook(lambda *_: None)

    class Dropped(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 6)

        def forward(self, x):
            return nn.functional.dropout(self.a(x), 0.1, self.training)

    class Branching(Dropped):
        def forward(self, x):
            return self.a(x) if bool(self.a.weight.sum() > 0) else -self.a(x)

    plain = [
        (m, torch.optim.SGD(m.parameters(), 0.1)) for m in (clipped, Dropped(), Branching(), nn.Sequential(nn.Conv1d(6, 6, 1)))
    ]
    for model, own in [*plain, (stepped, optimizer)]:
        batches = regression if not isinstance(model[0] if isinstance(model, nn.Sequential) else model, nn.Conv1d) else (
            lambda step: tuple(t[:, :, None] for t in regression(step))
        )  # fmt: skip
        (run,) = train_all([Member(model, own, batches)], square, 2)
        assert run.engine == "loop"
    (run,) = train_all([Member(m := small(0), torch.optim.SGD(m.parameters(), 0.1), regression)], square, 2)
    assert run.engine == "vmap"


def test_an_optimizer_that_wants_a_closure_is_refused():
    model = small(0)
    with pytest.raises(TrainError, match="LBFGS"):
        train_all([Member(model, torch.optim.LBFGS(model.parameters()), regression)], square, 2)
    with pytest.raises(TrainError, match="LBFGS"):
        train_all([Member(model, torch.optim.LBFGS(model.parameters()), regression)], square, 2, engine="loop")
    with pytest.raises(TrainError, match="steps = -1, expected a whole number of at least 0"):
        train_all([Member(model, torch.optim.SGD(model.parameters(), 0.1), regression)], square, -1)


class Remembers(nn.Module):
    """A mean that the forward pass binds anew, or a count that it keeps."""

    def __init__(self, what):
        super().__init__()
        self.a, self.what, self.count = nn.Linear(5, 4), what, 0
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        h = self.a(x)
        if self.what == "count":
            self.count += 1
            return h * min(1.0, self.count / 4)
        self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        return h - self.mean


class Clipped(torch.optim.SGD):
    """Looks at all that it steps."""

    def step(self, closure=None):
        nn.utils.clip_grad_norm_([p for group in self.param_groups for p in group["params"]], 0.1)
        return super().step(closure)


def some_of(make, optimizer=torch.optim.SGD, extra=()):
    made = []
    for i in range(2):
        torch.manual_seed(i)
        model = make()
        made.append(Member(model, optimizer([*model.parameters(), *[e[i] for e in extra]], lr=0.1), drawn(i)))
    return made


def drawn(i):
    data = torch.Generator().manual_seed(i)
    x, y = torch.randn(8, 5, generator=data), torch.randn(8, 4, generator=data)
    return lambda step: (x, y)


@pytest.mark.parametrize("what", ["mean", "count"])
def test_what_a_forward_pass_keeps_is_each_members_own(what):
    runs, alone = (train_all(some_of(lambda: Remembers(what)), F.mse_loss, 6, engine=engine) for engine in ("auto", "loop"))
    assert [run.engine for run in runs] == ["loop", "loop"]
    assert [run.losses for run in runs] == [run.losses for run in alone]
    assert [run.model.count for run in runs] == [6 * (what == "count")] * 2  # the trial counted on a copy
    with pytest.raises(TrainError, match=f"changes '{what}' of the model .Remembers.*engine='auto'"):
        train_all(some_of(lambda: Remembers(what)), F.mse_loss, 6, engine="vmap")


def test_optimizers_of_ones_own_go_to_the_loop():
    runs = train_all(some_of(lambda: nn.Linear(5, 4), Clipped), F.mse_loss, 5)
    alone = train_all(some_of(lambda: nn.Linear(5, 4), Clipped), F.mse_loss, 5, engine="loop")
    assert [run.losses for run in runs] == [run.losses for run in alone]
    assert {run.engine for run in runs} == {"loop"}


def test_a_losss_own_parameter_is_trained():
    scales = [nn.Parameter(torch.zeros(())) for _ in range(2)]
    some = some_of(lambda: nn.Linear(5, 4), extra=[scales])
    assert {run.engine for run in train_all(some, lambda f, y: (-scales[0]).exp() * F.mse_loss(f, y) + scales[0], 4)} == {
        "loop"
    }
    assert abs(float(scales[0].detach())) > 1e-3
    with pytest.raises(TrainError, match="cannot be: its optimizer steps tensors that are none of the model's"):
        train_all(some, F.mse_loss, 1, engine="vmap")
    with pytest.raises(TrainError, match=r"members 0 and 1 train the same parameters.*of a loss's own"):
        train_all(some_of(lambda: nn.Linear(5, 4), extra=[[scales[0]] * 2]), F.mse_loss, 1)


def test_what_is_frozen_on_the_way_stays():
    class Freeze(Probe):
        def after(self, run):
            if run.step == 2:
                run.model.weight.requires_grad_(False)
                kept.append(run.model.weight.detach().clone())

    for engine in ("vmap", "loop"):
        kept = []
        runs = train_all(
            [replace(member, probes=[Freeze()]) for member in some_of(lambda: nn.Linear(5, 4))], F.mse_loss, 5, engine=engine
        )
        for run, weight in zip(runs, kept, strict=True):
            assert torch.equal(run.model.weight, weight)
            assert run.losses[-1] < run.losses[2]  # the bias goes on


def test_a_vector_for_a_weight_is_stacked():
    class Vector(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(5))

        def forward(self, x):
            return F.linear(x, self.w)

    def loss(f, y):
        return F.mse_loss(f, y[:, 0])

    found, alone = (train_all(some_of(Vector), loss, 3, engine=engine) for engine in ("auto", "loop"))
    assert {run.engine for run in found} == {"vmap"}
    for run, other in zip(found, alone, strict=True):
        assert run.losses == pytest.approx(other.losses)


class Summed(nn.Module):
    """Of a pair, or of two tensors by name."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 1)

    def forward(self, x):
        a, b = x.values() if isinstance(x, dict) else x
        return self.inner(a + b)


@pytest.mark.parametrize("kind", ["tuple", "dict"])
def test_batches_of_several_tensors_step_together_where_they_are_shared(kind):
    def pairs(shared):
        def batches(step):
            a, b = torch.ones(4, 3), torch.arange(12.0).reshape(4, 3)
            return (a, b) if kind == "tuple" else {"a": a, "b": b}, torch.zeros(4, 1)

        models = [Summed() for _ in range(2)]
        own = [batches if shared else (lambda step: batches(step)) for _ in models]
        return [Member(m, torch.optim.SGD(m.parameters(), lr=0.01), b) for m, b in zip(models, own, strict=True)]

    with pytest.raises(
        TrainError, match=f"got a {kind} in the batch of step 0; give all members one batches function, or engine"
    ):
        train_all(pairs(shared=False), nn.functional.mse_loss, 2, engine="vmap")
    assert all(not run.diverged for run in train_all(pairs(shared=False), nn.functional.mse_loss, 2, engine="loop"))
    assert all(not run.diverged for run in train_all(pairs(shared=True), nn.functional.mse_loss, 2, engine="vmap"))


class Turned(nn.Module):
    """Looks at its data."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, 4)

    def forward(self, x):
        return self.a(x) if x.mean() > 0 else -self.a(x)


@pytest.mark.parametrize("what", ["branch", "sizes", "pairs"])
def test_batches_of_ones_own_that_do_not_stack_are_looped(what):
    def some():
        made = []
        for i, member in enumerate(some_of(Turned if what == "branch" else lambda: nn.Linear(5, 4))):
            x, y = member.batches(0)
            cut = len(x) - i * (what == "sizes")
            given = ((x[:cut], y[:cut]), ({"x": x}, y))[what == "pairs"]
            model = Named(member.model) if what == "pairs" else member.model
            made.append(replace(member, model=model, batches=lambda step, given=given: given))
        return made

    found, alone = (train_all(some(), F.mse_loss, 3, engine=engine) for engine in ("auto", "loop"))
    assert [run.engine for run in found] == ["loop", "loop"]
    assert [run.losses for run in found] == [run.losses for run in alone]
    with pytest.raises(TrainError, match="engine='loop'"):
        train_all(some(), F.mse_loss, 3, engine="vmap")


class Named(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x["x"])


def test_autocast_gives_the_dtype_that_it_gives_alone():
    seen = []

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(5, 4)

        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                seen.append(self.a(x).dtype)
                return self.a(x).float()

    found, alone = (train_all(some_of(Half), F.mse_loss, 3, engine=engine) for engine in ("vmap", "loop"))
    assert set(seen) == {torch.bfloat16}
    for run, other in zip(found, alone, strict=True):
        assert run.losses == pytest.approx(other.losses, rel=0.02)


class Attends(nn.Module):
    """torch has no batching rule for its attention, and says so."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, 4)

    def forward(self, x):
        h = self.a(x)[:, None, None].contiguous()
        return F.scaled_dot_product_attention(h, h, h)[:, 0, 0]


def test_torchs_remark_on_its_batching_rules_is_not_passed_on(recwarn):
    warnings.simplefilter("always")
    assert {run.engine for run in train_all(some_of(Attends), F.mse_loss, 2)} == {"vmap"}
    assert [str(w.message) for w in recwarn if "batching rule" in str(w.message)] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=[pytest.mark.slow, NEEDS_COMPILER])])
def test_compiled_members_do_what_the_others_do(backend, monkeypatch):
    used = []

    def compiled(function, real=torch.compile):
        used.append(function)
        return real(function, backend=backend)

    monkeypatch.setattr(torch, "compile", compiled)
    found = []
    for compile in (True, False):
        some = members("mlp", "adam")
        some[1].optimizer.param_groups[0]["lr"] = float("nan")  # retires, so that the others are stacked anew
        found.append(train_all(some, F.cross_entropy, 4, engine="vmap", compile=compile))
    assert used
    for run, other in zip(*found, strict=True):
        assert (run.diverged, run.losses) == (other.diverged, pytest.approx(other.losses, rel=1e-9, nan_ok=True))


def test_changed_settings_are_seen_whatever_holds_them():
    parts = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    each = [torch.optim.Adam([p], lr=0.1) for p in parts]
    stacked = StackedOptimizer(each, [(torch.ones(2, 2), parts)])
    group = each[1].param_groups[0]

    def seen(change):
        change()
        found = stacked._changed()
        stacked._build()
        return found

    assert not seen(lambda: None)
    assert not seen(lambda: group.update(lr=float("0.1"), betas=(0.9, 0.999))), "equal values in other objects"
    assert seen(lambda: group.update(lr=0.2)) and not stacked._changed()
    assert seen(lambda: group.update(lr=torch.tensor(0.2))), "a tensor is none of the number that it holds"
    assert seen(lambda: group.update(lr=torch.tensor(0.2))), "nor another tensor"
    assert seen(lambda: parts[0].requires_grad_(False)) and seen(lambda: parts[0].requires_grad_(True))
    assert seen(lambda: group.update(lr=0.3))
    state = each[1].state_dict()
    assert not seen(lambda: each[1].load_state_dict(state)), "groups that were replaced by equal ones"
    assert seen(lambda: each[1].add_param_group({"params": [nn.Parameter(torch.ones(1))]}))

"""The training loop is deterministic, and says what went wrong."""

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import TrainError, UsageError
from lazyrich.train import loss_for, rehearse, train
from lazyrich.train.loss import wrong

DATA = lzr.data.load("digits")


def run(seed=0, steps=5, lr=0.1, factory=lzr.zoo.mlp, loss=nn.functional.cross_entropy):
    torch.manual_seed(3)
    model = nn.Sequential(factory(16), nn.Dropout(0.2))
    sgd = torch.optim.SGD(model.parameters(), lr=lr)
    return train(model, sgd, lambda s: DATA.batch(32, s), loss, steps, seed=seed)


def test_the_same_call_gives_the_same_numbers_and_leaves_the_generators_alone():
    state = torch.get_rng_state()
    first = run().losses
    torch.set_rng_state(state)
    torch.rand(7)
    moved = torch.get_rng_state()
    model = lzr.zoo.mlp(8)
    inside = torch.get_rng_state()
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), lambda s: DATA.batch(8, s), nn.functional.cross_entropy, 2)
    assert torch.equal(torch.get_rng_state(), inside)
    assert not torch.equal(moved, state)
    assert first == run().losses
    assert first != run(seed=1).losses  # dropout draws from the run's own seed


def test_no_step_of_a_run_draws_what_one_of_another_seed_draws():
    drawn = []

    def noisy(output, target):
        drawn.append(float(torch.rand(())))
        return nn.functional.cross_entropy(output, target)

    for seed in (0, 1, 2):
        run(seed, steps=3, loss=noisy)
    assert len(set(drawn)) == 9


def test_training_lowers_the_loss():
    losses = run(steps=60, lr=0.5).losses
    assert losses[-1] < 0.7 * losses[0]


def test_divergence_is_a_result():
    done = run(lr=1e38, steps=10)
    assert done.diverged
    assert done.step < 10
    assert len(done.losses) == done.step + 1


def test_a_model_that_does_not_take_the_data_is_told_so_in_one_line():
    with pytest.raises(TrainError, match="does not take the data.*inputs \\(32, 64\\)"):
        run(factory=lambda n: nn.Linear(63, n))
    with pytest.raises(TrainError, match="must be one number"):
        run(loss=lambda f, y: f.sum(1))


def test_losses_are_found_by_name_and_by_target():
    assert loss_for(None, torch.tensor([1.0]))[0] == "mse"
    f, y = torch.randn(4, 3), torch.randn(4, 3)
    half = loss_for("half_mse", y)[1]
    assert torch.isclose(half(f, y), 0.5 * (f - y).square().sum(1).mean())
    with pytest.raises(TrainError, match="got loss 'hinge'.*cross_entropy"):
        loss_for("hinge", y)


def test_classes_lie_along_the_axis_that_targets_leave_and_along_torchs_where_both_do():
    loss, g = loss_for("cross_entropy", torch.tensor([0]))[1], torch.Generator().manual_seed(0)
    for shape in ((4, 5, 3), (4, 3, 3)):
        output, target = torch.randn(shape, generator=g), torch.randint(3, shape[:2], generator=g)
        classes = output.movedim(2, 1) if shape[1] != 3 else output
        assert loss(output, target) == pytest.approx(float(nn.functional.cross_entropy(classes, target)))
        assert wrong(output, target) == float((classes.argmax(1) != target).double().mean())


def test_losses_are_found_by_reference(tmp_path):
    (tmp_path / "mine.py").write_text("def doubled(f, y):\n    return 2 * (f - y).abs().mean()\n\nclass Kept: ...\n")
    name, loss = loss_for(f"{tmp_path / 'mine.py'}:doubled", torch.ones(2))
    assert (name, float(loss(torch.zeros(2), torch.ones(2)))) == ("doubled", 2.0)
    with pytest.raises(UsageError, match="has no 'gone'"):
        loss_for(f"{tmp_path / 'mine.py'}:gone", torch.ones(2))
    with pytest.raises(TrainError, match="got the class Kept as loss, expected a function"):
        loss_for(f"{tmp_path / 'mine.py'}:Kept", torch.ones(2))


@pytest.mark.parametrize("name", ["mse", "half_mse"])
def test_a_squared_loss_refuses_targets_of_another_shape(name):
    loss = loss_for(name, torch.zeros(2))[1]
    assert loss(torch.ones(3, 1), torch.zeros(3)) == loss(torch.ones(3), torch.zeros(3, 1)) > 0
    with pytest.raises(TrainError, match=r"targets \(2, 5\) for outputs \(5, 2\)"):
        loss(torch.ones(5, 2), torch.zeros(2, 5))


@pytest.mark.parametrize("name", ["mse", "half_mse"])
def test_rows_are_targets_of_images(name):
    """As an autoencoder of images has with ``target="input"``, whose targets are flat."""
    loss, images = loss_for(name, torch.zeros(2))[1], torch.randn(3, 2, 4, 5)
    assert loss(images, images.flatten(1)) == 0
    assert loss(images, torch.zeros(3, 40)) == loss(images.flatten(1), torch.zeros(3, 40))
    with pytest.raises(TrainError, match=r"targets \(3, 20\) for outputs \(3, 2, 4, 5\)"):
        loss(images, torch.zeros(3, 20))


@pytest.mark.parametrize("steps", [-1, 1.5, None])
def test_steps_that_are_none_are_refused(steps):
    model = nn.Linear(2, 1)
    with pytest.raises(TrainError, match="got steps = .*whole number of at least 0"):
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), lambda step: None, nn.functional.mse_loss, steps)


def test_what_cannot_be_trained_with_is_refused():
    model, x = nn.Linear(2, 1), torch.ones(3, 2)
    sgd, mse = torch.optim.SGD(model.parameters(), lr=0.1), nn.functional.mse_loss
    for given, words in [
        ((model, None, lambda step: (x, x), mse), "got optimizer NoneType"),
        ((model, sgd, None, mse), "got batches NoneType and loss function"),
        ((model, sgd, lambda step: x, mse), "gave Tensor, expected a pair"),
        ((model, sgd, lambda step: (x, x), lambda out, y: None), "must be one number, got NoneType, no tensor"),
        ((nn.ReLU(), sgd, lambda step: (x, x), mse), "depends on nothing that trains in ReLU"),
    ]:
        with pytest.raises(TrainError, match=words):
            train(*given, steps=1)


def test_labels_for_one_output_are_told_what_to_do():
    data = lzr.data.load("digits").only([3, 8])
    plan = lzr.plan(lzr.Family(lambda n: lzr.zoo.MLP(n, outputs=1), base=8), lzr.mup(), "sgd")
    small = {"widths": [8, 16], "seeds": 1, "steps": 1}
    for study in (
        lambda given: lzr.check(plan, given, **small),
        lambda given: lzr.transfer(plan, given, lrs=[0.1, 0.2, 0.4, 0.8], **small),
        lambda given: lzr.dial(plan.family, given, widths=[8], richness=[0.1, 1.0], steps=2, seeds=1, samples=32, test=16),
    ):
        with pytest.raises(lzr.LazyrichError, match="got one output for labels .*loss='mse' with targets"):
            study(data)
    assert lzr.check(plan, (data.x, 2.0 * data.y - 1), loss="mse", **small).lines


def test_half_of_the_square_has_the_name_that_limits_give_it():
    assert loss_for("squared", torch.ones(2)) == loss_for("half_mse", torch.ones(2))


def test_one_column_of_labels_is_a_number_for_the_squared_error():
    model = nn.Linear(64, 1)
    rehearse(model, DATA.x[:8], DATA.y[:8], loss_for("mse", DATA.y)[1])
    with pytest.raises(TrainError, match="got label 9 for 7 outputs"):
        rehearse(nn.Linear(64, 7), DATA.x[:3], DATA.y[:3], loss_for(None, DATA.y)[1], DATA.y)

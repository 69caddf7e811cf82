"""Trackers: every outcome is told once, and a tracker that is down loses no trial."""

import sys
import types

import pytest

from lazyrich.errors import SweepError
from lazyrich.sweep import Outcome, TensorBoard, sweep, tracker_for
from lazyrich.sweep.tracker import last

DONE = Outcome("k" * 32, {"lr": 0.1, "scheme": None}, "done", {"loss": [2.0, 1.0], "error": {"test": 0.25}, "word": "x"})


class Recorder(types.ModuleType):
    """A module whose functions write down how they were called."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def called(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            return self

        return called

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.calls.append(("end_run", (), {}))


@pytest.fixture
def library(monkeypatch):
    def made(name):
        monkeypatch.setitem(sys.modules, name, module := Recorder(name))
        return module

    return made


@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_a_run_of_wandb_has_settings_and_curves(kind, library):
    module = library(kind)
    tracker_for(f"{kind}:paper")(DONE)
    names = [name for name, _, _ in module.calls]
    assert names == ["init", "log", "log", "finish"]
    config = {"lr": 0.1, "scheme": None, "status": "done"}
    assert module.calls[0][2] == {"project": "paper", "name": "lr=0.1, scheme=None", "config": config}
    assert module.calls[1][1:] == (({"loss": 2.0, "error/test": 0.25},), {"step": 0})
    assert module.calls[2][1:] == (({"loss": 1.0},), {"step": 1})


def test_a_run_of_mlflow_has_parameters_and_metrics(library):
    module = library("mlflow")
    tracker_for("mlflow:paper")(DONE)
    assert [name for name, _, _ in module.calls] == [
        "set_experiment", "start_run", "log_params", "set_tag", "log_metric", "log_metric", "log_metric", "end_run"
    ]  # fmt: skip
    assert module.calls[0][1] == ("paper",)
    assert module.calls[2][1] == ({"lr": 0.1, "scheme": None},)
    assert module.calls[5][1:] == (("loss", 1.0), {"step": 1})


def test_event_files_of_tensorboard_read_back_as_they_were_returned(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    sweep(lambda lr: {"loss": [2.0 * lr, lr]}, {"lr": [0.5, 0.25]}, tmp_path / "s", callbacks=[TensorBoard(tmp_path / "tb")])
    found = []
    for folder in sorted((tmp_path / "tb").iterdir()):
        assert len(list(folder.iterdir())) == 1
        read = events.EventAccumulator(str(folder))
        read.Reload()
        found.append([(point.step, point.value) for point in read.Scalars("loss")])
        assert "_hparams_/session_start_info" in read.summary_metadata
    assert sorted(found) == [[(0, 0.5), (1, 0.25)], [(0, 1.0), (1, 0.5)]]


def test_a_tracker_that_fails_is_said_and_loses_no_trial(tmp_path):
    heard = []

    def down(outcome):
        heard.append(outcome.settings)
        raise ConnectionError("no route")

    kept = []
    results = sweep(lambda lr: lr, {"lr": [1, 2, 3]}, tmp_path / "s", callbacks=[down, kept.append])
    assert heard == [{"lr": 1}]
    assert [o.settings["lr"] for o in kept] == [1, 2, 3]
    assert results.notes == ("down failed and was not called again: ConnectionError: no route",)
    assert [row["status"] for row in results.rows()] == ["done"] * 3


def test_trials_that_were_finished_are_not_told_again(tmp_path):
    kept = []
    for lrs in ([1], [1, 2]):
        sweep(lambda lr: lr, {"lr": lrs}, tmp_path / "s", code="1", callbacks=[kept.append])
    assert [o.settings["lr"] for o in kept] == [1, 2]


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SweepError, match="wandb is not installed; run: pip install wandb"):
        tracker_for("wandb:paper")
    for word in ("wandb", "wandb:", "paper:x"):
        with pytest.raises(SweepError, match=f"got tracker '{word}'"):
            tracker_for(word)


@pytest.mark.parametrize("given", ["wandb:paper", ["wandb:paper"]])
def test_a_text_makes_a_tracker_and_what_is_none_is_refused_before_any_trial(given, library, tmp_path):
    module, ran = library("wandb"), []
    sweep(lambda lr: {"loss": lr}, {"lr": [1]}, tmp_path / "s", callbacks=given)
    assert [name for name, _, _ in module.calls] == ["init", "log", "finish"]
    for wrong, says in (
        ("paper", "got tracker 'paper'"),
        (["paper:x"], "got tracker 'paper:x'"),
        ([3], "got tracker 3"),
        (3, "3"),
    ):
        with pytest.raises(SweepError, match=says):
            sweep(lambda lr: ran.append(lr), {"lr": [1]}, tmp_path / "t", callbacks=wrong)
    assert not ran


ROW = {"width": 16, "lrs": [0.001, 0.004, 0.016], "losses": [2.0, 0.5, None], "start": 2.3}


def test_a_row_of_learning_rates_is_told_by_its_rates_and_its_best(library):
    settings = {"scheme": "mup()", "width": 16, "seed": 0, "lrs": ROW["lrs"], "study": "0123456789abcdef"}
    module = library("wandb")
    tracker_for("wandb:paper")(Outcome("k" * 32, settings, "done", ROW))
    assert module.calls[0][2]["name"] == "scheme=mup(), width=16, seed=0"
    (logged,) = [args for name, args, _ in module.calls if name == "log"]
    told = {"width": 16.0, "start": 2.3, "loss/lr_0.001": 2.0, "loss/lr_0.004": 0.5, "best_lr": 0.004, "best_loss": 0.5}
    assert logged == (told,)
    assert last(ROW)["best_loss"] == 0.5


def test_a_dials_points_are_told_by_their_richness():
    turned = {"points": [{"richness": 0.1, "loss": 1.0}, {"richness": 1.0, "loss": None, "layers": {"fc": 2.0}}]}
    assert {"loss/gamma_0_0.1": 1.0, "layers/gamma_0_1/fc": 2.0}.items() <= last(turned).items()
    assert "loss/gamma_0_1" not in last(turned)

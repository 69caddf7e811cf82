"""The estimators keep scikit-learn's contract, and predict what the kernel and its inference say."""

from __future__ import annotations

import pickle
import re
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from torch import nn

import lazyrich as lzr
from lazyrich.errors import KernelError
from lazyrich.inference import gradient_flow, leave_one_out, one_hot_targets, posterior
from lazyrich.lazy.estimator import EstimatorError, KernelClassifier, KernelRegressor

X, Y = (lambda d: (d.data / 8 - 1, d.target))(load_digits())
TRAIN, TEST = slice(0, 120), slice(120, 170)
NUMBERS = Y / 4.5 - 1
# skipped by scikit-learn itself: array_api needs the variable SCIPY_ARRAY_API, *_data_not_an_array needs pandas
SKIPPED = {"check_array_api_input", "check_regressor_data_not_an_array", "check_classifier_data_not_an_array"}


def net(width: int = 16, depth: int = 1) -> nn.Module:
    hidden = [layer for _ in range(depth - 1) for layer in (nn.Linear(width, width), nn.Tanh())]
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), *hidden, nn.Linear(width, 10))


def conv() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, 10))


@pytest.mark.parametrize("estimator", [KernelRegressor(depth=1), KernelClassifier(depth=1)], ids=lambda e: type(e).__name__)
def test_scikit_learns_own_checks_pass(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(estimator, on_fail=None)
    assert len(found) > 40
    assert {r["check_name"]: repr(r["exception"]) for r in found if r["status"] not in ("passed", "skipped")} == {}
    assert {r["check_name"] for r in found if r["status"] == "skipped"} <= SKIPPED


@pytest.fixture(scope="module")
def grams():
    k = lzr.kernel(net(), init=lzr.init.variance(1.5, 0.2))
    x, z = torch.from_numpy(X[TRAIN]), torch.from_numpy(X[TEST])
    return {name: (k(x, get=(name,))[0], k(z, x, get=(name,))[0], k(z, get=(name,))[0]) for name in ("nngp", "ntk")}


def test_the_nngp_is_the_posterior(grams):
    model = KernelRegressor(net(), w=1.5, b=0.2, noise=0.01).fit(X[TRAIN], NUMBERS[TRAIN])
    mean, std = model.predict(X[TEST], return_std=True)
    own, cross, prior = grams["nngp"]
    expected = posterior(own, torch.from_numpy(NUMBERS[TRAIN]), cross, prior, noise=0.01)
    np.testing.assert_allclose(mean, expected.mean.numpy(), atol=1e-9)
    np.testing.assert_allclose(std, expected.deviation.numpy(), atol=1e-8)
    np.testing.assert_allclose(model.predict(X[TEST], return_cov=True)[1], expected.covariance.numpy(), atol=1e-9)
    with pytest.raises(KernelError, match="expected one of them"):
        model.predict(X[TEST], return_std=True, return_cov=True)
    assert model.log_marginal_likelihood_ == pytest.approx(float(expected.log_marginal))
    assert model.dual_coef_.shape == (120,)
    assert model.predict(X[TEST]).dtype == np.float64


@pytest.mark.parametrize("time", [None, 3.0])
@pytest.mark.parametrize("kind", ["nngp", "ntk"])
def test_training_is_the_gradient_flow_with_the_ensembles_spread(grams, kind, time):
    if kind == "nngp" and time is None:
        pytest.skip("the posterior, tested above")
    model = KernelRegressor(net(), kind, w=1.5, b=0.2, noise=0.02, time=time).fit(X[TRAIN], NUMBERS[TRAIN])
    mean, std = model.predict(X[TEST], return_std=True)
    (theta, cross, _), (own, prior_cross, prior) = grams[kind], grams["nngp"]
    flow = gradient_flow(
        theta, torch.from_numpy(NUMBERS[TRAIN]), cross, float("inf") if time is None else time, loss="mean", ridge=0.02,
        k_dd=own, k_td=prior_cross, k_tt=prior,
    )  # fmt: skip
    np.testing.assert_allclose(mean, flow.test.numpy(), atol=1e-7)
    np.testing.assert_allclose(std, flow.test_covariance.diagonal().clamp_min(0).sqrt().numpy(), atol=1e-6)
    np.testing.assert_allclose(model.predict(X[TEST], return_cov=True)[1], flow.test_covariance.numpy(), atol=1e-7)


def test_the_classifier_is_the_argmax_of_centred_targets(grams):
    own, cross, _ = grams["nngp"]
    expected = posterior(own, one_hot_targets(torch.from_numpy(Y[TRAIN])), cross, noise=0.01).mean
    names = np.array([f"digit {i}" for i in range(10)])
    model = KernelClassifier(net(), w=1.5, b=0.2, noise=0.01).fit(X[TRAIN], names[Y[TRAIN]])
    np.testing.assert_allclose(model.decision_function(X[TEST]), expected.numpy(), atol=1e-9)
    assert (model.predict(X[TEST]) == names[expected.argmax(1).numpy()]).all()
    chances = model.predict_proba(X[TEST])
    np.testing.assert_allclose(chances.sum(1), 1)
    assert (names[chances.argmax(1)] == model.predict(X[TEST])).all()


def test_the_temperature_is_fitted_to_leave_one_out(grams):
    from lazyrich.inference import classify

    targets, labels = one_hot_targets(torch.from_numpy(Y[TRAIN])), torch.from_numpy(Y[TRAIN])
    held_out = leave_one_out(grams["nngp"][0], targets, noise=0.01)
    expected = classify(held_out.mean, held_out.variance, held_out=(held_out.mean, held_out.variance, labels)).temperature
    model = KernelClassifier(net(), w=1.5, b=0.2, noise=0.01, temperature="loo").fit(X[TRAIN], Y[TRAIN])
    assert model.temperature_ == pytest.approx(expected, rel=1e-3)


def test_the_temperature_of_an_ensemble_is_fitted_to_the_ensembles_spread():
    """The log loss on noisy labels is near that of the best temperature; each left-out variance is that of a fit without it."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(Y))
    x, y = X[order], np.where(rng.random(len(Y)) < 0.2, rng.integers(0, 10, len(Y)), Y[order])
    model = KernelClassifier(kernel="ntk", depth=1, noise=0.01, temperature="loo").fit(x[:120], y[:120])

    def loss(temperature):
        model.temperature_ = temperature
        return log_loss(y[150:400], model.predict_proba(x[150:400]), labels=model.classes_)

    assert loss(model.temperature_) < 1.03 * min(loss(t) for t in (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.5))
    left_out = model._left_out(model.response_.solve(torch.eye(120, dtype=torch.float64)))
    without = KernelRegressor(kernel="ntk", depth=1, noise=0.01).fit(x[1:120], y[1:120])
    assert float(left_out[0]) == pytest.approx(without.predict(x[:1], return_std=True)[1][0] ** 2 + 0.01, rel=1e-6)


def test_a_singular_gram_is_fitted_with_a_jitter_that_is_told():
    x = np.array([[0.5, 1.0], [0.5, 1.0], [-1.0, 0.3]])
    with pytest.warns(UserWarning, match="singular with noise 0, .*jitter_.*remove duplicate inputs"):
        model = KernelRegressor(depth=1, noise=0).fit(x, [1.0, -1.0, 0.0])
    assert 0 < model.jitter_ < 1e-8
    assert KernelRegressor(depth=1, noise=0.01).fit(x, [1.0, -1.0, 0.0]).jitter_ == 0
    assert KernelRegressor(depth=1, noise=0, time=1.0).fit(x, [1.0, -1.0, 0.0]).jitter_ == 0


def test_several_targets_are_predicted_as_one_by_one():
    both = np.stack([NUMBERS, -2 * NUMBERS], 1)[TRAIN]
    model = KernelRegressor(depth=1, noise=0.01).fit(X[TRAIN], both)
    mean, std = model.predict(X[TEST], return_std=True)
    assert mean.shape == std.shape == (50, 2)
    covariance = model.predict(X[TEST], return_cov=True)[1]
    np.testing.assert_allclose(np.sqrt(np.diagonal(covariance).T), std, atol=1e-6)
    np.testing.assert_allclose(mean[:, 1], -2 * mean[:, 0], atol=1e-9)
    one = KernelRegressor(depth=1, noise=0.01).fit(X[TRAIN], both[:, 0]).predict(X[TEST])
    np.testing.assert_allclose(mean[:, 0], one, atol=1e-9)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (nn.ReLU, "has no parameters; end it in a readout"),
        (nn.Linear, "refuses .*out_features"),
        (lambda: net(16), "write it for .width. or"),
        (lambda width: width, "returns int"),
    ],
)
def test_what_makes_no_network_is_refused(network, says):
    with pytest.raises(KernelError, match=says):
        KernelRegressor(network).fit(X[TRAIN], NUMBERS[TRAIN])


def test_images_are_shaped_for_a_convolutional_network():
    model = KernelClassifier(conv(), "ntk", input_shape=(1, 8, 8)).fit(X[TRAIN], Y[TRAIN])
    assert model.score(X[TEST], Y[TEST]) > 0.8


def test_a_network_comes_as_module_factory_or_reference():
    given = [net(16, 2), net, "lazyrich.family.zoo:mlp"]
    for network in given:
        depth = None if network is given[0] else 2
        assert KernelClassifier(network, depth=depth).fit(X[TRAIN], Y[TRAIN]).score(X[TEST], Y[TEST]) > 0.7
    by_law = KernelClassifier(net(16), w=None).fit(X[TRAIN], Y[TRAIN])
    x = torch.from_numpy(X[TEST])
    torch.testing.assert_close(by_law.kernel_.nngp(x), lzr.kernel(net(16)).nngp(x))


def test_a_search_over_kernels_and_variances_runs_in_a_pipeline():
    model = make_pipeline(StandardScaler(), KernelClassifier(depth=1))
    grid = {"kernelclassifier__kernel": ["nngp", "ntk"], "kernelclassifier__noise": [1e-2, 1.0]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X[TRAIN], Y[TRAIN])
    assert search.best_score_ > 0.7
    assert (cross_val_score(KernelRegressor(net(), noise=0.1), X[TRAIN], NUMBERS[TRAIN], cv=2) > 0.2).all()


def test_clones_have_the_same_parameters_and_pickles_the_same_predictions():
    model = KernelRegressor(net(), w=1.0, noise=0.3, time=2.0, kernel="ntk")
    copy = clone(model)
    assert {k: v for k, v in copy.get_params().items() if k != "network"} == {
        k: v for k, v in model.get_params().items() if k != "network"
    }
    model.set_params(noise=0.1).fit(X[TRAIN], NUMBERS[TRAIN])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X[TEST]), model.predict(X[TEST]))


@pytest.mark.parametrize("kind", ["nngp", "ntk"])
def test_a_weight_is_a_number_of_samples(kind):
    weights = np.arange(60) % 3
    twice = np.repeat(np.arange(60), weights)
    one = KernelRegressor(kernel=kind, depth=1, noise=0.05).fit(X[:60], NUMBERS[:60], sample_weight=weights)
    many = KernelRegressor(kernel=kind, depth=1, noise=0.05).fit(X[twice], NUMBERS[twice])
    for got, expected in zip(one.predict(X[TEST], return_std=True), many.predict(X[TEST], return_std=True), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-7)
    label = KernelClassifier(kernel=kind, depth=1).fit(X[:60], Y[:60], sample_weight=np.ones(60))
    np.testing.assert_allclose(
        label.predict_proba(X[TEST]), KernelClassifier(kernel=kind, depth=1).fit(X[:60], Y[:60]).predict_proba(X[TEST])
    )


@pytest.mark.parametrize(
    ("parameters", "weights", "says"),
    [
        ({"time": 1.0}, np.ones(120), "got sample_weight with time 1.0"),
        ({"temperature": "loo"}, np.ones(120), "got temperature 'loo' with sample_weight"),
        ({}, np.zeros(120), "every sample_weight is zero"),
        ({}, -np.ones(120), "got sample_weight of shape (120,), at least -1, expected 120 numbers of at least zero"),
        ({}, (Y[TRAIN] == 3) * 1.0, "got one class (3)"),
    ],
)
def test_weights_that_cannot_count_are_refused(parameters, weights, says):
    with pytest.raises(EstimatorError, match=re.escape(says)):
        KernelClassifier(depth=1, **parameters).fit(X[TRAIN], Y[TRAIN], sample_weight=weights)


def test_parameters_that_are_set_after_the_fit_wait_for_the_next():
    model = KernelClassifier(conv(), depth=None, noise=0.1, input_shape=(1, 8, 8)).fit(X[TRAIN], Y[TRAIN])
    before = model.predict_proba(X[TEST])
    model.set_params(kernel="ntk", noise=1.0, time=3.0, w=1.0, input_shape=None, network=None, temperature=5.0)
    np.testing.assert_array_equal(model.predict_proba(X[TEST]), before)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X[TEST]), before)
    assert abs(model.fit(X[TRAIN], Y[TRAIN]).predict_proba(X[TEST]) - before).max() > 0.01


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"kernel": "rbf"}, "got kernel 'rbf', expected one of nngp, ntk"),
        ({"noise": -1.0}, "noise"),
        ({"noise": "a"}, "got noise 'a', expected a variance"),
        ({"noise": float("inf")}, "got noise inf, expected a variance"),
        ({"noise": True}, "got noise True"),
        ({"time": True}, "got time True"),
        ({"depth": True}, "got depth True"),
        ({"w": True}, "got w True"),
        ({"w": -1.0}, "got w -1.0 and b 0.1, expected variances"),
        ({"w": float("nan")}, "got w nan"),
        ({"b": float("inf")}, "b inf, expected variances"),
        ({"scheme": "foo"}, "got scheme 'foo'"),
        ({"scheme": 3}, "got scheme 3, expected a scheme"),
        ({"activation": ["relu"]}, "got activation ['relu']"),
        ({"network": "nopkg:foo"}, "got network 'nopkg:foo': there is no module"),
        ({"time": 0.0}, "time"),
        ({"time": "long"}, "got time 'long'"),
        ({"network": 3}, "got network 3, expected an nn.Module"),
        ({"depth": 0}, "depth"),
        ({"depth": "deep"}, "got depth 'deep'"),
        ({"w": "a"}, "got w 'a'"),
        ({"b": None}, "b None, expected variances"),
        ({"activation": "step"}, "activation 'step'"),
        ({"network": lambda width: None}, "NoneType"),
        ({"input_shape": (1, 7, 7)}, "expected 49"),
        ({"input_shape": 3}, "got input_shape 3, expected the shape of one sample"),
        ({"input_shape": (8.5, 8)}, "got input_shape (8.5, 8), expected the shape of one sample in whole numbers"),
        ({"network": net(), "depth": 2}, "got depth 2 for a network that is a module (Sequential)"),
        ({"network": net(), "activation": "tanh"}, "got activation 'tanh' for a network of your own"),
        ({"network": net, "depth": 2, "activation": "tanh"}, "only the plain MLP (network=None) reads it"),
    ],
)
def test_bad_parameters_are_refused_in_the_terms_of_both_houses(parameters, says):
    with pytest.raises(EstimatorError, match=re.escape(says)) as refused:
        KernelRegressor(**parameters).fit(X[TRAIN], NUMBERS[TRAIN])
    assert isinstance(refused.value, (ValueError, KernelError))


def test_other_refusals():
    with pytest.raises(NotFittedError):
        KernelRegressor().predict(X[TEST])
    with pytest.raises(EstimatorError, match="'loo' with time"):
        KernelClassifier(time=1.0, temperature="loo").fit(X[TRAIN], Y[TRAIN])
    with pytest.raises(ValueError, match=r"one class \('digit'\)"):
        KernelClassifier().fit(X[TRAIN], np.full(120, "digit"))
    with pytest.raises(KernelError, match="softmax at"):
        KernelRegressor(nn.Sequential(nn.Linear(64, 8), nn.Softmax(1), nn.Linear(8, 1))).fit(X[TRAIN], NUMBERS[TRAIN])


@pytest.mark.parametrize("temperature", ["auto", 0, None, float("nan"), True])
def test_a_temperature_is_refused_at_fit(temperature):
    with pytest.raises(EstimatorError, match=f"got temperature {temperature!r}, expected a positive number, or 'loo'"):
        KernelClassifier(temperature=temperature).fit(X[TRAIN], Y[TRAIN])


def test_read_only_samples_are_no_matter():
    x = X[TRAIN].copy()
    x.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = KernelRegressor(depth=1, noise=0.01).fit(x, NUMBERS[TRAIN])
        np.testing.assert_array_equal(model.predict(x), model.predict(X[TRAIN]))

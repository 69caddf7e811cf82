"""Infinitely wide networks as scikit-learn estimators: numpy in, numpy out, any network that has a kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from numbers import Integral
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data  # type: ignore[missing-module-attribute]
from torch import Tensor, nn

from lazyrich.amount import real
from lazyrich.errors import KernelError, LazyrichError
from lazyrich.family.family import seeded
from lazyrich.family.zoo.mlp import ACTIVATIONS, MLP
from lazyrich.inference import classify, one_hot_targets
from lazyrich.inference.factor import Factor
from lazyrich.inference.likelihood import log_density
from lazyrich.init import Initialiser, variance
from lazyrich.lazy.kernel import Kernel, kernel
from lazyrich.lazy.response import Response, response_of
from lazyrich.lazy.sample import sample_shape, shaped
from lazyrich.lazy.sample_weight import Weighted, weighted
from lazyrich.reference import resolve
from lazyrich.scaling import Scheme
from lazyrich.scaling import parse as parse_scheme

KINDS = ("nngp", "ntk")
WIDTH = 64  # that a factory is asked for; it does not matter to the kernel
DEPTH = 2
ACTIVATION = "relu"
BLOCK = 1000  # test samples whose Gram with the training samples is held at a time


class EstimatorError(KernelError, ValueError):
    """Parameters or data that an estimator cannot use: a KernelError, and the ValueError that scikit-learn's tools expect."""


@cache
def _plain(depth: int, activation: str, features: int, scheme: str | Scheme | None, rule: Initialiser | None) -> Kernel:
    """The kernel of a plain MLP, traced once for all fits of a search."""
    if depth < 1 or activation not in ACTIVATIONS:
        raise EstimatorError(
            f"got depth {depth} and activation {activation!r}, expected at least 1 and one of {', '.join(ACTIVATIONS)}"
        )
    with seeded(0):
        return kernel(MLP(WIDTH, depth, features, 1, activation), _scheme(scheme), rule)


def _scheme(scheme: str | Scheme | None) -> Scheme | None:
    try:
        return parse_scheme(scheme) if isinstance(scheme, str) else scheme
    except LazyrichError as error:
        raise EstimatorError(str(error)) from error


def _named(network: Any) -> Any:
    """What a reference leads to; anything else as it is."""
    try:
        return resolve(network) if isinstance(network, str) else network
    except LazyrichError as error:
        raise EstimatorError(f"got network {network!r}: {error}") from error


class _KernelEstimator(BaseEstimator):
    """What the regressor and the classifier share: the kernel of the parameters, the dual weights, predictions in blocks."""

    def __init__(
        self,
        network: nn.Module | str | Callable[..., nn.Module] | None = None,
        kernel: Literal["nngp", "ntk"] = "nngp",
        *,
        w: float | None = 2.0,
        b: float = 0.1,
        depth: int | None = None,
        activation: str = ACTIVATION,
        scheme: str | Scheme | None = None,
        noise: float = 1e-3,
        time: float | None = None,
        input_shape: Sequence[int] | None = None,
    ) -> None:
        self.network = network
        self.kernel = kernel
        self.w = w
        self.b = b
        self.depth = depth
        self.activation = activation
        self.scheme = scheme
        self.noise = noise
        self.time = time
        self.input_shape = input_shape

    def _check_parameters(self) -> None:
        if self.kernel not in KINDS:
            raise EstimatorError(f"got kernel {self.kernel!r}, expected one of {', '.join(KINDS)}")
        if not 0 <= real(self.noise) < math.inf:
            raise EstimatorError(f"got noise {self.noise!r}, expected a variance: a number, zero or positive")
        if self.time is not None and not real(self.time) > 0:
            raise EstimatorError(f"got time {self.time!r}, expected a positive number, or None for training to convergence")
        if not all(0 <= real(value) < math.inf for value in (0 if self.w is None else self.w, self.b)):
            raise EstimatorError(f"got w {self.w!r} and b {self.b!r}, expected variances: numbers, zero or positive")
        if self.depth is not None and (isinstance(self.depth, bool) or not isinstance(self.depth, Integral)):
            raise EstimatorError(f"got depth {self.depth!r}, expected a whole number of at least 1")
        if not isinstance(self.activation, str):
            raise EstimatorError(f"got activation {self.activation!r}, expected one of {', '.join(ACTIVATIONS)}")
        if not (self.scheme is None or isinstance(self.scheme, (str, Scheme))):
            raise EstimatorError(f"got scheme {self.scheme!r}, expected a scheme such as lzr.ntk(), its name, or None")
        if self.network is not None and not (isinstance(self.network, str) or callable(self.network)):
            raise EstimatorError(
                f"got network {self.network!r}, expected an nn.Module, a function that makes one of a width, a reference to such "
                "a function (package.module:name), or None for a plain MLP"
            )
        self._refuse_unread()

    def _refuse_unread(self) -> None:
        """What was set but nothing reads: a search over it would compare equal networks."""
        if self.network is None:
            return
        network = _named(self.network)
        if isinstance(network, nn.Module) and self.depth is not None:
            raise EstimatorError(
                f"got depth {self.depth} for a network that is a module ({type(network).__name__}), expected depth=None: a module "
                "has its own; give a factory(width, depth), or leave depth out"
            )
        if self.activation != ACTIVATION:
            raise EstimatorError(
                f"got activation {self.activation!r} for a network of your own, expected the default {ACTIVATION!r}: only the "
                "plain MLP (network=None) reads it; write it into the network, or leave activation out"
            )

    def _kernel_of(self, features: int) -> Kernel:
        rule = None if self.w is None else variance(self.w, self.b)
        if self.network is None:
            return _plain(DEPTH if self.depth is None else self.depth, self.activation, features, self.scheme, rule)
        with seeded(0):
            return kernel(self._network(), _scheme(self.scheme), rule)

    def _network(self) -> nn.Module:
        network = _named(self.network)
        if isinstance(network, nn.Module):
            return network
        given = [WIDTH] if self.depth is None else [WIDTH, self.depth]
        try:
            made = network(*given)
        except TypeError as error:
            raise EstimatorError(
                f"the network factory refuses {tuple(given)}: {error}; write it for (width) or (width, depth), or give an nn.Module"
            ) from error
        if not isinstance(made, nn.Module):
            raise EstimatorError(f"got a network factory that returns {type(made).__name__}, expected an nn.Module")
        return made

    def _inputs(self, x: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.require(x, np.float64, ["C", "W"]))  # a copy of what is read-only, as joblib's memmaps
        return shaped(tensor, sample_shape(self.input_shape, EstimatorError), EstimatorError)

    def _weighted(self, x: np.ndarray, y: np.ndarray, sample_weight: Any) -> Weighted:
        """The samples that count, with their weights."""
        if sample_weight is not None and self.time is not None:
            raise EstimatorError(f"got sample_weight with time {self.time}, expected time=None: weights divide the noise")
        return weighted(x, y, sample_weight, EstimatorError)

    def _fit(self, x: np.ndarray, targets: Tensor, weights: np.ndarray | None) -> None:
        """Dual weights of targets (N, K), of which one with weight m counts as m of them."""
        self._check_parameters()
        inputs = self._inputs(x)
        self._asked = type(self)(**self.get_params(deep=False))  # what predictions read, whatever set_params does afterwards
        self.X_fit_, self.kernel_ = x, self._kernel_of(x.shape[1])
        gram = self.kernel_(inputs, get=(self.kernel,))[0]
        if gram.dim() != 2:
            raise EstimatorError(
                f"got a network with outputs at {tuple(gram.shape[2:])} positions, expected none; end it with a readout"
            )
        noise = self.noise if weights is None else self.noise / torch.from_numpy(weights)
        self.response_: Factor | Response = response_of(gram, noise, self.time)
        self.jitter_, self._dual = self.response_.jitter, self.response_.solve(targets)
        if isinstance(self.response_, Factor):
            self.log_marginal_likelihood_ = float(log_density(self.response_, targets))

    def _predict(self, x: Any, spread: bool = False) -> tuple[Tensor, Tensor | None]:
        """Mean (M, K) and, if asked for, variance (M,)."""
        check_is_fitted(self)
        inputs = self._asked._inputs(validate_data(self, x, dtype=np.float64, reset=False))
        train = self._asked._inputs(self.X_fit_)
        own = self.kernel_.nngp(train) if spread and self._of_ensemble else None
        means, variances = [], []
        for block in inputs.split(BLOCK):
            names = ("nngp", "ntk") if spread and self._asked.kernel == "ntk" else (self._asked.kernel,)
            grams = dict(zip(names, self.kernel_(block, train, get=names), strict=True))
            means.append(grams[self._asked.kernel] @ self._dual)
            if spread:
                variances.append(self._variance(grams, self.kernel_.diagonal(block, "nngp"), own))
        return torch.cat(means), torch.cat(variances) if spread else None

    @property
    def _of_ensemble(self) -> bool:
        """Whether the spread is that of trained networks, not a posterior's."""
        return self._asked.kernel == "ntk" or self._asked.time is not None

    def _variance(self, grams: dict[str, Tensor], prior: Tensor, own: Tensor | None) -> Tensor:
        cross, prior_cross = grams[self._asked.kernel].T, grams["nngp"].T
        weights = self.response_.solve(cross)
        if own is None:
            return (prior - (cross * weights).sum(0)).clamp_min(0)
        return (prior + (weights * (own @ weights)).sum(0) - 2 * (weights * prior_cross).sum(0)).clamp_min(0)

    def _covariance(self, x: Any) -> Tensor:
        """Between all pairs of samples, (M, M), of which ``_predict`` gives the diagonal."""
        inputs, train = (
            self._asked._inputs(validate_data(self, x, dtype=np.float64, reset=False)),
            self._asked._inputs(self.X_fit_),
        )
        cross = self.kernel_(inputs, train, get=(self._asked.kernel,))[0]
        weights, prior = self.response_.solve(cross.T), self.kernel_.nngp(inputs)
        if not self._of_ensemble:
            return prior - cross @ weights
        mixed = self.kernel_.nngp(inputs, train) @ weights
        return prior + weights.T @ (self.kernel_.nngp(train) @ weights) - mixed - mixed.T

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the traced network, which is made again."""
        return {name: value for name, value in super().__getstate__().items() if name != "kernel_"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "X_fit_" in state:
            self.kernel_ = self._asked._kernel_of(self.X_fit_.shape[1])


class KernelRegressor(RegressorMixin, _KernelEstimator):
    """Regression by an infinitely wide network: a Gaussian process with its NNGP, or training in its NTK limit.

    ``kernel="nngp"``: the posterior of a GP with the covariance of the random network (Lee et al. 2018, arXiv:1711.00165);
    with ``time`` only the readout is trained, so long. ``kernel="ntk"``: the mean over initialisations of networks trained by
    gradient descent on the squared error (Jacot et al. 2018, arXiv:1806.07572), to convergence or for ``time``; ``noise`` is
    then a decay towards the initial weights. Targets are used as they are: centre and scale them, or wrap the estimator in
    ``TransformedTargetRegressor``; inputs likewise, with entries of order one.

    Args:
        network: an ``nn.Module``, a factory ``factory(width)``, or a reference to one (``package.module:name``); None: a plain
            MLP of ``depth`` hidden layers (default 2) with ``activation`` (relu, tanh, erf, gelu, silu, linear). Its own
            initialisation is replaced by the variances ``w`` and ``b``, here 2 and 0.1, unless ``w=None``.
        kernel: "nngp" or "ntk".
        w: sigma_w^2 of all linear and convolutional layers (variance w / fan_in); None takes the network's own laws.
        b: sigma_b^2, the variance of the biases; without effect when w is None.
        depth: second argument of the factory, or hidden layers of the plain MLP; refused for a module.
        activation: of the plain MLP; refused for another network.
        scheme: parameterisation, a scheme or its name; ``ntk()`` by default.
        noise: variance of the targets' noise.
        time: None for convergence, else learning rate x steps of gradient descent on 1/(2N) sum (f - y)^2.
        input_shape: shape of one sample as the network reads it, such as (1, 8, 8); flat features by default.

    Attributes:
        X_fit_: the training inputs that count.
        dual_coef_: a with f(x) = K(x, X) a, shaped as y.
        log_marginal_likelihood_: of the training targets in nats, when ``time`` is None.
        jitter_: what was added to the noise because the Gram matrix is singular without; 0 as a rule, else a warning says so.

    Raises:
        EstimatorError: for parameters or data that do not fit; also a ValueError.
        KernelError: for a network without a kernel.

    Example:
        >>> x = np.linspace(-1, 1, 20)[:, None]
        >>> model = KernelRegressor(w=2.0, b=0.1, noise=1e-4).fit(x, np.sin(3 * x[:, 0]))
        >>> mean, std = model.predict(np.array([[0.5], [4.0]]), return_std=True)
        >>> bool(abs(mean[0] - np.sin(1.5)) < 0.02), bool(std[1] > 10 * std[0])
        (True, True)
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[missing-attribute]
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> KernelRegressor:
        """Fit to inputs (N, d) and targets (N,) or (N, K).

        The noise of a sample is ``noise / sample_weight``, so that a weight of two is the sample twice; those of zero are left out.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        X, y, weights = self._weighted(X, y, sample_weight)
        targets = torch.from_numpy(np.array(y, dtype=np.float64))
        self._fit(X, targets.reshape(len(X), -1), weights)
        self.dual_coef_ = self._dual.reshape(targets.shape).numpy()
        return self

    def predict(self, X: Any, return_std: bool = False, return_cov: bool = False) -> Any:
        """The prediction, (M,) or (M, K), and on request its standard deviation, of the same shape, or its covariance.

        Both are those of the noise-free function: the posterior's for ``kernel="nngp"``; else the spread over initialisations of
        trained networks (Lee et al. 2019, arXiv:1902.06720, eq. 15). The covariance between samples is (M, M), or (M, M, K).
        """
        if return_std and return_cov:
            raise EstimatorError(
                "got return_std=True and return_cov=True, expected one of them; deviations are the covariance's"
            )
        mean, spread = self._predict(X, return_std)
        shape = (len(mean), *self.dual_coef_.shape[1:])
        if return_cov:
            covariance = self._covariance(X)
            outputs = self.dual_coef_.shape[1:]
            each = covariance.expand(*outputs, *covariance.shape)
            return mean.reshape(shape).numpy(), (each.movedim(0, -1) if outputs else each).numpy()
        if spread is None:
            return mean.reshape(shape).numpy()
        return mean.reshape(shape).numpy(), spread.sqrt()[:, None].expand_as(mean).reshape(shape).numpy()


class KernelClassifier(ClassifierMixin, _KernelEstimator):
    """Classification by an infinitely wide network: regression on centred one-hot targets, argmax of the prediction.

    As in Lee et al. 2018 (arXiv:1711.00165, section 3): targets 1 - 1/C and -1/C for C classes. Parameters, and the meaning
    of ``noise`` and ``time``, as of ``KernelRegressor``. Probabilities use a variance for each sample, so they rank samples
    otherwise than ``decision_function``; of one sample they rank the classes alike.

    Args:
        network: an ``nn.Module``, a factory or a reference to one; None: a plain MLP. ``w`` and ``b`` replace its own
            initialisation unless ``w=None``.
        kernel: "nngp" or "ntk".
        w: sigma_w^2; None takes the network's own laws.
        b: sigma_b^2.
        depth: second argument of the factory, or hidden layers of the plain MLP; refused for a module.
        activation: of the plain MLP; refused for another network.
        scheme: parameterisation; ``ntk()`` by default.
        noise: variance of the targets' noise.
        time: None for convergence, else learning rate x steps.
        input_shape: shape of one sample as the network reads it.
        temperature: by which deviations are multiplied in ``predict_proba``; "loo" fits it to leave-one-out predictions
            (Rasmussen & Williams 2006, eq. 5.12), for which ``time`` must be None.

    Attributes:
        classes_: the labels.
        dual_coef_: a with scores K(x, X) a, (N, C).
        jitter_: what was added to the noise because the Gram matrix is singular without; 0 as a rule.
        temperature_: the temperature in use.

    Raises:
        EstimatorError: for parameters or data that do not fit; also a ValueError.
        KernelError: for a network without a kernel.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> x, y = load_digits(return_X_y=True)
        >>> model = KernelClassifier(kernel="ntk").fit(x[::4] / 8 - 1, y[::4])
        >>> model.score(x[1::4] / 8 - 1, y[1::4]) > 0.9
        True
    """

    def __init__(
        self,
        network: nn.Module | str | Callable[..., nn.Module] | None = None,
        kernel: Literal["nngp", "ntk"] = "nngp",
        *,
        w: float | None = 2.0,
        b: float = 0.1,
        depth: int | None = None,
        activation: str = ACTIVATION,
        scheme: str | Scheme | None = None,
        noise: float = 1e-3,
        time: float | None = None,
        input_shape: Sequence[int] | None = None,
        temperature: float | Literal["loo"] = 1.0,
    ) -> None:
        super().__init__(
            network, kernel, w=w, b=b, depth=depth, activation=activation, scheme=scheme, noise=noise, time=time,
            input_shape=input_shape,
        )  # fmt: skip
        self.temperature = temperature

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> KernelClassifier:
        """Fit to inputs (N, d) and labels (N,); a weight divides the noise of its sample, as in ``KernelRegressor``."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self._check_temperature(sample_weight)
        X, y, weights = self._weighted(X, y, sample_weight)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise EstimatorError(f"got one class ({self.classes_.tolist()[0]!r}), expected at least two classes to tell apart")
        targets = one_hot_targets(torch.from_numpy(labels.reshape(-1)), len(self.classes_))
        self._fit(X, targets, weights)
        self.dual_coef_ = self._dual.numpy()
        self.temperature_ = self._loo(targets, labels) if self.temperature == "loo" else float(self.temperature)
        return self

    def _check_temperature(self, sample_weight: Any) -> None:
        if self.temperature == "loo":
            if sample_weight is not None:
                raise EstimatorError("got temperature 'loo' with sample_weight, expected one of them; give a number")
            if self.time is not None:
                raise EstimatorError(f"got temperature 'loo' with time {self.time}, expected time=None; give a number")
        elif not 0 < real(self.temperature) < math.inf:
            raise EstimatorError(
                f"got temperature {self.temperature!r}, expected a positive number, or 'loo' to fit it to leave-one-out predictions"
            )

    def _loo(self, targets: Tensor, labels: np.ndarray) -> float:
        inverse = self.response_.solve(torch.eye(len(targets), dtype=targets.dtype))
        mean = targets - self._dual / inverse.diagonal()[:, None]
        held_out = (mean, self._left_out(inverse), torch.from_numpy(labels.reshape(-1)))
        return classify(*held_out[:2], held_out=held_out).temperature

    def _left_out(self, inverse: Tensor) -> Tensor:
        """Variance of every target's prediction from the others, as ``predict_proba`` counts it: of the ensemble, if it is one."""
        if not self._of_ensemble:
            return 1 / inverse.diagonal()
        gaps = inverse / inverse.diagonal()  # column i: one at i, minus the others' weights in the prediction of i
        own = self.kernel_.nngp(self._inputs(self.X_fit_))
        return (gaps * (own @ gaps)).sum(0).clamp_min(0) + self.noise

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores (M, C); for two classes the second minus the first, (M,)."""
        scores, _ = self._predict(X)
        return (scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The class with the largest score, (M,)."""
        scores, _ = self._predict(X)
        return self.classes_[scores.argmax(1).numpy()]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of every class having the largest output, (M, C): outputs Gaussian, independent, noise added."""
        scores, spread = self._predict(X, spread=True)
        assert spread is not None
        return classify(scores, spread + self._asked.noise, temperature=self.temperature_).probabilities.numpy()

"""The hyper-parameters under which the targets are most likely."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from lazyrich.amount import counted
from lazyrich.errors import InitError, KernelError
from lazyrich.inference.factor import Jitter, check_jitter
from lazyrich.inference.layout import layout_of, precision, tensor
from lazyrich.inference.likelihood import log_marginal

_REACH = 1e6  # how far from its start a hyper-parameter may go, as a factor


@dataclass(frozen=True)
class Hyperparameters:
    """The best hyper-parameters found, and every combination of the grid.

    Attributes:
        values: by name, those of the grid with their whole numbers.
        log_marginal: of the targets under them, in nats.
        converged: whether the search stopped at a maximum.
        at_bound: names that ended at their bound.
        table: one record a combination of the grid, best first.
    """

    values: Mapping[str, float | int]
    log_marginal: float
    converged: bool
    at_bound: tuple[str, ...]
    table: tuple[Mapping[str, Any], ...]

    def rows(self) -> list[dict[str, Any]]:
        """Every combination of the grid with its best values, best first."""
        return [dict(row) for row in self.table]

    def __str__(self) -> str:
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.values.items())
        doubt = "" if self.converged else " (not converged)"
        bound = f"; at its bound: {', '.join(self.at_bound)}" if self.at_bound else ""
        return f"log marginal likelihood {self.log_marginal:.6g} at {values}{doubt}{bound}"


def fit_hyperparameters(
    kernel_fn: Callable[..., Tensor],
    start: Mapping[str, float],
    y: Tensor,
    grid: Mapping[str, Sequence[int]] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    jitter: Jitter = "auto",
    max_iterations: int = 100,
) -> Hyperparameters:
    """Maximise the log marginal likelihood over positive hyper-parameters, by L-BFGS-B on their logarithms.

    Args:
        kernel_fn: ``kernel_fn(**hyperparameters)`` -> Gram of the training inputs, (N, N) or (N, K, N, K). Positive ones
            come as float64 scalars that carry gradients, those of the grid as ints. Where the Gram carries no gradient, or a
            rule such as ``lzr.init.variance`` refuses to lose it, central differences are used. Of a network,
            ``lambda w, b: k.redrawn(lzr.init.variance(w, b)).nngp(x)`` with ``k = lzr.kernel(network)`` traces it once.
        start: a positive number for each name. ``noise`` is the variance of the targets' noise: it is added to the diagonal
            here and not passed to ``kernel_fn``.
        y: targets, (N,) or (N, K).
        grid: whole-number hyper-parameters such as depth, and the values to try: every combination is searched.
        bounds: (low, high) by name; a factor of 1e6 about the start by default.
        jitter: as in ``posterior``; by default what it takes, since the search may pass singular Grams.
        max_iterations: of L-BFGS-B for each combination.

    Raises:
        KernelError: for starts that are not positive, names that are unknown, or a Gram that cannot be factorised.

    Example:
        >>> x, y = torch.linspace(-1, 1, 20), torch.linspace(-1, 1, 20).sin() * 3
        >>> fit = fit_hyperparameters(lambda w, degree: w * (1 + torch.outer(x, x)) ** degree, {"w": 1.0, "noise": 0.01}, y,
        ...                           grid={"degree": [1, 2, 3]}, bounds={"noise": (1e-4, 1.0)})
        >>> fit.values["degree"], fit.at_bound
        (3, ('noise',))
    """
    grid, bounds = grid or {}, bounds or {}
    _check(start, grid, bounds)
    _check_names(kernel_fn, [name for name in (*start, *grid) if name != "noise" or name in grid])
    check_jitter(jitter)
    max_iterations = counted("max_iterations", max_iterations, refusal=KernelError)
    layout_of(y).columns(y, "y")
    found = []
    for choice in itertools.product(*grid.values()):
        found.append(_search(kernel_fn, start, dict(zip(grid, choice, strict=True)), y, bounds, jitter, max_iterations))
    found.sort(key=lambda one: -one.log_marginal)
    table = tuple({**one.values, "log_marginal": one.log_marginal, "converged": one.converged} for one in found)
    best = found[0]
    return Hyperparameters(best.values, best.log_marginal, best.converged, best.at_bound, table)


def _search(
    kernel_fn: Callable[..., Tensor],
    start: Mapping[str, float],
    fixed: Mapping[str, int],
    y: Tensor,
    bounds: Mapping[str, tuple[float, float]],
    jitter: Jitter,
    max_iterations: int,
) -> Hyperparameters:
    names = list(start)

    def value(logs: Tensor) -> tuple[Tensor, float]:
        given: dict[str, Any] = dict(zip(names, logs.exp(), strict=True))
        noise = given.pop("noise", 0.0)
        gram = tensor(kernel_fn(**given, **fixed), "the Gram of kernel_fn")
        if gram.ndim not in (2, 4):
            raise KernelError(f"got a Gram of shape {tuple(gram.shape)} from kernel_fn, expected (N, N) or (N, K, N, K)")
        if bool(gram.isfinite().all()):  # one that does not fit the targets does so everywhere: no bounds mend it
            layout_of(y, gram).gram(gram, "k_dd")
        try:
            return log_marginal(gram, y, noise, jitter=jitter), precision(gram)
        except KernelError as error:
            where = ", ".join(f"{name} {v:.3g}" for name, v in zip(names, logs.exp().tolist(), strict=True))
            raise KernelError(f"{error}; this was at {where}: pass bounds= to keep the search away from it") from error

    def cost(logs: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.tensor(logs, dtype=torch.float64, requires_grad=True)
        found, eps = _seen(value, leaf)
        gradient = _gradient(value, leaf, found, names, eps ** (1 / 3))
        return -float(found.detach()), -gradient

    limits = [bounds.get(name, (start[name] / _REACH, start[name] * _REACH)) for name in names]
    logs = [tuple(math.log(v) for v in limit) for limit in limits]
    first = np.clip(np.log([float(start[name]) for name in names]), *np.array(logs).T)
    result = minimize(cost, first, jac=True, method="L-BFGS-B", bounds=logs, options={"maxiter": max_iterations})
    best = {name: math.exp(v) for name, v in zip(names, result.x, strict=True)}
    at_bound = tuple(n for n, v, ends in zip(names, result.x, logs, strict=True) if min(abs(v - e) for e in ends) < 1e-6)
    return Hyperparameters({**best, **fixed}, -float(result.fun), bool(result.success), at_bound, ())


def _seen(value: Callable[[Tensor], tuple[Tensor, float]], leaf: Tensor) -> tuple[Tensor, float]:
    """With its gradient, unless the kernel refuses scalars that carry one: a part of the gradient would be a wrong one."""
    try:
        return value(leaf)
    except InitError:  # any other fault of a rule is raised again without gradients
        with torch.no_grad():
            return value(leaf)


def _gradient(
    value: Callable[[Tensor], tuple[Tensor, float]], leaf: Tensor, found: Tensor, names: list[str], size: float
) -> np.ndarray:
    """By autograd, if every hyper-parameter is seen through the Gram; else by central differences.

    Their ``size`` is the third root of the Gram's rounding error: in log space both errors are then about its square.
    """
    if found.requires_grad:
        (gradient,) = torch.autograd.grad(found, leaf)
        if bool((gradient != 0).all()) and bool(torch.isfinite(gradient).all()):
            return gradient.numpy()
    steps = size * torch.eye(len(names), dtype=torch.float64)
    with torch.no_grad():
        ends = [(float(value(leaf + step)[0]), float(value(leaf - step)[0])) for step in steps]
    return np.array([(up - down) / (2 * size) for up, down in ends])


def _check(start: Mapping[str, float], grid: Mapping[str, Sequence[int]], bounds: Mapping[str, tuple[float, float]]) -> None:
    for said, given in (("start", start), ("grid", grid), ("bounds", bounds)):
        if not isinstance(given, Mapping):
            raise KernelError(f"got {said}={given!r}, expected a dictionary by the names of the hyper-parameters")
    if not start:
        raise KernelError("got no hyper-parameters to fit, expected start={'sigma_w2': 1.0, ...}")
    for name, value in start.items():
        if not 0 < _number(value) < math.inf:
            raise KernelError(f"got {name} = {value} to start from, expected a positive number: the search is in its logarithm")
    for name, ends in bounds.items():
        if name not in start:
            raise KernelError(f"got bounds for '{name}', expected one of {', '.join(start)}")
        pair = tuple(_number(end) for end in ends) if isinstance(ends, (tuple, list)) else ()
        if len(pair) != 2 or not 0 < pair[0] < pair[1] < math.inf:
            raise KernelError(f"got bounds {ends} for '{name}', expected a pair (low, high) with 0 < low < high")
    for name, values in grid.items():
        if isinstance(values, str) or not hasattr(values, "__len__") or not hasattr(values, "__iter__"):
            raise KernelError(f"got grid '{name}' = {values!r}, expected a list of the values to try; pass [{values}] for one")
        if name in start or not len(values):
            raise KernelError(f"got grid '{name}' = {list(values)}, expected values for a name that is not in start")


def _number(value: Any) -> float:
    """As a float; what is none compares as false."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return math.nan


def _check_names(kernel_fn: Callable[..., Tensor], names: list[str]) -> None:
    """Whether the kernel takes the hyper-parameters by their names, where its signature tells."""
    if not callable(kernel_fn):
        raise KernelError(
            f"got kernel_fn {type(kernel_fn).__name__}, expected a function of {', '.join(names)} that gives a Gram"
        )
    try:
        signature = inspect.signature(kernel_fn)
    except (TypeError, ValueError):  # of compiled code
        return
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        raise KernelError(
            f"got a kernel_fn{signature} to call with {', '.join(names) or 'nothing'} ({error}), expected one that takes the names "
            "of start (but noise) and of grid; rename them, or bind the rest with functools.partial"
        ) from error

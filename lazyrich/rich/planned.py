"""From a plan for a user's network to the rich limit of that network: what is covered, in which units."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lazyrich.data import ArrayData, load
from lazyrich.errors import RichError
from lazyrich.family import Family
from lazyrich.graph import Graph, trace
from lazyrich.layer import shown
from lazyrich.rich.chain import COVERED, Maps, chain_of
from lazyrich.rich.dynamics import Dynamics
from lazyrich.rich.network import Activation, Layer, Network
from lazyrich.rich.noise import Start, Starts
from lazyrich.rich.solver import solve
from lazyrich.scaling import Plan, as_plan, mup
from lazyrich.scaling import plan as plan_for
from lazyrich.scaling.optimizer import GRADIENT, momentum_of
from lazyrich.scaling.tensor import Setting

LARGE = 2**20  # over the base width: what does not vanish there never does, and what vanishes is a thousand times smaller


def dmft(
    family: Family | Plan, data: Any, steps: int, *, lr: float, loss: str = "squared", width: int | None = None, **how: Any
) -> Dynamics:
    """Train a network at infinite width as its plan says, with the learning rate that its finite networks have.

    Dynamical mean-field theory of Bordelon & Pehlevan 2022 (arXiv:2205.09653), in discrete time.

    Args:
        family: a plan for SGD (``lzr.mup()``, ``lzr.richness(0.5, gamma)``); or a family, planned by muP. Its networks are linear
            layers of one width with one function of one number between them, by name or written out, or none; they are taken
            in the mode in which the factory returns them.
        data: what ``lzr.data.load`` takes. Labels become +-1 for a network of one output, rows of ones and zeros for more.
        steps: of gradient descent on all samples.
        lr: of the base-width network, as in ``plan.optimizer(model, lr)``.
        loss: ``squared`` (half the square, summed over outputs, averaged over samples), ``logistic`` or ``cross_entropy``.
        width: read richness and rates at this width of the family instead of in the limit; see ``network_of``.
        how: everything else that ``lazyrich.rich.solve`` takes: ``samples``, ``x_test``, ``batches`` ... Momentum is .9 for
            a plan for "momentum", else none.

    Raises:
        RichError: for a network or a plan that is not covered, saying what stands in the way.

    Example:
        >>> import lazyrich as lzr
        >>> family = lzr.Family(lambda n: lzr.zoo.MLP(n, inputs=5, outputs=1), base=64)
        >>> plan = lzr.plan(family, lzr.mup(), "sgd", init={"readout.bias": 0.0})
        >>> x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
        >>> limit = lzr.dmft(plan, (x, x[:, :1].sign()), steps=3, lr=0.1, samples=400)
        >>> limit.network.depth, bool(limit.loss[3] < limit.loss[0])
        (2, True)
    """
    plan = plan_for(family, mup(), "sgd") if isinstance(family, Family) else as_plan(family)
    known = load(data)
    network, maps = read(plan, known.x, width)
    if width is None and (regime := plan.scheme.classify("sgd").regime) != "feature learning":
        raise RichError(
            f"{plan.scheme.name} under SGD is in the {regime} regime, whose limit is lzr.kernel(plan); features move in the limit "
            "of lzr.mup() or lzr.richness(0.5), or give width= for the features that move at that width"
        )
    how = {"starts": _starts(plan, maps), "momentum": momentum_of(plan.optimizer_name), **how}
    targets = targets_of(known, network.outputs)
    return solve(network, known.x.double().flatten(1), targets, steps, lr=lr, loss=loss, **how)


def _starts(plan: Plan, maps: Maps) -> Starts:
    """First layer, biases and readout as the plan's own networks draw them, a neuron of the limit for a neuron of theirs."""

    def starts(neurons: int, seed: int) -> Start:
        width = math.ceil(neurons * plan.base / plan.tensors[maps[0][0]].shape[0])
        tensors, numbers = dict(plan.build(width, seed=seed).named_parameters()), plan.settings(width)

        def entries(name: str) -> Tensor:
            return tensors[name].detach().double() / numbers[name].std

        biases = tuple(None if b is None or numbers[b].std == 0 else entries(b)[:neurons] for _, b in maps[:-1])
        return Start(entries(maps[0][0])[:neurons], biases, entries(maps[-1][0])[:, :neurons])

    return starts


def network_of(plan: Plan, x: Tensor, width: int | None = None) -> Network:
    """The network that a plan's networks become as the width grows, in units where its learning rate is the plan's.

    Variances and rates are read off the plan's own numbers at a width where nothing else is left: see ``Network`` for what
    each of them is. A learning rate of the base-width network is ``lr`` of ``solve``.

    Between the limits: a scheme of richness r < 1/2 has gamma_0 = n^{r - 1/2} up to a constant at n hidden units. Read at a
    ``width``, the limit's training at that gamma_0 is, to leading order, what networks of that width do on average beyond
    their tangent kernel: feature kernels move by n^{2r - 1} (networks with their initial outputs taken off; at r = 0
    other corrections are as large).

    Args:
        plan: for SGD, with its family.
        x: some inputs, to trace the network with.
        width: of the family, where to read; by default so wide that only the limit is left.

    Raises:
        RichError: for what is not covered, or a scheme whose training has no limit.

    Example:
        >>> import lazyrich as lzr
        >>> family = lzr.Family(lambda n: lzr.zoo.MLP(n, inputs=5, outputs=1, bias=False), base=64)
        >>> plan, x = lzr.plan(family, lzr.richness(0.25), "sgd"), torch.zeros(2, 5)
        >>> round(network_of(plan, x, 64).gamma0 / network_of(plan, x, 1024).gamma0, 6)
        2.0
    """
    return read(plan, x, width)[0]


def hidden_layers(plan: Plan, x: Tensor) -> list[str]:
    """Names of the layers whose outputs are the limit's pre-activations h^1 ... h^L.

    Example:
        >>> import lazyrich as lzr
        >>> plan = lzr.plan(lzr.Family(lambda n: lzr.zoo.MLP(n, inputs=5, bias=False), base=64), lzr.mup(), "sgd")
        >>> hidden_layers(plan, torch.zeros(2, 5))
        ['hidden.0', 'hidden.1']
    """
    return names_of(read(plan, x)[1])


def names_of(maps: Maps) -> list[str]:
    """Of the hidden layers: their modules, or their weights where one module holds several.

    Example:
        >>> names_of([("first.weight", None), ("readout.weight", None)]), names_of([("v", None), ("readout.weight", None)])
        (['first'], ['(network)'])
        >>> names_of([("v", None), ("w", "b"), ("readout.weight", None)])
        ['v', 'w']
    """
    paths = [weight.rpartition(".")[0] for weight, _ in maps[:-1]]
    return [shown(path) if paths.count(path) == 1 else weight for path, (weight, _) in zip(paths, maps, strict=False)]


def random_offset(plan: Plan, x: Tensor) -> str | None:
    """Name of an output bias that starts at random numbers, which would stay in the limit; None where there is none.

    Example:
        >>> import lazyrich as lzr
        >>> random_offset(lzr.plan(lzr.Family(lzr.zoo.two_class), lzr.mup(), "sgd"), torch.zeros(2, 64))
        'readout.bias'
    """
    maps, _ = chain_of(traced(plan, x))
    bias = maps[-1][1]
    return bias if bias is not None and plan.settings(plan.base)[bias].std > 0 else None


def read(plan: Plan, x: Tensor, width: int | None = None) -> tuple[Network, Maps]:
    """``network_of`` with the names of the tensors that its layers have in the plan's networks."""
    if as_plan(plan).optimizer_name not in GRADIENT:
        raise RichError(f"the plan is for {plan.optimizer_name}; the rich limit is that of gradient descent, plan(..., 'sgd')")
    verdict = plan.scheme.classify("sgd")
    if verdict.regime not in ("feature learning", "kernel"):
        raise RichError(
            f"{plan.scheme.name} under SGD is {verdict.regime} ({verdict.why}), so no limit describes its training; those of "
            "lzr.mup() and lzr.ntk() have one"
        )
    for name, tensor in plan.tensors.items():
        if tensor.start and tensor.start.form and tensor.start.form.name not in ("normal", "uniform"):
            raise RichError(f"'{name}' starts {tensor.start.form.name}; the rich limit is that of independent entries")
    maps, activation = chain_of(traced(plan, x))
    width = LARGE * plan.base if width is None else width
    numbers, parameters = plan.settings(width), dict(plan.build(plan.base).named_parameters())
    _refuse_uncovered([name for pair in maps for name in pair if name is not None], numbers, parameters)
    assert plan.family is not None
    _refuse_uneven(maps, plan.family, width)
    return _network(maps, activation, numbers, plan.family.shapes(width)), maps


def traced(plan: Plan, x: Tensor) -> Graph:
    """The network of a plan at its base width, in the mode that its factory returns it in and finite networks train in.

    Raises:
        RichError: for a plan without its family.
    """
    if as_plan(plan).family is None:
        raise RichError("the plan was loaded without its family; give it: Plan.load(path, family=Family(factory, base=...))")
    if not isinstance(x, Tensor) or x.dim() < 1 or len(x) < 1:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise RichError(f"got inputs {got}, expected a tensor (N, ...), some inputs to trace the network with")
    model = plan.build(plan.base)
    return trace(model, x[:2].to(next(model.parameters()).dtype))


def _refuse_uncovered(names: list[str], numbers: dict[str, Setting], parameters: dict[str, nn.Parameter]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise RichError(f"'{name}' is used twice; {COVERED}, each with weights of its own")
        if not parameters[name].requires_grad:
            raise RichError(f"'{name}' is frozen; {COVERED}, all of which train")
        if numbers[name].multiplier != 1:
            raise RichError(f"'{name}' has a forward multiplier; plan with gauge='plain'")


def _refuse_uneven(maps: Maps, family: Family, width: int) -> None:
    """Hidden layers of different widths, told apart where the user knows them: at the base."""
    for at in (family.base, width):
        sizes = _widths(maps, family.shapes(at))
        other = _widths(maps, family.shapes(2 * family.base))
        narrow = [name for name, size in sizes.items() if at == family.base and other[name] == size]
        if narrow:
            raise RichError(
                f"'{narrow[0]}' makes {sizes[narrow[0]]} numbers at every width, a bottleneck, behind which the limit is random; "
                f"{COVERED}, all of which grow. Let it grow with the width, or see lazyrich.lazy.bottleneck for the lazy limit"
            )
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"{size} at '{name}'" for name, size in sizes.items())
            raise RichError(f"the hidden layers have different widths (at width {at}: {found}); {COVERED}, all of one width")


def _widths(maps: Maps, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    return {weight: shapes[weight][0] for weight, _ in maps[:-1]}


def _network(maps: Maps, activation: Activation, numbers: dict[str, Setting], shapes: Mapping[str, tuple[int, ...]]) -> Network:
    readout, offset = maps[-1]
    width = shapes[readout][1]
    gamma = 1 / (width * numbers[readout].std) if numbers[readout].std > 0 else float("inf")
    if offset is not None and numbers[offset].std > 0:
        raise RichError(
            f"'{offset}' starts at random numbers of size {numbers[offset].std:.2g}, which stay in the limit; start it at zero: "
            f"lzr.plan(..., init={{'{offset}': 0.0}})"
        )
    layers = []
    for i, (weight, bias) in enumerate(maps):
        last, fan_in = i == len(maps) - 1, shapes[weight][1]
        unit = 1 / width if last else width * gamma**2  # of learning rates, see Network
        layers.append(
            Layer(
                1.0 if last else fan_in * numbers[weight].std ** 2,
                0.0 if last or bias is None else numbers[bias].std ** 2,
                numbers[weight].lr / unit if last else fan_in * numbers[weight].lr / unit,
                0.0 if bias is None else numbers[bias].lr / (1.0 if last else unit),
            )
        )
    return Network(shapes[maps[0][0]][1], tuple(layers), activation, shapes[readout][0], gamma)


def targets_of(data: ArrayData, outputs: int) -> Tensor:
    """Numbers for a network's outputs, (N, C) float64: +-1 for two classes and one output, rows of ones and zeros for more."""
    if data.y.is_floating_point():
        return data.y.double().reshape(len(data), -1)
    if outputs == 1 and data.classes == 2:
        return 2.0 * data.y.double()[:, None] - 1
    if data.classes != outputs:
        raise RichError(
            f"got {data.classes} classes for a network of {outputs} output{'' if outputs == 1 else 's'}; give as many outputs, or "
            "one for two classes"
        )
    return torch.nn.functional.one_hot(data.y, outputs).double()

"""The kernel of a network at infinite width: NNGP and NTK between any inputs, from the module itself."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lazyrich.errors import KernelError
from lazyrich.gaussian import Dual
from lazyrich.graph import Graph, Node, trace
from lazyrich.graph.node import Batch
from lazyrich.init import Initialiser
from lazyrich.lazy.combination import NAME, combined, joins, roots_of
from lazyrich.lazy.explain import Explanation, explain
from lazyrich.lazy.field import Data, Field
from lazyrich.lazy.need import needs_of, readouts_of
from lazyrich.lazy.repeated import merged
from lazyrich.lazy.rule.table import Need
from lazyrich.lazy.run import Moments, Run
from lazyrich.lazy.tile import place, squares, strips
from lazyrich.lazy.weights import Init, Weights, weights_of, weights_of_plan
from lazyrich.memory import keep_freed_memory, large_pages
from lazyrich.scaling import Plan, Scheme, ntk

TILE = 6 * 2**20  # bytes of one array of a tile: few enough for the caches, enough to keep all threads busy


@dataclass
class Traced:
    """A network traced on inputs of one shape, and what its passes share."""

    graph: Graph
    pair: dict[str, Need]
    own: dict[str, Need]
    readouts: frozenset[str]
    duals: dict[str, Dual] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph) -> Traced:
        """A graph with what its operations read of each other."""
        return cls(graph, needs_of(graph), needs_of(graph, alone=True), readouts_of(graph))


_NO_INIT = "got init {}, expected lzr.init.variance(w, b), or such by pattern of tensor names"


class Kernel:
    """NNGP and NTK of a module in the kernel regime, for inputs of any shape that the module reads.

    Of a dense network layer by layer, with F and F' the averages E phi(u) phi(v) and E phi'(u) phi'(v) over (u, v) ~ N(0, K^{l-1}),
    K^0 = sigma_b^2 + sigma_w^2 x . x' / d and Theta^0 = K^0:

        K^l = sigma_b^2 + sigma_w^2 F(K^{l-1}),    Theta^l = K^l + sigma_w^2 F'(K^{l-1}) Theta^{l-1}

    ``k.nngp(x1, x2)`` is K = E[f(x1) f(x2)] over initialisations (Lee et al. 2018, arXiv:1711.00165), ``k.ntk(x1, x2)`` the
    tangent kernel Theta (Jacot et al. 2018, arXiv:1806.07572), both (N1, N2) for one output (outputs are independent copies;
    positions that the network returns are kept as last axes). Made by ``lazyrich.kernel``. Under ``richness(r)`` with r > 0
    the outputs of a plan start at (width / base)^-r times those of its base; ``nngp`` is then the covariance of
    (width / base)^r f.
    """

    def __init__(self, module: nn.Module, weights: Weights) -> None:
        self.module, self.weights = module, weights
        self._traced: dict[tuple[Any, ...], Traced] = {}

    def __repr__(self) -> str:
        return f"Kernel of {type(self.module).__name__} ({len(self.weights.laws)} tensors) under {self.weights.scheme.name}"

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the traces, which hold operators that cannot be copied and are made again."""
        return {**self.__dict__, "_traced": {}}

    def reweighted(self, weights: Weights) -> Kernel:
        """The same network under other laws, with the traces made so far.

        Example:
            >>> from lazyrich.init import variance
            >>> k = kernel(nn.Linear(2, 1), init=variance(2.0, 0.0))
            >>> other = k.reweighted(replace(k.weights, init={"*": variance(6.0, 0.0)}))
            >>> x = torch.eye(2, dtype=torch.float64)
            >>> k.nngp(x)[0, 0].item(), other.nngp(x)[0, 0].item()
            (1.0, 3.0)
        """
        made = Kernel(self.module, weights)
        made._traced = self._traced
        return made

    def redrawn(self, init: Initialiser | Mapping[str, Initialiser]) -> Kernel:
        """The same network under other variances, ``init`` as of ``lzr.kernel``: searches over them trace it once.

        Raises:
            KernelError: for the kernel of a plan, whose laws are the plan's.

        Example:
            >>> from lazyrich.init import variance
            >>> k, x = kernel(nn.Linear(2, 1)), torch.eye(2, dtype=torch.float64)
            >>> [k.redrawn(variance(w, 0.0)).nngp(x)[0, 0].item() for w in (2.0, 6.0)]
            [1.0, 3.0]
        """
        if self.weights.planned:
            raise KernelError("a plan has laws of its own; make another plan, or lzr.kernel(module, scheme, init)")
        if not isinstance(init, (Initialiser, Mapping)):
            raise KernelError(_NO_INIT.format(type(init).__name__))
        return self.reweighted(weights_of(self.module, self.weights.scheme, init))

    def nngp(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """Covariance of the outputs at initialisation."""
        return self(x1, x2, get=("nngp",))[0]

    def ntk(self, x1: Tensor, x2: Tensor | None = None) -> Tensor:
        """Tangent kernel."""
        return self(x1, x2, get=("ntk",))[0]

    def __call__(self, x1: Tensor, x2: Tensor | None = None, get: Sequence[str] = ("nngp", "ntk")) -> tuple[Tensor, ...]:
        """The asked kernels between two batches, or of one batch with itself (computed by halves)."""
        if unknown := [name for name in get if name not in ("nngp", "ntk")]:
            raise KernelError(f"got get={unknown}, expected 'nngp' and/or 'ntk'")
        whole: dict[str, Tensor] = {}
        for rows, columns, tile in self.tiles(x1, x2, tangent="ntk" in get):
            for name in get:
                values: Tensor = getattr(tile, name)
                if not bool(values.detach().sum().isfinite()) and not bool(values.isfinite().all()):
                    raise KernelError(self._culprit(x1, x2, "ntk" in get))
                if name not in whole:
                    whole[name] = large_pages(values, (len(x1), len(x1 if x2 is None else x2), *values.shape[2:]))
                place(whole[name], rows, columns, values, x2 is None)
        return tuple(whole[name] for name in get)

    def _culprit(self, x: Tensor, x2: Tensor | None, tangent: bool) -> str:
        """Where the numbers stop to be finite: of samples with themselves, else of pairs."""
        found: list[str] = []

        def watch(node: Node, value: Any) -> None:
            arrays = (value.nngp, value.ntk) if isinstance(value, Field) and not found else ()
            if not all(k is None or bool(k.isfinite().all()) for k in arrays):
                found.append(f"{node.op} at {node.place}")

        traced = self.traced(x)
        for block in x.split(self.tile_size(traced, x)):
            self._alone(traced, block, watch)
        tiles = self.tiles(x, x2, tangent, watch)
        while not found and next(tiles, None):
            pass
        where = f", first behind {found[0]}" if found else ""
        return (
            f"the kernel has entries that are not finite{where}: a nonlinearity that has no finite second moment (a logarithm, "
            "a negative power) or whose derivative has none (a root, a jump), or variances that grow beyond all numbers; use "
            "another nonlinearity, or smaller variances"
        )

    def diagonal(self, x: Tensor, get: str = "nngp") -> Tensor:
        """Of every input with itself, (N,): without the rest of the matrix."""
        if get not in ("nngp", "ntk"):
            raise KernelError(f"got get='{get}', expected 'nngp' or 'ntk'")
        found = torch.cat([getattr(_settled(run), get) for run in self._blocks(x, get == "ntk")])
        if not bool(found.isfinite().all()):
            raise KernelError(self._culprit(x, None, get == "ntk"))
        return found

    def _blocks(self, x: Tensor, tangent: bool, averaged: bool = False) -> Iterator[Run]:
        """Passes of blocks of samples, each sample with itself."""
        x = self._checked(x)
        traced = self.traced(x)
        for block in x.split(self.tile_size(traced, x)):
            yield self._run(traced, (block,), tangent, averaged=averaged)

    def layers(self, x: Tensor) -> dict[str, Tensor]:
        """What every module with weights returns at initialisation, by path: covariances per feature (N, N), means over positions.

        Example:
            >>> net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1))
            >>> from lazyrich.init import variance
            >>> found = kernel(net, init=variance(2.0, 0.0)).layers(torch.eye(2, dtype=torch.float64))
            >>> list(found), [round(v, 4) for v in found["2"][0].tolist()]
            (['0', '2'], [1.0, 0.3183])
        """
        x = self._checked(x)
        traced, found = self.traced(x), {}

        def watch(node: Node, value: Any) -> None:
            if node.path and isinstance(value, Field):
                found[node.path] = value.reduced().nngp.flatten(2).mean(2) if value.order else value.nngp

        moments = self._moments(traced, x)
        self._run(traced, (x, x), tangent=False, mirrored=True, first=moments, second=moments, watch=watch).output()
        return found

    def gradients(self, x: Tensor) -> dict[str, Tensor]:
        """E ||df/dW||^2 of one output for every tensor, (N,): the tangent kernel of that tensor alone, at a rate of one."""
        names = list(self.weights.laws)
        found = {}
        for name in names:
            alone = replace(self.weights, planned=True, rates={}, frozen=frozenset(names) - {name})
            runs = self.reweighted(alone)._blocks(x, True, averaged=True)
            found[name] = torch.cat([run.output().ntk for run in runs])  # type: ignore[misc]
        return found

    def explain(self, x: Tensor) -> Explanation:
        """Every operation with its rule, or the lack of one, and whether the kernels can be computed for such inputs."""
        traced = self.traced(self._checked(x))
        refusal, known, numbers = "", False, set()
        pair = x[:2] if len(x) > 1 else torch.cat([x, x])

        def watch(node: Node, value: Any) -> None:
            if isinstance(value, Data):
                numbers.add(node.name)

        try:
            self._alone(traced, x[:1], watch)
            self.nngp(pair)
            known = True
            self.ntk(pair)
        except KernelError as error:
            refusal = str(error)
        return explain(traced.graph, traced.pair, numbers, refusal, known)

    def tiles(
        self, x1: Tensor, x2: Tensor | None, tangent: bool, watch: Callable[[Node, Any], None] | None = None
    ) -> Iterator[tuple[slice, slice, Field]]:
        """The matrix in tiles: row slice, column slice, and the field between them; of one batch at least the upper half."""
        x1 = self._checked(x1)
        x2 = None if x2 is None else self._checked(x2)
        if x2 is not None and (x2.shape[1:] != x1.shape[1:] or x2.dtype != x1.dtype):
            raise KernelError(
                f"got inputs of shapes {tuple(x1.shape)} {x1.dtype} and {tuple(x2.shape)} {x2.dtype}; "
                "they may differ only in their number"
            )
        traced = self.traced(x1)
        with torch.set_grad_enabled(torch.is_grad_enabled() and (x1.requires_grad or (x2 is not None and x2.requires_grad))):
            first = self._moments(traced, x1)
            second = first if x2 is None else self._moments(traced, x2)
            other = x1 if x2 is None else x2
            keep_freed_memory()
            size = self.tile_size(traced, x1)
            for rows, columns in strips(len(x1), size * size) if x2 is None else squares(len(x1), len(other), size, False):
                known = {"first": _sliced(first, rows), "second": _sliced(second, columns)}
                mirrored = x2 is None and rows.start == columns.start
                run = self._run(traced, (x1[rows], other[columns]), tangent, mirrored=mirrored, watch=watch, **known)
                yield rows, columns, _settled(run)

    def tile_size(self, traced: Traced, x: Tensor) -> int:
        """Samples a side, so that the largest array of a tile has about ``TILE`` bytes."""
        return max(1, math.isqrt(_entries(x) // self._pairs(traced, traced.pair)))

    def _pairs(self, traced: Traced, needs: Mapping[str, Need]) -> int:
        """Pairs of positions in the largest array, for each pair of samples."""
        pairs = 1
        for node in traced.graph:
            need = needs.get(node.name, Need.NONE)
            if node.op in ("parameter", "constant", "input") or node.shape is None or need is Need.NONE:
                continue
            sizes = sorted((s for s in node.shape if isinstance(s, int)), reverse=True)
            positions = math.prod(sizes) // max(_features(node.shape), 1)
            pairs = max(pairs, positions**2 if need is Need.ALL else positions)
        return pairs

    def traced(self, x: Tensor) -> Traced:
        """The graph for inputs of this shape, traced once."""
        key = (tuple(x.shape[1:]), x.dtype.is_floating_point)
        if key not in self._traced:
            graph = trace(self.module, x.detach())
            self._refuse_mixing(graph, x)
            self._traced[key] = self._combined(graph, x[:1].detach())
        return self._traced[key]

    def _combined(self, graph: Graph, x: Tensor) -> Traced:
        """Several operations on one branch's positions as one matrix, where rules do not join them one after the other."""
        once = merged(graph)
        graph = once if once is not graph and self._refused_at(graph, x) else graph
        found, branches, kept = graph, set[str](), frozenset[str]()
        while joins(graph, roots := roots_of(graph, kept)) and (name := self._refused_at(found, x)):
            if found[name].op == NAME:
                kept |= {name}
            elif roots.get(name, name) not in (name, *branches):
                branches.add(roots[name])
            else:
                break
            found = combined(graph, branches, kept)
        return Traced.of(found)

    def _refused_at(self, graph: Graph, x: Tensor) -> str:
        """The operation that has no NNGP; empty where all have."""
        traced = Traced.of(graph)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they come when the kernel is asked for
                moments = self._moments(traced, x)
                self._run(traced, (x, x), tangent=False, first=moments, second=moments).output()  # joins are the same in both
        except KernelError as error:
            return error.node
        return ""

    def _refuse_mixing(self, graph: Graph, x: Tensor) -> None:
        """Operations on the inputs alone must treat samples one by one; a rule sees to the others."""
        pair = x[:2].detach() if len(x) > 1 else torch.cat([x, x.roll(1, -1)]).detach()
        plain = [node for node in graph if node.name not in graph.weighed and node.op not in ("constant", "output")]
        if len(plain) < 2:
            return
        runs = [Run(graph, self.weights, {}, frozenset(), (part,), False) for part in (pair, pair[:1], pair[1:])]
        values: list[dict[str, Any]] = [{}, {}, {}]
        for node in graph:
            if node.name in graph.weighed or node.op == "output":
                continue
            found = [run.value(node, known) for run, known in zip(runs, values, strict=True)]
            for known, value in zip(values, found, strict=True):
                known[node.name] = value
            if isinstance(found[0], Data) and not _row_by_row(node, *found) and not _counts(graph, node):
                raise KernelError(
                    f"{node.op} at {node.place}: it mixes the samples of the inputs, so there is no kernel between two samples "
                    f"alone; {_BY_ITSELF.get(node.kind, 'treat every sample by itself')}"
                )

    def _checked(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or x.dim() < 1 or len(x) < 1:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            mend = "" if isinstance(x, Tensor) else "; of several inputs make one, and split it in a module around the network"
            raise KernelError(f"got inputs {got}, expected a tensor (N, ...) with N at least 1{mend}")
        if x.is_floating_point() and not (bool(x.sum().isfinite()) or bool(torch.isfinite(x).all())):  # a sum is quicker
            raise KernelError(f"the inputs {tuple(x.shape)} hold values that are not finite; clean them")
        return x

    def _moments(self, traced: Traced, x: Tensor) -> Moments:
        """Variances at every node that needs them, for all samples."""
        size = max(1, _entries(x) // self._pairs(traced, traced.own))
        blocks = [self._alone(traced, block).first for block in x.split(size)]
        found: Moments = {}
        for key in blocks[0]:
            q, m = (torch.cat([block[key][i] for block in blocks]) for i in (0, 1))
            found[key] = (q, m, *(traced.duals[key].prepared(q)[1:] if key in traced.duals else ()))
        return found

    def _alone(self, traced: Traced, x: Tensor, watch: Callable[[Node, Any], None] | None = None) -> Run:
        """The pass of a batch with itself that keeps only what norms and nonlinearities look at."""
        run = self._run(traced, (x,), tangent=False, watch=watch)
        run.needs = traced.own
        run.output()
        return run

    def _run(self, traced: Traced, inputs: tuple[Tensor, ...], tangent: bool, **more: Any) -> Run:
        return Run(traced.graph, self.weights, traced.pair, traced.readouts, inputs, tangent, duals=traced.duals, **more)


def kernel(network: nn.Module | Plan, scheme: Scheme | None = None, init: Init = None) -> Kernel:
    """The kernel of a network at infinite width, traced from the module as it is.

    The recursion of Lee et al. 2018 (arXiv:1711.00165) for the network's covariance, and of theorem 1 of Jacot et al. 2018
    (arXiv:1806.07572) for its tangent kernel, operation by operation; written out at ``Kernel``.

    The network's own widths do not matter, only its architecture, the laws of its weights and, for the tangent kernel, their
    learning rates. Biases are trained and counted, as in the literature, and so are weights that start at zero (a zero head,
    LoRA's second factor), at the rate of weights of variance one.

    All inner widths of a module are taken to grow; of a plan, a bottleneck that stays narrow is known and refused, as its limit is
    random (``lazyrich.lazy.bottleneck``). So is, of both, one feature that meets all features of an inner layer (a gate
    ``nn.Linear(n, 1)``), which stays random too. The number of outputs stays as it is: their mean fluctuates, and norms over
    fewer than 64 of them are refused. Sums over inputs, and biases, are taken to be Gaussian; where few inputs with weights that
    are not normal (torch's own are uniform), or biases that are not, put the kernel off by more than 5 %, a warning says by how
    much. A nonlinearity or a product behind the readout leaves the tangent kernel random, which is refused; training does not
    follow that of nonlinearities with jumps, which a warning says.

    Args:
        network: any module of the traced operations (``Kernel.explain`` lists them), or a plan for SGD.
        scheme: a parameterisation in the kernel regime: ``ntk()`` (default), ``standard(max_stable=True)``, ``richness(r)``.
        init: ``init.variance(w, b)`` for all linear and convolutional layers (variance w / fan_in, biases b), or by pattern of
            tensor names; None takes the laws that the module itself draws from. A tensor whose entries act one by one (token,
            table, gain) keeps its own law, but where a pattern is exactly its name: then w is the variance of its entries.
            Laws that no ``reset_parameters`` of their module tells are measured from the entries, with a warning where there
            are few.

    Raises:
        KernelError: for a scheme whose limit is no kernel; operations without a rule, and bottlenecks, are refused when inputs
            are given.

    Example:
        >>> import lazyrich as lzr
        >>> net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1))
        >>> k = lzr.kernel(net, init=lzr.init.variance(w=2.0, b=0.0))
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
        >>> [[round(v, 4) for v in row] for row in k.nngp(x).tolist()]  # arc-cosine kernel
        [[1.0, 0.3183], [0.3183, 1.0]]
    """
    if isinstance(network, Plan):
        if scheme is not None or init is not None:
            raise KernelError("a plan has a scheme and laws of its own; give kernel(plan), or kernel(module, scheme, init)")
        if network.family is None:
            raise KernelError("this plan was loaded without its family; use Plan.load(path, family=Family(factory, base=...))")
        module = network.family.build(network.base).eval()
        held = frozenset(name for name, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad)
        return Kernel(module, replace(weights_of_plan(network), frozen=held))
    if not isinstance(network, nn.Module):
        raise KernelError(f"got {type(network).__name__}, expected an nn.Module or a plan")
    if scheme is not None and not isinstance(scheme, Scheme):
        raise KernelError(f"got scheme {type(scheme).__name__}, expected a scheme as lzr.ntk(); laws are given as init=...")
    if init is not None and not isinstance(init, (Initialiser, Mapping)):
        raise KernelError(_NO_INIT.format(type(init).__name__))
    return Kernel(network, weights_of(network, scheme or ntk(), init))


_BY_ITSELF = {"EmbeddingBag": "write it as nn.Embedding(...)(x).mean(1), or sum(1)"}


def _settled(run: Run) -> Field:
    """What a pass returns, if the tangent kernel that was asked for is the same of all wide networks."""
    field = run.output()
    if run.random is not None:
        raise run.random
    return field


_VIEWS = ("slice", "unsqueeze", "view", "reshape", "expand", "to")


def _counts(graph: Graph, node: Node) -> bool:
    """Whether it counts the samples, to pick something of each, of which the rule sees to it that it is the sample's own."""
    read = all(reader.op in ("index", *_VIEWS) for reader in graph if node.name in reader.inputs)
    while node.op in _VIEWS:
        node = graph[node.inputs[0]]
    return read and node.op == "arange"


def _row_by_row(node: Node, both: Data, first: Data, second: Data) -> bool:
    """Whether a value of two samples is made of what each gives alone."""
    axes = [i for i, size in enumerate(node.shape or ()) if isinstance(size, Batch)]
    tensors = [data.tensors[0] for data in (both, first, second)]
    if both.constant or len(axes) != 1 or not all(isinstance(t, Tensor) for t in tensors):
        return True
    whole, *parts = tensors
    joined = torch.cat(parts, axes[0])
    return whole.shape == joined.shape and torch.allclose(whole.double(), joined.double(), rtol=1e-4, atol=1e-6, equal_nan=True)


def _entries(x: Tensor) -> int:
    """Entries of one array of a tile."""
    return TILE // (x.element_size() if x.is_floating_point() else 4)


def _sliced(moments: Moments, at: slice) -> Moments:
    return {key: tuple(t[at] for t in found) for key, found in moments.items()}


def _features(shape: tuple[Any, ...]) -> int:
    """The channel count, guessed for the size of tiles only: the axis behind the batch, or the last."""
    sizes = [s for s in shape if isinstance(s, int)]
    return sizes[0] if len(sizes) >= 3 else (sizes[-1] if sizes else 1)

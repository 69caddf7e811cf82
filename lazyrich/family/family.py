"""A family: a network with its width left open, and the role of each of its tensors.

Roles come from two builds on the meta device (a base and a wider probe) and from what each module does with its tensors;
they are never guessed from names.
"""

from __future__ import annotations

import fnmatch
import hashlib
import inspect
import math
import numbers
import random
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from lazyrich.amount import counted
from lazyrich.errors import FamilyError, LazyrichError
from lazyrich.family.base_shapes import candidates, read_base_shapes, width_of
from lazyrich.family.law import Law, LawRecorder, measure_laws, refuse_complex
from lazyrich.family.parametrized import layer_kind, norms, place, refuse_parametrized
from lazyrich.family.reading import reading
from lazyrich.family.role import Axes, Role, giving, grown
from lazyrich.fingerprint import fingerprint

POOLED_SEEDS = 4


@dataclass(frozen=True)
class TensorInfo:
    """What a family knows of one tensor.

    ``owner`` is the path of the module that holds it, ``aliases`` are its other names where it is tied, ``uses`` the role
    that each of its names, its own first, would have had by itself. ``norm_of`` names the directions that it is the gains of,
    where it belongs to a weight norm.
    """

    name: str
    owner: str
    kind: str
    shape: tuple[int, ...]
    probe_shape: tuple[int, ...]
    role: Role
    axes: Axes
    aliases: tuple[str, ...] = ()
    uses: tuple[Role, ...] = ()
    norm_of: str = field(default="", repr=False)


class Family:
    """A network with its width left open.

    Args:
        factory: ``factory(width) -> nn.Module``, or ``factory(width, depth)`` when ``depth`` is given. Any ``nn.Module``.
        base: the width at which every plan is exactly the plain network.
        depth: passed to the factory as its second argument, when it takes one.
        probe: the wider build that shows what grows; twice the base by default.
        roles: ``{tensor name or pattern: role}`` for tensors that shapes cannot tell.

    Raises:
        FamilyError: if a build fails, nothing grows, or a tensor's role is unclear.

    Example:
        >>> family = Family(lambda n: nn.Sequential(nn.Linear(4, n), nn.ReLU(), nn.Linear(n, 2)), base=8)
        >>> {name: str(role) for name, role in family.roles.items()}
        {'0.weight': 'input', '0.bias': 'vector', '2.weight': 'output', '2.bias': 'fixed'}
    """

    def __init__(
        self,
        factory: Callable[..., nn.Module] | None,
        base: int = 64,
        *,
        depth: int | None = None,
        probe: int | None = None,
        roles: Mapping[str, Role | str] | None = None,
        _builds: tuple[nn.Module, nn.Module] | None = None,
    ) -> None:
        if isinstance(factory, nn.Module) or not (callable(factory) or factory is None):
            raise FamilyError(
                f"got {type(factory).__name__}, expected a function that makes the network for a width, such as "
                "lambda width: Net(width); of two built networks Family.from_builds(small, large) makes a family"
            )
        if not isinstance(base, numbers.Integral) or isinstance(base, bool) or base < 1:
            raise FamilyError(
                f"got base width {base!r}, expected a whole number of at least 1; give the width at which the network was tuned, "
                "such as 64"
            )
        base = int(base)
        depth = None if depth is None else counted("depth", depth, refusal=FamilyError)
        if probe is not None and counted("probe", probe, refusal=FamilyError) <= base:
            raise FamilyError(f"got base={base} and probe={probe}, expected 1 <= base < probe")
        self.factory, self.base, self.depth, self.probe = factory, base, depth, probe or 2 * base
        self._builds = _builds
        self._meta_tells: bool | None = None
        self._overrides = {pattern: _as_role(pattern, role) for pattern, role in (roles or {}).items()}
        self._laws: dict[int, dict[str, Law]] = {}

    @classmethod
    def from_builds(cls, small: nn.Module, large: nn.Module, **options: Any) -> Family:
        """A family known only by two builds of the same network; ``options`` as for ``Family``.

        ``base`` and ``probe`` name their widths (64 and twice that when they are not given). Such a family can plan for
        any third build that it is handed, but cannot build one itself.

        Example:
            >>> net = lambda n: nn.Sequential(nn.Linear(4, n), nn.Linear(n, 2))
            >>> Family.from_builds(net(8), net(16), base=8).roles["1.weight"]
            <Role.OUTPUT: 'output'>
        """
        return cls(None, _builds=(small, large), **options)

    @classmethod
    def from_mup(cls, path: str | Path, factory: Callable[..., nn.Module], **options: Any) -> Family:
        """The family of a network that was tuned with the package mup, from its base-shapes file; ``options`` as for ``Family``.

        The base is the width at which the factory has the file's shapes, and what grows must be what the file calls a width.
        ``lzr.plan(Family.from_mup("net.bsh", make), lzr.mup(), "adam")`` then trains as mup did, with plain layers.

        Raises:
            FamilyError: for a file that holds no base shapes, or a factory whose networks do not have them.
        """
        shapes = read_base_shapes(path)
        widths = candidates(shapes)
        if not widths:
            raise FamilyError(f"in {path} no axis is a width: its base and delta models were the same")
        built: dict[int, dict[str, tuple[int, ...]]] = {}
        for width in widths:
            with suppress(FamilyError):  # a size that is no width of this factory
                built[width] = cls(factory, width, **options).shapes(width)
        base = width_of(shapes, built)
        if base is None:
            known: Mapping[str, tuple[int, ...]] = next(iter(built.values()), {})
            odd: list[str] = sorted({*known} ^ {*shapes})[:3]
            what = (
                f"the file and the factory differ in {', '.join(odd)}"
                if odd
                else f"tried widths {', '.join(map(str, widths[:5]))}"
            )
            raise FamilyError(f"the factory has the base shapes of {path} at no width ({what}); give Family(factory, base=...)")
        family = cls(factory, base, **options)
        for name, info in family.tensors.items():
            grows, widths = list(grown(info.shape, info.probe_shape)), [i for i, n in enumerate(shapes[name]) if n is not None]
            if grows != widths:
                raise FamilyError(
                    f"'{name}' grows in axes {grows}, but {path} calls {widths} widths; the factory is not the file's network"
                )
        return family

    @property
    def name(self) -> str:
        """The factory's own name, of a lambda its file and line."""
        code = getattr(self.factory, "__code__", None)
        if self._plain_name == "<lambda>" and code is not None:
            return f"lambda at {Path(code.co_filename).name}:{code.co_firstlineno}"
        return self._plain_name

    @property
    def _plain_name(self) -> str:
        return getattr(self.factory, "__name__", type(self.factory).__name__) if self.factory else "two builds"

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """Everything known of each trainable tensor, keyed by its first name in ``named_parameters()``."""
        return _describe(self.sketch(self.base), self.sketch(self.probe), self._overrides, self.base, self.probe)

    @cached_property
    def roles(self) -> dict[str, Role]:
        """Role of every tensor, by name."""
        return {name: info.role for name, info in self.tensors.items()}

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of what the family builds: every tensor's role and shapes, the factory's own file and what it holds."""
        code = fingerprint(self.factory) if self.factory else ""
        return hashlib.sha256(f"{list(self.tensors.values())}{code}".encode()).hexdigest()[:16]

    def given(self, name: str) -> bool:
        """Whether ``roles`` said what a tensor is."""
        info = self.tensors[name]
        return any(fnmatch.fnmatch(one, pattern) for one in (name, *info.aliases) for pattern in self._overrides)

    def shapes(self, width: int) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor at a width, without allocating the network."""
        return {name: tuple(p.shape) for name, p in self.sketch(width).named_parameters()}

    def build(self, width: int, seed: int = 0, device: torch.device | str = "cpu") -> nn.Module:
        """The factory's own network at a width, drawn from an explicit seed; global generators are left as they were.

        Example:
            >>> family = Family(lambda n: nn.Linear(3, n), base=4)
            >>> torch.equal(family.build(8, seed=1).weight, family.build(8, seed=1).weight)
            True
        """
        with seeded(seed):
            model = self._call(width)
        return model.to(device)

    def laws(self, width: int) -> dict[str, Law]:
        """The law that each tensor is drawn from at a width: recorded exactly where possible, else measured."""
        if width not in self._laws:
            self._laws[width] = self._record_laws(width)
        return self._laws[width]

    def _record_laws(self, width: int) -> dict[str, Law]:
        names = list(self.tensors)
        if self._builds:
            known = {self.base: self._builds[0], self.probe: self._builds[1]}
            if width not in known:
                raise self._no_factory()
            return measure_laws([known[width]], names)
        recorder = LawRecorder()
        params = dict(self._drawn(width, recorder).named_parameters())
        found = {name: recorder.law(params[name]) for name in names}
        unclear = [name for name, law in found.items() if law is None]
        measured = measure_laws([self.build(width, seed) for seed in range(POOLED_SEEDS)], unclear) if unclear else {}
        return {name: law or measured[name] for name, law in found.items()}

    def _drawn(self, width: int, recorder: LawRecorder) -> nn.Module:
        """A network whose draws are recorded: on the meta device, unless the factory draws otherwise there.

        Some libraries leave a model on the meta device as its layers' defaults, and draw their own only in real memory.
        """
        if self._meta_tells is None:
            trial = LawRecorder()
            sketch, real = dict(self.sketch(self.base, trial).named_parameters()), self.build(self.base)
            laws = {name: trial.law(tensor) for name, tensor in sketch.items()}
            self._meta_tells = all(law.fits(p) for name, p in real.named_parameters() if (law := laws.get(name)))
        if self._meta_tells:
            return self.sketch(width, recorder)
        with seeded(0):
            return self._call(width, recorder)

    def sketch(self, width: int, recorder: LawRecorder | None = None) -> nn.Module:
        """The network at a width with shapes and names only; a factory that needs real memory gets it."""
        if self._builds and width in (self.base, self.probe):
            return self._builds[width != self.base]
        with seeded(0):
            try:
                with torch.device("meta"):
                    return self._call(width, recorder)
            except (LazyrichError, NotImplementedError, RuntimeError):
                return self._call(width, recorder)

    def _call(self, width: int, recorder: LawRecorder | None = None) -> nn.Module:
        if self.factory is None:
            raise self._no_factory()
        arguments = (width,) if self.depth is None else (width, self.depth)
        try:
            if recorder is None:
                model = self.factory(*arguments)
            else:
                with recorder:
                    model = self.factory(*arguments)
        except LazyrichError:
            raise
        except (Exception, SystemExit) as error:  # the user's code may raise anything; its first line is what they need to see
            first = (str(error).splitlines() or [""])[0]
            raise FamilyError(
                f"the factory '{self.name}' failed at {_call_text(arguments)}: {type(error).__name__}: {first}. "
                f"{_mend(self.factory, arguments)}"
            ) from error
        if not isinstance(model, nn.Module):
            raise FamilyError(
                f"the factory '{self.name}' returned {type(model).__name__} at {_call_text(arguments)}, expected an nn.Module"
            )
        _refuse_lazy(model)
        return model

    def _no_factory(self) -> FamilyError:
        return FamilyError(
            "this family was made from two builds and cannot build a third; "
            "use plan.apply_(model) on your own build, or give a factory: Family(factory, base=...)"
        )

    def __repr__(self) -> str:
        return f"Family({self._plain_name}, base={self.base})"  # which settings of studies hold: no line numbers that move


def _mend(factory: Callable[..., nn.Module], arguments: tuple[int, ...]) -> str:
    """What a factory that failed must do: be called at all, first."""
    try:
        inspect.signature(factory).bind(*arguments)
    except TypeError:
        if len(arguments) == 1 and _takes(factory, 2):
            return "It takes a second argument: give a depth (depth=3, on the command line --depth 3)."
        if len(arguments) == 2 and _takes(factory, 1):
            return "It takes the width alone: leave out the depth (depth=, on the command line --depth)."
        given = ("width", "depth")[: len(arguments)]
        named = ", ".join(f"NAME={name}" for name in given)
        return (
            f"A factory is called by position, as factory({', '.join(given)}): give a function that takes it so, such as "
            f"lambda {', '.join(given)}: factory({named})."
        )
    except ValueError:  # a callable without a signature
        pass
    return "It must return an nn.Module for the base width and every wider one that is asked for."


def _takes(factory: Callable[..., nn.Module], count: int) -> bool:
    try:
        inspect.signature(factory).bind(*range(count))
    except TypeError:
        return False
    return True


def _call_text(arguments: tuple[int, ...]) -> str:
    return "width " + str(arguments[0]) + (f", depth {arguments[1]}" if len(arguments) > 1 else "")


def as_family(value: Any) -> Family:
    """The value, if it is a family.

    Raises:
        FamilyError: if it is something else, such as a factory by itself.

    Example:
        >>> as_family(lambda width: nn.Linear(4, width))
        Traceback (most recent call last):
        ...
        lazyrich.errors.FamilyError: got function, expected a family: lazyrich.Family(factory, base=64)
    """
    if not isinstance(value, Family):
        raise FamilyError(f"got {type(value).__name__}, expected a family: lazyrich.Family(factory, base=64)")
    return value


def _as_role(pattern: str, role: Role | str) -> Role:
    try:
        return Role(role)
    except ValueError:
        raise FamilyError(f"got role {role!r} for '{pattern}', expected one of {', '.join(r.value for r in Role)}") from None


def _refuse_lazy(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise FamilyError(
                f"tensor '{name}' belongs to a lazy module, which has no shape before its first input; "
                "give the layer its size (nn.Linear(in_features, ...) instead of nn.LazyLinear(...))"
            )


def _describe(
    small: nn.Module, large: nn.Module, overrides: Mapping[str, Role], base: int, probe: int
) -> dict[str, TensorInfo]:
    shapes = {name: tuple(p.shape) for name, p in large.named_parameters()}
    own = dict(small.named_parameters())
    if not own:
        raise FamilyError("the network has no parameters, so there is nothing to scale")
    refuse_complex(own.items())
    if set(own) != set(shapes):
        odd = sorted(set(own) ^ set(shapes))[:3]
        raise FamilyError(
            f"builds at widths {base} and {probe} hold different tensors (for example {', '.join(odd)}); "
            "only widths may change between builds, keep the depth fixed"
        )
    names_of: dict[int, list[str]] = {}
    for name, parameter in small.named_parameters(remove_duplicate=False):
        names_of.setdefault(id(parameter), []).append(name)
    unmatched = [p for p in overrides if not any(fnmatch.fnmatch(n, p) for ns in names_of.values() for n in ns)]
    if unmatched:
        more = "..." if len(own) > 8 else ""
        raise FamilyError(
            f"roles= pattern '{unmatched[0]}' matches no tensor; the tensors are {', '.join(list(own)[:8])}{more}"
        )
    refuse_parametrized(large, {name: tuple(p.shape) for name, p in own.items()}, shapes, overrides)
    tensors = {}
    for name, parameter in own.items():
        if len(shapes[name]) != parameter.dim():
            raise FamilyError(f"tensor '{name}' has {parameter.dim()} axes at width {base}, {len(shapes[name])} at {probe}")
        # axes are read off the wider build: a grouped conv may look depthwise at the base by chance
        tensors[name] = _inform(small, large, names_of[id(parameter)], tuple(parameter.shape), shapes[name], overrides)
    if all(info.role is Role.FIXED for info in tensors.values()):
        raise FamilyError(
            f"no tensor changes its shape between widths {base} and {probe}: the factory ignores its width. "
            "Use the argument: def factory(width): return Net(hidden=width)"
        )
    return tensors


def _inform(
    small: nn.Module,
    model: nn.Module,
    names: list[str],
    base: tuple[int, ...],
    probe: tuple[int, ...],
    overrides: Mapping[str, Role],
) -> TensorInfo:
    readings = [reading(small, model, name, base, probe, overrides, len(names) == 1) for name in names]
    name, (role, axes) = names[0], readings[0]
    owner = name.rpartition(".")[0]
    uses = tuple(use for use, _ in readings)
    given = [reading for n, reading in zip(names, readings, strict=True) if any(fnmatch.fnmatch(n, p) for p in overrides)]
    if set(uses) == {Role.INPUT, Role.OUTPUT}:  # a tied table is drawn as an embedding
        role, axes = next(reading for reading in readings if reading[0] is Role.INPUT)
    elif len(set(uses)) > 1 and given:
        role, axes = given[0]
        uses = (role,) * len(names)
    elif len(set(uses)) > 1:
        said = ", ".join(f"'{n}' as {use}" for n, use in zip(names, uses, strict=True))
        raise FamilyError(
            f"one tied tensor is used in roles that no scheme reconciles: {said}. "
            f"Untie it, or say which role counts: {giving(name, Role.INPUT)}"
        )
    kind = layer_kind(model.get_submodule(place(name)[0]))
    return TensorInfo(name, owner, kind, base, probe, role, axes, tuple(names[1:]), uses, norms(model).get(name, ""))


@contextmanager
def seeded(seed: int):
    """All generators (torch, numpy, random) set to a seed inside, and given back as they were after."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        # for devices that are not there torch writes down the stack at each call, which takes up to half a millisecond
        (torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed)(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def growth(shape: tuple[int, ...], base: tuple[int, ...], axes: tuple[int, ...]) -> float:
    """Product of the ratios of the given axes between a shape and its base shape.

    Example:
        >>> growth((512, 256), (64, 64), (1,))
        4.0
    """
    return math.prod(shape[i] / base[i] for i in axes)

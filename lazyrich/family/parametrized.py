"""Weights behind parametrizations: which of them a plan can speak of, and why not of the others."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from contextlib import suppress

from torch import nn
from torch.nn.utils.parametrizations import _Orthogonal, _SpectralNorm, _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from lazyrich.errors import FamilyError
from lazyrich.family.role import Role, giving_all, role_of
from lazyrich.family.semantics import read_axes

INSIDE = "parametrizations"
PLAIN = "take the parametrization off this layer and plan the plain one"
FIXED_SIZE = {
    _Orthogonal: "keeps all singular values of the weight at one, whatever the original's size, so that no plan can give it "
    f"another; {PLAIN}, which may start orthogonal: lazyrich.plan(..., init={{'NAME': lazyrich.init.orthogonal()}})",
    _SpectralNorm: "divides the original by its spectral norm, so that its planned initial size has no effect; "
    f"{PLAIN}: a plan keeps what the layer does to its features at every width",
}
Shapes = Mapping[str, tuple[int, ...]]


def place(name: str) -> tuple[str, str]:
    """The module and the name of the weight that a tensor, also one behind a parametrization, is for.

    Example:
        >>> place("a.weight"), place("a.parametrizations.weight.original1"), place("parametrizations.weight.original0")
        (('a', 'weight'), ('a', 'weight'), ('', 'weight'))
    """
    owner, behind, rest = f".{name}".partition(f".{INSIDE}.")
    if behind:
        return owner[1:], rest.partition(".")[0]
    owner, _, leaf = name.rpartition(".")
    return owner, leaf


def layer_kind(module: nn.Module) -> str:
    """The name of a module's type, without what a parametrization makes of it.

    Example:
        >>> layer_kind(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
        'Linear'
    """
    cls = type(module)
    return (cls.__mro__[1] if hasattr(module, INSIDE) and cls.__name__.startswith("Parametrized") else cls).__name__


def norms(model: nn.Module) -> dict[str, str]:
    """The weight norms that a plan can speak of: the name of each one's gains, and of the directions that they multiply.

    They are those with a gain for every output: W = g v/|v|.

    Example:
        >>> norms(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
        {'parametrizations.weight.original0': 'parametrizations.weight.original1'}
    """
    return {
        f"{path}.original0": f"{path}.original1" for path, leaf, several in _lists(model) if _normed(model, path, leaf, several)
    }


def refuse_parametrized(model: nn.Module, base: Shapes, probe: Shapes, given: Mapping[str, Role]) -> None:
    """Refuse growing tensors behind parametrizations of which no plan is right, and those that need a role and have none.

    Raises:
        FamilyError: with the reason and the mend.
    """
    unknown: dict[str, Role | None] = {}
    for path, leaf, several in _lists(model):
        names = [name for name in base if name.rpartition(".")[0] == path and base[name] != probe[name]]
        if not names or _normed(model, path, leaf, several):
            continue
        layer = ".".join(part for part in (place(names[0])[0], leaf) if part)
        for one in several:
            _refuse_kind(one, layer)
        open_ = [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in given)]
        unknown |= {name: _role(model, name, base[name], probe[name]) for name in open_}
    if unknown:
        told = {name: role for name, role in unknown.items() if role is not None}
        mend = f", or, if the weight is proportional to the original, give that the weight's own role: {giving_all(told)}"
        raise FamilyError(
            f"{', '.join(map(repr, unknown))}: hidden originals of parametrizations, whose shapes do not tell what they do; plan "
            f"the network without the parametrization{mend if told else ''}"
        )
    for path, module in model.named_modules():
        _refuse_hooks(path, module, base, probe)


def _role(model: nn.Module, name: str, base: tuple[int, ...], probe: tuple[int, ...]) -> Role | None:
    """The role of the weight that an original of the same shape is for; None where there is none."""
    owner, leaf = place(name)
    with suppress(FamilyError, RuntimeError):  # a parametrization that does not run here suggests nothing
        module = model.get_submodule(owner)
        if tuple(getattr(module, leaf).shape) == probe:
            return role_of(name, read_axes(module, leaf, base), base, probe)[0]
    return None


def _refuse_kind(one: nn.Module, layer: str) -> None:
    for kind, why in FIXED_SIZE.items():
        if isinstance(one, kind):
            raise FamilyError(f"the parametrization of '{layer}' ({kind.__name__[1:]}) {why.replace('NAME', layer)}")
    if isinstance(one, _WeightNorm):
        raise FamilyError(
            f"the weight norm of '{layer}' has gains along dim={one.dim}, not the layer's output, or stands beside another "
            f"parametrization, so its rates are not known; give it a gain for every output (dim=0 of a Linear), or {PLAIN}"
        )


def _refuse_hooks(path: str, module: nn.Module, base: Shapes, probe: Shapes) -> None:
    """The norms of torch's older kind, by a hook before the forward, hide the weight as well."""
    hooks = [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, (WeightNorm, SpectralNorm))]
    if hooks and any(name.rpartition(".")[0] == path and base[name] != probe[name] for name in base):
        kind = type(hooks[0])
        mend = "take torch.nn.utils.parametrizations.weight_norm" if kind is WeightNorm else "plan the plain layer"
        raise FamilyError(f"the layer '{path}' has torch's older {kind.__name__}, whose tensors no plan can tell apart; {mend}")


def _lists(model: nn.Module) -> Iterator[tuple[str, str, ParametrizationList]]:
    """Every parametrized weight: the path of its list, its own name, the list."""
    for path, module in model.named_modules():
        if isinstance(module, ParametrizationList):
            yield path, place(f"{path}.original")[1], module


def _normed(model: nn.Module, path: str, leaf: str, several: ParametrizationList) -> bool:
    """Whether this is a weight norm alone, with gains along the one axis that is the layer's output."""
    if len(several) != 1 or not isinstance(several[0], _WeightNorm) or several[0].dim is None:
        return False
    shape = tuple(several.get_parameter("original1").shape)
    axes = read_axes(model.get_submodule(place(f"{path}.original1")[0]), leaf, shape)
    return axes.known and axes.produced[:1] == (several[0].dim % len(shape),)

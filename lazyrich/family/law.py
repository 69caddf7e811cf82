"""The law that a factory draws each tensor from, read off while the network is built.

A recorder watches the random fills (``uniform_``, ``normal_``, ``fill_`` ...) that reach each tensor's storage. It works
on the meta device, where a network of any width costs nothing. Where a factory does more than that (truncation,
orthogonalisation, slices), the law is measured from real builds instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lazyrich.errors import FamilyError, LazyrichError

UNIFORM = -1.2  # the kurtosis of a uniform law beyond a normal one's
FIVE_SIGMA = 1 - 2.87e-7  # of a normal variable to stay below


@dataclass(frozen=True)
class Law:
    """Mean and standard deviation of a tensor's entries at initialisation.

    ``noise`` is the standard error of ``log(std)``: 0 where the law was recorded, ``sqrt(1 / (2 n))`` where it was measured
    on ``n`` entries. ``uniform`` where it was recorded as uniform. ``excess`` is the kurtosis beyond a normal law's, where a
    measured one shows it.

    Example:
        >>> Law(0.0, 2.0).scaled(0.5)
        Law(mean=0.0, std=1.0, noise=0.0)
    """

    mean: float
    std: float
    noise: float = 0.0
    uniform: bool = field(default=False, repr=False, compare=False)
    excess: float = field(default=0.0, repr=False, compare=False)

    @property
    def kurtosis(self) -> float:
        """Beyond a normal law's, as far as it is known."""
        return UNIFORM if self.uniform else self.excess

    @property
    def entries(self) -> float:
        """How many entries it was measured on; infinite where it is known."""
        return 0.5 / self.noise**2 if self.noise else math.inf

    def scaled(self, factor: float) -> Law:
        """The law of a tensor multiplied by a number."""
        return Law(self.mean * factor, self.std * abs(factor), uniform=self.uniform)

    def fits(self, tensor: Tensor) -> bool:
        """Whether a tensor's entries may be a draw: mean and deviation within five standard errors, a uniform range filled."""
        if tensor.is_meta:
            return True
        entries = tensor.detach().double().flatten()
        n = len(entries)
        if self.std == 0:
            return bool((entries == self.mean).all())
        mean, std = float(entries.mean()), float(entries.std(correction=0))
        spread = math.sqrt((0.8 if self.uniform else 2.0) / 4 / n)  # of the deviation: (kurtosis - 1) / 4n
        near = abs(mean - self.mean) < 5 * self.std / math.sqrt(n) and abs(std / self.std - 1) < 5 * spread
        if not self.uniform:
            return near
        reach = float((entries - self.mean).abs().max()) / (math.sqrt(3) * self.std)
        return near and 1 - 14 / n < reach < 1 + 1e-6

    def shifted(self, offset: float) -> Law:
        """The law of a tensor plus a number."""
        return Law(self.mean + offset, self.std, uniform=self.uniform)


class LawRecorder(TorchDispatchMode):
    """Follows the initialisation of every tensor that is built while it is entered.

    Example:
        >>> with LawRecorder() as recorder, torch.device("meta"):
        ...     layer = nn.Linear(3, 7)
        >>> round(recorder.law(layer.weight).std, 6) == round((1 / 9) ** 0.5, 6)  # U(-1/sqrt(3), 1/sqrt(3))
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self._laws: dict[int, Law | None] = {}
        self._alive: list[Any] = []  # a freed storage's address could be given to another tensor

    def law(self, tensor: Tensor) -> Law | None:
        """The recorded law, or None where the recorder could not follow."""
        return self._laws.get(_address(tensor))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name, inplace = _op_name(func)
        target = args[0] if inplace and args and isinstance(args[0], Tensor) else out
        if isinstance(target, Tensor) and (inplace or not _same_storage(target, args)):
            self._write(target, self._next(name, inplace, args, kwargs or {}))
        return out

    def _write(self, target: Tensor, law: Law | None) -> None:
        key = _address(target)
        whole = target.numel() * target.element_size() == target.untyped_storage().nbytes()
        if key not in self._laws:
            self._alive.append(target.untyped_storage())
        self._laws[key] = law if whole else None

    def _next(self, name: str, inplace: bool, args: Any, kwargs: Any) -> Law | None:
        if name == "uniform" and inplace:
            low, high = _two(args, kwargs, ("from", 0.0), ("to", 1.0))
            return Law((low + high) / 2, (high - low) / math.sqrt(12), uniform=True)
        if name == "normal" and inplace:
            return Law(*_two(args, kwargs, ("mean", 0.0), ("std", 1.0)))
        if name == "normal":  # torch.normal(mean, std, size)
            return Law(float(args[0]), float(args[1])) if all(isinstance(a, (int, float)) for a in args[:2]) else None
        if name in _CONSTANT:
            return _CONSTANT[name]
        if name in ("fill", "full"):
            return Law(float(args[1]), 0.0) if isinstance(args[1], (int, float)) else None
        if name == "copy":
            return self.law(args[1]) if isinstance(args[1], Tensor) and args[1].shape == args[0].shape else None
        before = self.law(args[0]) if args and isinstance(args[0], Tensor) else None
        if before is None or name not in _ARITHMETIC:
            return before if name in _PASSING else None
        if kwargs:  # alpha=, rounding_mode=
            return None
        other = args[1] if len(args) > 1 else None
        return _ARITHMETIC[name](before, float(other)) if isinstance(other, (int, float)) else None


_CONSTANT = {
    "zero": Law(0.0, 0.0),
    "zeros": Law(0.0, 0.0),
    "zeros_like": Law(0.0, 0.0),
    "ones": Law(1.0, 0.0),
    "ones_like": Law(1.0, 0.0),
    "randn": Law(0.0, 1.0),
    "randn_like": Law(0.0, 1.0),
    "rand": Law(0.5, math.sqrt(1 / 12), uniform=True),
    "rand_like": Law(0.5, math.sqrt(1 / 12), uniform=True),
}
_ARITHMETIC = {
    "mul": lambda law, k: law.scaled(k),
    "div": lambda law, k: law.scaled(1 / k),
    "add": lambda law, k: law.shifted(k),
    "sub": lambda law, k: law.shifted(-k),
}
_PASSING = ("clone", "_to_copy", "to", "contiguous")


def _op_name(func: Any) -> tuple[str, bool]:
    name = func._schema.name.split("::")[-1]
    inplace = name.endswith("_") and not name.endswith("__")
    return (name[:-1] if inplace else name), inplace


def _two(args: Any, kwargs: Any, first: tuple[str, float], second: tuple[str, float]) -> tuple[float, float]:
    values = [float(args[i]) if len(args) > i else float(kwargs.get(key, default))
              for i, (key, default) in ((1, first), (2, second))]  # fmt: skip
    return values[0], values[1]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _same_storage(out: Tensor, args: Any) -> bool:
    return any(isinstance(a, Tensor) and _address(a) == _address(out) for a in args)


def measure_laws(models: list[nn.Module], names: list[str]) -> dict[str, Law]:
    """Laws of the named tensors, pooled over several real builds."""
    drawn = [dict(model.named_parameters()) for model in models]
    return {name: measured_law(torch.cat([without_padding(p[name]).flatten() for p in drawn])) for name in names}


def refuse_complex(named: Iterable[tuple[str, Tensor]], refusal: type[LazyrichError] = FamilyError) -> None:
    """Raise for complex parameters: laws are those of real entries, and gradients of complex ones would make complex kernels."""
    for name, tensor in named:
        if tensor.is_complex():
            raise refusal(
                f"'{name}' is {tensor.dtype}, expected real parameters; hold its parts, torch.view_as_real(w), as the parameter, "
                "and let the forward pass make torch.view_as_complex of them"
            )


def without_padding(tensor: Tensor) -> Tensor:
    """A tensor without its rows of zeros, where these are few: a table's row for padding is no draw.

    Example:
        >>> without_padding(torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]])).tolist()
        [[1.0, 2.0], [3.0, 4.0]]
    """
    tensor = tensor.detach()
    if tensor.dim() < 2 or hasattr(tensor, "placements"):  # a sharded one has no rows of its own
        return tensor
    filled = tensor.flatten(1).ne(0).any(1)
    few = len(filled) // 2 < int(filled.sum()) < len(filled)
    return tensor[filled] if few else tensor


def measured_law(entries: Tensor) -> Law:
    """The law of a draw. Its mean counts only where entries around zero would hardly give it; equal entries are constants.

    A single entry tells a constant as little as a deviation: it is taken for a constant, and ``noise`` says so.

    Example:
        >>> measured_law(torch.tensor([0.5, 0.6])).mean, measured_law(torch.tensor([0.5, 0.5]))
        (0.0, Law(mean=0.5, std=0.0, noise=0.0))
    """
    entries = entries.detach().double()
    n, mean, std = len(entries), float(entries.mean()), float(entries.std(correction=0))
    if bool((entries == entries[0]).all()):
        return Law(float(entries[0]), 0.0, math.sqrt(0.5) if n == 1 and mean else 0.0)
    from scipy.special import stdtrit  # a second of loading, that only measured laws need

    error = std / math.sqrt(n - 1)
    if abs(mean) < float(stdtrit(n - 1, FIVE_SIGMA)) * error:  # Student's: two entries that agree are no evidence
        mean, std = 0.0, float(entries.square().mean().sqrt())
    return Law(mean, std, math.sqrt(0.5 / n), excess=_excess((entries - mean) / std))


def _excess(entries: Tensor) -> float:
    """Kurtosis of entries of size one beyond a normal law's; zero where so many normal ones may well have it."""
    excess = float(entries.square().square().mean()) - 3
    return excess if abs(excess) > 4 * math.sqrt(24 / len(entries)) else 0.0

"""The role of a tensor: which of its sides grow with the width."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from lazyrich.errors import FamilyError


class Role(str, Enum):
    """Which sides of a tensor grow with the width, and so how it must be scaled.

    ``input``: only the fan-out grows; ``hidden``: both grow; ``output``: only the fan-in grows;
    ``vector``: one growing axis and no sum over it (biases, gains, positions); ``fixed``: nothing grows.

    Example:
        >>> Role("hidden") is Role.HIDDEN
        True
    """

    INPUT = "input"
    HIDDEN = "hidden"
    OUTPUT = "output"
    VECTOR = "vector"
    FIXED = "fixed"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Axes:
    """What the axes of a tensor do in its operation.

    ``contracted`` axes are summed over (their sizes multiply to the fan-in), ``produced`` axes index the result.
    A tensor that multiplies or adds entry by entry has no contracted axis. ``known`` is False for a plain
    ``nn.Parameter``, of which only the shape is known. ``taps`` are the axes of a depthwise kernel, which are summed over
    within one channel, and ``each`` how many channels one of them gives, or one group where the groups grow; else 0. Of a
    transposed kernel one summed entry in ``gap`` reaches an output, by its stride and its groups, of a plain one an input reaches
    one entry in ``spread``. Where the groups of a transposed kernel grow, ``taps`` and ``each`` tell of one group of ``block``
    channels.
    """

    produced: tuple[int, ...] = ()
    contracted: tuple[int, ...] = ()
    known: bool = True
    taps: tuple[int, ...] = field(default=(), repr=False)
    each: int = field(default=0, repr=False)
    gap: int = field(default=1, repr=False)
    block: int = field(default=1, repr=False)
    spread: int = field(default=1, repr=False)

    @property
    def summed(self) -> tuple[int, ...]:
        """The axes that a sum runs over, whether or not it runs over channels too."""
        return self.contracted or self.taps

    def fans(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """Fan-in and fan-out of a weight: entries that an output position sums, on average, and that an input position feeds.

        Example:
            >>> Axes((1,), (0, 2, 3), gap=4).fans((8, 6, 2, 2)), Axes((0,), taps=(2, 3), each=1).fans((8, 1, 3, 3))
            ((8.0, 24.0), (9.0, 9.0))
        """
        kernel = math.prod(shape[i] for i in (self.contracted[1:] or self.taps))
        out = self.each or math.prod(shape[i] for i in self.produced)
        return math.prod(shape[i] for i in self.summed) * self.block / self.gap, out * kernel / self.spread


def grown(base: tuple[int, ...], probe: tuple[int, ...]) -> tuple[int, ...]:
    """Axes whose size differs between two builds."""
    return tuple(i for i, (p, q) in enumerate(zip(base, probe, strict=True)) if p != q)


def role_of(name: str, axes: Axes, base: tuple[int, ...], probe: tuple[int, ...]) -> tuple[Role, Axes]:
    """Role of one tensor from its axes and its shapes in two builds.

    Args:
        name: the tensor's name, for the error.
        axes: what its axes do, from the module that owns it.
        base: shape in the build at the base width.
        probe: shape in the wider build.

    Returns:
        The role, and the axes with a plain parameter's reading filled in.

    Raises:
        FamilyError: if the shapes admit two readings; the message names the tensor and both readings.

    Example:
        >>> role_of("w", Axes((0,), (1,)), (64, 10), (128, 10))[0]
        <Role.INPUT: 'input'>
    """
    grows = grown(base, probe)
    if not grows:
        return Role.FIXED, axes
    if not axes.known:
        return _plain(name, grows, base, probe)
    fan_in = [i for i in grows if i in axes.contracted]
    fan_out = [i for i in grows if i in axes.produced]
    if len(fan_in) > 1:
        raise _unclear(name, base, probe, f"it sums over two growing axes {tuple(fan_in)}", Role.OUTPUT)
    if fan_in:
        return (Role.HIDDEN if fan_out else Role.OUTPUT), axes
    if axes.contracted or axes.block > 1:
        return Role.INPUT, axes
    return Role.VECTOR, axes


def _plain(name: str, grows: tuple[int, ...], base: tuple[int, ...], probe: tuple[int, ...]) -> tuple[Role, Axes]:
    """A parameter that no known module owns: only shapes speak."""
    others = [base[i] for i in range(len(base)) if i not in grows]
    if len(grows) == 1 and (not others or 1 in others):  # an axis of size 1 is there to be broadcast, not summed over
        return Role.VECTOR, Axes(produced=grows)
    if len(grows) == 1:
        raise _unclear(name, base, probe, "it may be added like a position table, or summed over like a readout")
    ratios = {probe[i] / base[i] for i in grows}
    if len(grows) == 2 and len(ratios) == 1:  # same growth on both sides: which of them is summed over cannot matter
        return Role.HIDDEN, Axes(produced=grows[:1], contracted=grows[1:])
    raise _unclear(name, base, probe, "its axes grow at different rates and nothing tells which is summed over")


def _unclear(name: str, base: tuple[int, ...], probe: tuple[int, ...], reading: str, role: Role = Role.VECTOR) -> FamilyError:
    """The error, with a role that may be meant; of what is summed over twice no vector, input or hidden matrix is."""
    others = "input, hidden, output, fixed" if role is Role.VECTOR else "fixed"
    return FamilyError(
        f"cannot tell the role of tensor '{name}': got shape {base} at the base width and {probe} at the probe width; "
        f"{reading}. Say which: {giving(name, role)} (or {others})."
    )


def giving(name: str, role: Role) -> str:
    """How a person gives a tensor its role, in Python and on the command line.

    Example:
        >>> giving("pos", Role.VECTOR)
        "Family(..., roles={'pos': 'vector'}), on the command line --roles 'pos=vector'"
    """
    return giving_all({name: role})


def giving_all(roles: Mapping[str, Role]) -> str:
    """The same for several tensors at once.

    Example:
        >>> giving_all({"a": Role.VECTOR, "b": Role.HIDDEN})
        "Family(..., roles={'a': 'vector', 'b': 'hidden'}), on the command line --roles 'a=vector' 'b=hidden'"
    """
    words = " ".join(f"'{name}={role.value}'" for name, role in roles.items())
    return f"Family(..., roles={ {name: role.value for name, role in roles.items()} }), on the command line --roles {words}"


def refuse_contradiction(name: str, given: Role, own: Role, base: tuple[int, ...], probe: tuple[int, ...]) -> None:
    """Raise a FamilyError for a role that is not what the layer itself does with its weight or bias.

    Example:
        >>> refuse_contradiction("0.weight", Role.VECTOR, Role.INPUT, (8, 1), (16, 1))  # these two are scaled alike
    """
    alike = {Role.INPUT, Role.VECTOR}
    if given in (own, Role.FIXED) or {given, own} <= alike:
        return
    fitting = f"{own} (what it has without roles=) or fixed"
    leaf = name.rpartition(".")[2]
    raise FamilyError(
        f"roles= gives '{name}' the role {given}, but its layer's {leaf} goes from shape {base} at the base width to {probe} at "
        f"the probe width, where axes {grown(base, probe)} grow; expected {fitting}. If the code uses it in another way "
        "than the layer does, hold it as an nn.Parameter of your own module"
    )


def axes_for(name: str, role: Role, base: tuple[int, ...], probe: tuple[int, ...]) -> Axes:
    """Axes of a tensor whose role the user gave.

    Raises:
        FamilyError: for a hidden one of which only one axis grows.

    Example:
        >>> axes_for("w", Role.OUTPUT, (4, 64), (4, 128))
        Axes(produced=(0,), contracted=(1,), known=True)
    """
    grows = grown(base, probe)
    if role is Role.HIDDEN and len(grows) == 1:
        raise FamilyError(
            f"roles= gives '{name}' the role hidden, of a matrix both of whose sides grow, but from shape {base} at the base width "
            f"to {probe} at the probe width axis {grows[0]} grows alone; expected output if it is summed over, input if it is "
            "the layer's own output, vector if it is neither: " + giving(name, Role.OUTPUT)
        )
    if role is Role.HIDDEN:
        return Axes(produced=grows[:1], contracted=grows[1:])
    if role is Role.OUTPUT:
        return Axes(produced=tuple(i for i in range(len(base)) if i not in grows), contracted=grows)
    if role is Role.INPUT:
        return Axes(produced=grows, contracted=tuple(i for i in range(len(base)) if i not in grows))
    return Axes(produced=grows)

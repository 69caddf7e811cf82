"""Starts of an autoencoder: what is done to a network that its plan has built, before it is trained.

Every start keeps the standard deviation that the plan gave each tensor, so it changes how weights are related and not how they
scale. A new one is a function ``(model, x, seed) -> None`` in ``STARTS``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lazyrich.autoencoder.linear import principal
from lazyrich.autoencoder.mirror import mirrored, weight_of
from lazyrich.errors import AutoencoderError
from lazyrich.family import Family
from lazyrich.family.semantics import read_axes
from lazyrich.init import Form, Initialiser, Sides, formed
from lazyrich.init import transposed as by_transpose

SAMPLES = 2000  # that principal directions are taken from
Start = Callable[[nn.Module, Tensor, int], None]


def default(model: nn.Module, x: Tensor, seed: int) -> None:
    """What the plan drew.

    Example:
        >>> default(nn.Linear(2, 2), torch.zeros(1, 2), 0)
    """


def transposed(correlation: float = 1.0) -> Start:
    """Every weight of the decoder is drawn correlated with the transpose of its mirror image in the encoder.

    W_dec = std_dec (rho U^T + sqrt(1 - rho^2) Z), U the encoder's weight and Z the decoder's own draw, both of unit size: at the
    start the product around the bottleneck has an eigenvalue of order rho, where independent draws have rho ~ n^(-1/2).

    In a plan: ``lzr.plan(..., init=coupled(family, 0.5))``.

    Raises:
        AutoencoderError: for a correlation outside [-1, 1], or halves that are no mirror images.

    Example:
        >>> import lazyrich as lzr
        >>> from lazyrich.autoencoder import mirrors
        >>> net = lzr.zoo.autoencoder(64)
        >>> transposed(0.5)(net, torch.zeros(1, 64), 0)
        >>> [round(m.weight, 1) for m in mirrors(net, torch.randn(20, 64))]
        [0.5, 0.5]
    """
    if not -1 <= correlation <= 1:
        raise AutoencoderError(f"got correlation = {correlation}, expected one in [-1, 1]")

    return _coupled(Form("transposed", "mirror", correlation))


def inverse(model: nn.Module, x: Tensor, seed: int) -> None:
    """Every weight of the decoder points along the pseudo-inverse of its mirror image, at its own size.

    Example:
        >>> import lazyrich as lzr
        >>> net = lzr.zoo.autoencoder(64)
        >>> inverse(net, torch.zeros(1, 64), 0)
        >>> u, v = net.encoder.readout.weight.double(), net.decoder.hidden[0].weight.double()
        >>> bool(((u @ v) / (u @ v).trace() * 8 - torch.eye(8)).abs().max() < 1e-4)
        True
    """
    _coupled(Form("inverse", "mirror"))(model, x, seed)


@torch.no_grad()
def orthogonal(model: nn.Module, x: Tensor, seed: int) -> None:
    """Every matrix has equal singular values, at its own size (Saxe, McClelland & Ganguli 2014).

    Example:
        >>> net = nn.Linear(4, 4)
        >>> orthogonal(net, torch.zeros(1, 4), 0)
        >>> values = torch.linalg.svdvals(net.weight)
        >>> bool(torch.allclose(values, values[:1].expand(4)))
        True
    """
    for module in model.modules():
        if isinstance(getattr(module, "weight", None), Tensor) and weight_of(module).dim() > 1:
            _give(module, Form("orthogonal"))


@torch.no_grad()
def cascading(model: nn.Module, x: Tensor, seed: int) -> None:
    """The encoder's weights keep the data's first principal directions, layer by layer; the decoder is its transpose.

    From the input on, each weight of the encoder is split along the principal directions of what enters it: the first k (k the
    size of the code) are kept at the weight's own size, the rest is drawn as it was.

    Example:
        >>> import lazyrich as lzr
        >>> cascading(lzr.zoo.autoencoder(32), torch.randn(100, 64), 0)
    """
    pairs = mirrored(model)
    modules = dict(model.named_modules())
    code = weight_of(modules[pairs[-1][0]]).shape[0]
    for encoder, _ in pairs:
        weight = weight_of(modules[encoder])
        seen: list[Tensor] = []
        hook = modules[encoder].register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].flatten(1)))
        model(x[:SAMPLES])
        hook.remove()
        if seen[0].shape[1] != weight[0].numel():
            raise AutoencoderError(f"'{encoder}' is no dense layer; a start from principal directions wants dense layers")
        basis = principal(seen[0]).directions[:code]
        turned = weight @ basis.T @ basis
        weight.copy_(turned * weight.square().mean().sqrt() / turned.square().mean().sqrt())
    transposed()(model, x, seed)


def _coupled(form: Form) -> Start:
    """Gives every weight of the decoder a form that is made from its mirror image in the encoder."""

    def start(model: nn.Module, x: Tensor, seed: int) -> None:
        modules = dict(model.named_modules())
        for encoder, decoder in mirrored(model):
            _give(modules[decoder], form, modules[encoder])

    return start


@torch.no_grad()
def _give(module: nn.Module, form: Form, mirror: nn.Module | None = None) -> None:
    """A form for a layer's weight, at its own size."""
    weight = weight_of(module)
    other, others = (None, None) if mirror is None else (weight_of(mirror), _sides(mirror))
    weight.copy_(formed(form, weight, _sides(module), other, others) * weight.square().mean().sqrt())


def _sides(module: nn.Module) -> Sides:
    axes = read_axes(module, "weight", tuple(weight_of(module).shape))
    return Sides(axes.produced, axes.contracted)


STARTS: dict[str, Start] = {
    "default": default,
    "transposed": transposed(),
    "half": transposed(0.5),
    "inverse": inverse,
    "orthogonal": orthogonal,
    "cascading": cascading,
}


def start_for(name: str) -> Start:
    """A start by its name, ``transposed(0.3)`` for other correlations.

    Raises:
        AutoencoderError: for a name that is not known.

    Example:
        >>> start_for("orthogonal") is orthogonal
        True
    """
    if name in STARTS:
        return STARTS[name]
    word, _, rest = name.partition("(")
    if word == "transposed" and rest.endswith(")"):
        try:
            return transposed(float(rest[:-1]))
        except ValueError:
            pass
    raise AutoencoderError(f"got start '{name}', expected one of {', '.join(STARTS)}, or transposed(0.3)")


def coupled(family: Family, correlation: float = 1.0) -> dict[str, Initialiser]:
    """The rules of a decoder that starts correlated with the transposed encoder, for ``lzr.plan(..., init=coupled(family))``.

    Example:
        >>> import lazyrich as lzr
        >>> from lazyrich.autoencoder import mirrors
        >>> family = lzr.Family(lzr.zoo.autoencoder, base=64)
        >>> list(coupled(family, 0.5))
        ['decoder.readout.weight', 'decoder.hidden.0.weight']
        >>> net = lzr.plan(family, lzr.mup(), init=coupled(family, 0.5)).build(256)
        >>> [round(m.weight, 4) for m in mirrors(net, torch.randn(20, 64))]
        [0.5, 0.5]
    """
    pairs = mirrored(family.sketch(family.base))
    return {f"{decoder}.weight": by_transpose(f"{encoder}.weight", correlation) for encoder, decoder in pairs}

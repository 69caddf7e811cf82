"""Starts of an autoencoder: what is done to a network that its plan has built, before it is trained.

Every start keeps the standard deviation that the plan gave each tensor, so it changes how weights are related and not how they
scale. A new one is a function ``(model, x, seed) -> None`` in ``STARTS``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lazyrich.amount import real
from lazyrich.autoencoder.argument import check_modules, check_samples, reading
from lazyrich.autoencoder.evaluated import evaluated
from lazyrich.autoencoder.linear import principal
from lazyrich.autoencoder.mirror import images
from lazyrich.autoencoder.weighted import Weighted, weighted
from lazyrich.errors import AutoencoderError, InitError, LazyrichError, out_of_memory
from lazyrich.family import Family
from lazyrich.init import Form, Initialiser, formed
from lazyrich.init import transposed as by_transpose

SAMPLES = 2000  # that principal directions are taken from
Start = Callable[[nn.Module, Tensor, int], None]
"""``start(model, x, seed)``: changes in place the weights that a plan has drawn; x are training inputs, (N, ...)."""


def default(model: nn.Module, x: Tensor, seed: int) -> None:
    """What the plan drew.

    Raises:
        AutoencoderError: for what is no module.

    Example:
        >>> default(nn.Linear(2, 2), torch.zeros(1, 2), 0)
    """
    check_modules(model=model)


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
    _check_correlation(correlation)
    return _coupled(Form("transposed", "mirror", correlation))


def _check_correlation(correlation: float) -> None:
    if not -1 <= real(correlation) <= 1:
        raise AutoencoderError(f"got correlation = {correlation!r}, expected one in [-1, 1]; pass such as 0.5")


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
    for layer in weighted(model):
        _give(layer, Form("orthogonal"))


@torch.no_grad()
def cascading(model: nn.Module, x: Tensor, seed: int) -> None:
    """The encoder's weights keep the data's first principal directions, layer by layer; the decoder is its transpose.

    From the input on, each weight of the encoder is split along the principal directions of what enters it: the first k (k the
    size of the code) are kept, at the whole weight's size, and the rest is removed.

    Example:
        >>> import lazyrich as lzr
        >>> cascading(lzr.zoo.autoencoder(32), torch.randn(100, 64), 0)
    """
    pairs = images(model)
    check_samples(x)
    code = pairs[-1][0].matrix().shape[0]
    for layer, _ in pairs:
        weight = layer.weight
        entering = _entering(model, layer.module, x[:SAMPLES])
        if entering.shape[1] != weight[0].numel():
            raise AutoencoderError(f"'{layer.path}' is no dense layer; a start from principal directions wants dense layers")
        basis = principal(entering).directions[:code]
        turned = weight.flatten(1) @ basis.T @ basis
        layer.put((turned * weight.square().mean().sqrt() / turned.square().mean().sqrt()).reshape(weight.shape))
    transposed()(model, x, seed)


def _entering(model: nn.Module, module: nn.Module, x: Tensor) -> Tensor:
    """What enters a module, flat."""
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(1)))
    try:
        with evaluated(model), reading(model, x):
            model(x)
    finally:
        hook.remove()
    return seen[0]


def _coupled(form: Form) -> Start:
    """Gives every weight of the decoder a form that is made from its mirror image in the encoder."""

    def start(model: nn.Module, x: Tensor, seed: int) -> None:
        for encoder, decoder in images(model):
            try:
                _give(decoder, form, encoder)
            except InitError as error:
                raise AutoencoderError(f"{decoder} cannot start as {form.name} of {encoder}: {error}") from error

    return start


@torch.no_grad()
def _give(layer: Weighted, form: Form, mirror: Weighted | None = None) -> None:
    """A form for a layer's weight, at its own size."""
    other, others = (None, None) if mirror is None else (mirror.weight, mirror.sides)
    made = formed(form, layer.weight, layer.sides, other, others)
    layer.put(made * layer.weight.square().mean().sqrt())


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
    if not isinstance(name, str):
        raise AutoencoderError(f"got start {name!r}, expected a name: one of {', '.join(STARTS)}, or transposed(0.3)")
    if name in STARTS:
        return STARTS[name]
    word, _, rest = name.partition("(")
    if word == "transposed" and rest.endswith(")"):
        try:
            return transposed(float(rest[:-1]))
        except ValueError:
            pass
    raise AutoencoderError(f"got start '{name}', expected one of {', '.join(STARTS)}, or transposed(0.3)")


def begin(name: str, start: Start, model: nn.Module, x: Tensor, seed: int) -> None:
    """Give a model a start; what goes wrong in one's own is said with its name.

    Raises:
        AutoencoderError: for a start that fails.

    Example:
        >>> begin("mine", lambda model, x, seed: model.head, nn.Linear(2, 2), torch.zeros(1, 2), 0)
        Traceback (most recent call last):
        ...
        lazyrich.errors.AutoencoderError: start 'mine' fails on this network (AttributeError: 'Linear' object has no attribute \
'head'); expected a function (model, x, seed) that changes the model's weights in place
    """
    try:
        start(model, x, seed)
    except LazyrichError as error:
        raise AutoencoderError(f"start '{name}' does not suit this network: {error}; or leave this start out") from error
    except Exception as error:  # one's own code may raise anything
        if out_of_memory(error):
            raise
        said = (str(error).strip().splitlines() or [""])[0]
        raise AutoencoderError(
            f"start '{name}' fails on this network ({type(error).__name__}{said and f': {said}'}); expected a function "
            "(model, x, seed) that changes the model's weights in place"
        ) from error


def coupled(family: Family, correlation: float = 1.0) -> dict[str, Initialiser]:
    """The rules of a decoder that starts correlated with the transposed encoder, for ``lzr.plan(..., init=coupled(family))``.

    Raises:
        AutoencoderError: for what is no family, a correlation outside [-1, 1], halves that are no mirror images, and for
            variational encoders, half of whose head counts.

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
    if not isinstance(family, Family):
        raise AutoencoderError(f"got {family!r}, expected a family of autoencoders; pass lzr.Family(factory, base=64)")
    _check_correlation(correlation)
    pairs = images(family.sketch(family.base))
    for encoder, _ in pairs:
        if encoder.weight.shape != encoder.module.weight.shape:  # type: ignore[union-attr]
            raise AutoencoderError(
                f"got a family whose layer '{encoder.path}' gives means and log-variances, expected one whose whole weights "
                f"mirror each other; couple built networks instead, by lazyrich.autoencoder.transposed({correlation:g})(net, x, 0)"
            )
    return {f"{decoder.path}.weight": by_transpose(f"{encoder.path}.weight", correlation) for encoder, decoder in pairs}

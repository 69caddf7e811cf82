"""Encoder and decoder of a plan's network, as kernels with the plan's laws and learning rates."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from lazyrich.errors import KernelError
from lazyrich.lazy.kernel import Kernel
from lazyrich.lazy.weights import Weights, weights_of_plan
from lazyrich.scaling import Plan


def halves(plan: Plan, x: Tensor, encoder: str = "encoder", decoder: str = "decoder") -> tuple[Kernel, Kernel]:
    """The kernels of an autoencoder's two sides, for ``BottleneckDynamics``, ``BottleneckPrior`` and ``bottleneck_ntk``.

    The tangent kernels count the plan's learning rates: ``descend(lr, steps)`` is then what ``plan.optimizer(model, lr)`` does on
    the mean loss 1/(2N) sum_b |f(x_b) - y_b|^2. Weights that are summed over few latents are taken to be normal; of torch's
    uniform ones the kernel of a decoder with two or three latents is a few percent off.

    Args:
        plan: for SGD, in NTK parameterisation or another whose latents are of order one at every width.
        x: some inputs, (N, ...), on which the network is seen to be the decoder of the encoder.
        encoder: path of its module.
        decoder: path of its module.

    Returns:
        The encoder's and the decoder's kernel.

    Raises:
        KernelError: for modules that the network lacks, tensors outside both, a network that is more than the two, a scheme whose
            latents vanish, and plans whose limit is no kernel.

    Example:
        >>> import lazyrich as lzr
        >>> from lazyrich.lazy.bottleneck import BottleneckDynamics
        >>> family = lzr.Family(lambda n: lzr.zoo.Autoencoder(n, inputs=3, code=2), base=64)
        >>> plan = lzr.plan(family, lzr.ntk(), "sgd", init={"*": lzr.init.lecun()})
        >>> x = torch.eye(3, dtype=torch.float64)
        >>> path = BottleneckDynamics(*halves(plan, x), x, x, latents=2).descend(0.05, steps=20)
        >>> bool(path.loss[-1] < path.loss[0])
        True
    """
    weights = weights_of_plan(plan)
    start = float(plan.scheme.sgd.output.init)
    if start > 0.5:
        raise KernelError(
            f"got {plan.scheme.name}, whose latents start at width^-{start - 0.5:g}; the closed theory wants order one, as of ntk()"
        )
    if plan.family is None:
        raise KernelError("this plan was loaded without its family; use Plan.load(path, family=Family(factory, base=...))")
    model = plan.family.build(plan.base).double().eval()
    sides = [_part(model, path) for path in (encoder, decoder)]
    strays = [name for name in plan.tensors if not name.startswith((encoder + ".", decoder + "."))]
    if strays:
        raise KernelError(f"'{strays[0]}' is neither in '{encoder}' nor in '{decoder}'; name modules that hold all tensors")
    with torch.no_grad():
        whole, composed = model(x.double()), sides[1](sides[0](x.double()))
    if whole.shape != composed.shape or not torch.allclose(whole, composed):
        raise KernelError(
            f"the network is not '{decoder}' of '{encoder}'; give modules of which it is: f(x) = decoder(encoder(x))"
        )
    first, second = (Kernel(side, _of(weights, path)) for side, path in zip(sides, (encoder, decoder), strict=True))
    return first, second


def _part(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        names = ", ".join(name for name, _ in model.named_children())
        raise KernelError(f"{type(model).__name__} has no module '{path}', but {names}; name encoder= and decoder=") from error


def _of(weights: Weights, path: str) -> Weights:
    """The laws and rates of one module's tensors, under the names that they have in it."""
    own = {name: name.removeprefix(path + ".") for name in weights.laws if name.startswith(path + ".")}
    laws = {short: weights.laws[name] for name, short in own.items()}
    return replace(weights, laws=laws, rates={short: weights.rates[name] for name, short in own.items()}, roles={})

"""Hidden features of a finite network, layer by layer, and their kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lazyrich.errors import TangentError
from lazyrich.tangent.function import NetworkFunction
from lazyrich.tangent.inner import inner
from lazyrich.tangent.mixing import refuse_mixed
from lazyrich.tangent.ntk import refuse_large


def features(model: nn.Module, x: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Outputs of modules by path, (N, ...) each, without gradients; of a tuple (recurrent layers, attention) its first tensor.

    Args:
        model: any module that treats samples one by one; it stays as it is, hooks included.
        x: samples (N, ...).
        layers: paths of ``model.named_modules()``; by default all modules that hold no others and run once.

    Raises:
        TangentError: for paths that are none, modules that did not run or ran several times, and outputs that are no tensor of
            N rows.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> {path: tuple(h.shape) for path, h in features(net, torch.ones(5, 3)).items()}
        {'0': (5, 8), '1': (5, 8), '2': (5, 1)}
    """
    return _features(model, x, layers, "x")


def _features(model: nn.Module, x: Tensor, layers: Sequence[str] | None, name: str) -> dict[str, Tensor]:
    """The same for inputs that go by a name in messages."""
    function = NetworkFunction(model)
    function.check(x, name)
    x = x.detach()
    refuse_mixed(function, x, name)
    modules = dict(function.model.named_modules())  # without what torch.compile wraps around it
    if isinstance(layers, str):
        raise TangentError(f"got layers='{layers}', expected a list of paths: ['{layers}']")
    asked = [path for path, m in modules.items() if path and not any(True for _ in m.children())] if layers is None else layers
    for path in asked:
        if path not in modules or not path:
            raise TangentError(f"got layer '{path}', expected a module of the network: {', '.join(p for p in modules if p)}")
    seen: dict[str, list[object]] = {path: [] for path in asked}
    handles = [modules[p].register_forward_hook(lambda _m, _a, out, p=p: seen[p].append(_kept(out))) for p in asked]
    try:
        with torch.no_grad():
            function(function.parameters, x)
    finally:
        for handle in handles:
            handle.remove()
    return {path: _only(path, outs, len(x)) for path, outs in seen.items() if layers is not None or _fits(outs, len(x))}


def feature_kernel(
    model: nn.Module, x1: Tensor, x2: Tensor | None = None, layers: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """H_l H_l'^T / n_l of the layers' outputs: what the NNGP kernel is the limit of (Lee et al. 2018, arXiv:1711.00165, eq. 3).

    n_l counts all entries of a sample's output, channels and positions, so at a linear layer with NTK or standard weights the
    kernel tends to K^l, averaged over equal positions. A complex entry is a pair of real ones: of complex features h it is
    Re(H_l H_l'^H) / n_l.

    Args:
        model: any module that treats samples one by one.
        x1: samples (N1, ...).
        x2: samples (N2, ...); x1 itself by default.
        layers: as in ``features``.

    Returns:
        (N1, N2) by module path.

    Raises:
        TangentError: as ``features``, and for a layer whose outputs on x1 and x2 are not of one shape.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 64), nn.Linear(64, 64))
        >>> feature_kernel(net, torch.ones(2, 3), torch.zeros(4, 3), layers=["1"])["1"].shape
        torch.Size([2, 4])
    """
    first = _features(model, x1, layers, "x1")
    second = first if x2 is None else _features(model, x2, layers, "x2")
    for path, h in first.items():
        if path not in second or second[path].shape[1:] != h.shape[1:]:
            got = tuple(second[path].shape[1:]) if path in second else "none"
            raise TangentError(
                f"got outputs {tuple(h.shape[1:])} of layer '{path}' on x1 and {got} on x2, expected one shape; give samples "
                "of one shape, or name the layers that have it"
            )
    size = sum(len(x1) * len(second[path]) * h.element_size() for path, h in first.items())
    refuse_large(size, f"kernels of {len(first)} layers", "fewer samples at a time, or name the layers")
    return {path: feature_gram(h, second[path]) for path, h in first.items()}


def feature_gram(h: Tensor, g: Tensor) -> Tensor:
    """Re(H G^H) / n of features of a layer, (N1, ...) and (N2, ...), n entries a sample.

    Example:
        >>> feature_gram(torch.ones(2, 5), torch.ones(2, 5)).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    return inner(_real(h), _real(g)) / h[0].numel()


def _real(h: Tensor) -> Tensor:
    """A row a sample, of parts of complex entries."""
    return (torch.view_as_real(h) if h.is_complex() else h).flatten(1)


def _kept(out: object) -> object:
    """A copy: an operation in place may come behind the module."""
    out = first_of(out)
    return out.clone() if isinstance(out, Tensor) else out


def first_of(out: object) -> object:
    """The features among what a module returns."""
    return out[0] if isinstance(out, tuple) and out and isinstance(out[0], Tensor) else out


def _fits(outs: list[object], samples: int) -> bool:
    return len(outs) == 1 and isinstance(outs[0], Tensor) and outs[0].dim() > 0 and len(outs[0]) == samples


def _only(path: str, outs: list[object], samples: int) -> Tensor:
    if not _fits(outs, samples):
        got = f"{len(outs)} outputs" if len(outs) != 1 else f"a {type(outs[0]).__name__}"
        raise TangentError(f"layer '{path}' gave {got} in one pass, expected one tensor of {samples} rows; name another module")
    out = outs[0]
    assert isinstance(out, Tensor)
    return out

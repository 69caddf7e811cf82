"""Networks of torch's own layers need no trial of their samples, and everything else gets one."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import lazyrich as lzr
from lazyrich.errors import TangentError
from lazyrich.tangent.plain import is_plain

VECTORS, IMAGES = torch.randn(12, 6), torch.randn(12, 2, 6, 6)


def dense():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 8), nn.GELU()), nn.Linear(8, 3))


def images():
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))


class Other(nn.Module):
    """The same network, of which nothing is known."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)


@pytest.mark.parametrize(("make", "x"), [(dense, VECTORS), (images, IMAGES)])
def test_the_kernel_is_that_of_a_network_that_is_tried(make, x):
    network = make()
    assert is_plain(network, x)
    assert not is_plain(Other(network), x)
    for outputs in ("full", "trace"):
        torch.testing.assert_close(lzr.ntk_of(network, x, outputs=outputs), lzr.ntk_of(Other(network), x, outputs=outputs))


def turned_round(module, args, out):
    return out.flip(0) + out


def hooked():
    network = dense()
    network[1].register_forward_hook(turned_round)
    return network


def called_otherwise():
    network = dense()
    network[1].forward = lambda h: h - h.mean(0)
    return network


MIXING = {
    "a hook": (hooked, VECTORS),
    "a forward of its own": (called_otherwise, VECTORS),
    "a softmax over samples": (lambda: nn.Sequential(nn.Linear(6, 3), nn.Softmax(0)), VECTORS),
    "a batch norm": (lambda: nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)), VECTORS),
    "samples for channels": (lambda: nn.Sequential(nn.Conv1d(12, 12, 3), nn.Flatten()), VECTORS),
    "samples for features": (lambda: nn.Sequential(nn.Linear(12, 12)), torch.randn(12)),
    "samples for one row to flatten": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.randn(12)),
    "all in one row": (lambda: nn.Sequential(nn.Flatten(0), nn.Linear(72, 3)), VECTORS),
}


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_samples_stays_refused(name):
    make, x = MIXING[name]
    network = make()
    assert not is_plain(network, x)
    with pytest.raises(TangentError):
        lzr.ntk_of(network, x)


def watched():
    layer = nn.Linear(6, 3)
    layer.register_full_backward_pre_hook(lambda module, grads: grads)
    return layer


def compiled():
    layer = nn.Linear(6, 3)
    layer.compile(backend="eager")
    return layer


def of_another_tensor():
    layer = nn.Linear(6, 3)
    layer.weight = type("Packed", (nn.Parameter,), {})(layer.weight.detach())
    return layer


@pytest.mark.parametrize(
    "make",
    [
        watched,
        compiled,
        of_another_tensor,
        lambda: weight_norm(nn.Linear(6, 3)),
        lambda: nn.Sequential(nn.Linear(6, 3), nn.ReLU(inplace=True)),
        lambda: nn.Sequential(nn.Linear(6, 3), nn.Dropout()),
        lambda: nn.Sequential(type("Own", (nn.Linear,), {})(6, 3)),
    ],
)
def test_what_may_be_more_than_its_class_is_tried(make):
    assert not is_plain(make(), VECTORS)


def test_hooks_of_all_modules_stand_between_too():
    network = dense()
    assert is_plain(network, VECTORS)
    handle = nn.modules.module.register_module_forward_hook(turned_round)
    try:
        assert not is_plain(network, VECTORS)
    finally:
        handle.remove()

"""Gradient flow of a network against small steps and against theory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lazyrich.errors import TangentError, TrainError
from lazyrich.inference import gradient_flow
from lazyrich.train.flow import flow


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double()


def test_gradient_descent_approaches_it_at_first_order_in_the_step() -> None:
    model, x, y = net(), torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    rates = {"0.weight": 2.0, "2.bias": 0.0}
    train, test = flow(model, x, y, [0.0, 1.5, 3.0], x_test=x[:2], rates=rates, lr=0.5)
    assert torch.allclose(train[0], model(x).detach())
    assert torch.allclose(test, train[:, :2])
    errors = []
    for steps in (200, 400):
        copy = net()
        copy.load_state_dict(model.state_dict())
        for _ in range(steps):
            loss = (copy(x) - y).square().sum() / 10
            gradients = torch.autograd.grad(loss, list(copy.parameters()))
            with torch.no_grad():
                for (name, p), g in zip(copy.named_parameters(), gradients, strict=True):
                    p -= 0.5 * 3.0 / steps * rates.get(name, 1.0) * g
        errors.append(float((copy(x) - train[-1]).detach().norm()))
    assert errors[0] < 0.02
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.05)


def test_of_a_linear_model_it_is_the_closed_form() -> None:
    model, x, y = nn.Linear(3, 2).double(), torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    times = [0.0, 0.7, 4.0]
    found, _ = flow(model, x, y, times, loss="mse")
    expected = gradient_flow(x @ x.T + 1, y, t=times, loss="mse", f0_train=model(x).detach())
    torch.testing.assert_close(found, expected.train, atol=1e-6, rtol=0)


def test_the_integration_is_of_fourth_order() -> None:
    model, x, y = net(), torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    coarse, fine, exact = (flow(model, x, y, [4.0], substeps=n)[0] for n in (16, 32, 256))
    assert float((coarse - exact).norm() / (fine - exact).norm()) == pytest.approx(16, rel=0.2)


def test_fast_modes_get_the_steps_that_they_need() -> None:
    """Inputs with a large common part: the first mode decays a thousand times faster than what is followed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2)).double()
    x, y = torch.randn(8, 4, dtype=torch.float64) + 3, torch.randn(8, 2, dtype=torch.float64)
    found, _ = flow(model, x, y, [0.0, 4.0, 8.0])
    losses = (found - y).square().sum((1, 2))
    assert losses[0] > losses[1] > losses[2]
    exact, _ = flow(model, x, y, [0.0, 4.0, 8.0], substeps=800)
    torch.testing.assert_close(found, exact, atol=1e-3, rtol=0)
    with pytest.raises(TrainError, match=r"needs [\d,]+ steps, expected at most 100,000: its fastest mode"):
        flow(model, x, y, [1e6])


@pytest.mark.parametrize("times", [[1.0, 0.5], [float("inf")]])
def test_bad_times_are_refused(times: list[float]) -> None:
    with pytest.raises(TrainError, match="increasing"):
        flow(net(), torch.randn(2, 3), torch.randn(2, 2), times)


def test_outputs_that_cancel_do_not_hide_the_fastest_mode() -> None:
    """All ones lies in the null space of the kernel of x = (10, -10)."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.3)
    found, _ = flow(model, torch.tensor([[10.0], [-10.0]]), torch.tensor([1.0, -1.0]), [0.0, 1.0])
    assert found[1].flatten().tolist() == pytest.approx([1.0, -1.0])


def test_a_kernel_that_outgrows_the_steps_is_refused() -> None:
    """From weights near zero the product of two is slow at first; its kernel grows a hundredfold on the way."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    for p in model.parameters():
        nn.init.constant_(p, 0.1)
    x, y = torch.ones(1, 1), torch.full((1,), 100.0)
    assert flow(model, x, y, [0.1], substeps=400)[0].item() == pytest.approx(100, abs=1e-2)
    with pytest.raises(TrainError, match=r"raised the squared distance to the targets from 1e\+04 to .* before time 0\.1"):
        flow(model, x, y, [0.1], substeps=1)
    with pytest.raises(TrainError, match="raise substeps"):
        flow(model, x, y, [10.0], substeps=1)


def test_targets_and_rates_that_fit_nothing_are_refused() -> None:
    with pytest.raises(TrainError, match=r"targets y \(2, 5\) for outputs \(5, 2\)"):
        flow(net(), torch.randn(5, 3), torch.randn(2, 5), [1.0])
    with pytest.raises(TangentError, match="wieght"):
        flow(net(), torch.randn(5, 3), torch.randn(5, 2), [1.0], rates={"wieght": 0.0})


class Cast(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.float())


def test_what_has_no_copy_in_float64_is_told_with_the_mend() -> None:
    x, y = torch.randn(4, 3), torch.randn(4, 1)
    shard = type("FSDPModule", (nn.Linear,), {"__module__": "torch.distributed.fsdp"})
    with pytest.raises(TangentError, match="shards its parameters.*give what it wraps"):
        flow(type("Own", (shard,), {})(3, 1), x, y, [0.0, 1.0])
    with pytest.raises(TangentError, match=r"Cast fixes its precision.*h.to\(self.weight.dtype\)$"):
        flow(Cast(3, 1), x, y, [0.0, 1.0])

"""What has no kernel is refused in one sentence: the operation, its place in the network, the cause and the mend."""

from __future__ import annotations

import pytest
import torch
from kernel_refusals import REFUSED
from torch import nn
from torch.nn import functional as F

import lazyrich as lzr
from lazyrich.errors import KernelError
from lazyrich.lazy.rule import RULES, through


@pytest.mark.filterwarnings("ignore:got tensors whose laws could only be measured")
@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_with_its_cause_and_mend(name):
    case = REFUSED[name]
    with pytest.raises(KernelError) as caught:
        lzr.kernel(case.factory(16).train(case.train), init=case.init)(case.x)
    message = str(caught.value)
    assert all(part in message for part in case.says), message
    assert "\n" not in message and len(message) < 400
    assert ";" in message or "expected" in message or "has no kernel" in message, message


@torch.library.custom_op("lazyrich_test::relu", mutates_args=())
def squeaky(x: torch.Tensor, below: float) -> torch.Tensor:
    """A leaky rectifier, by a name that torch has too."""
    return torch.where(x > 0, x, below * x)


@squeaky.register_fake
def _(x: torch.Tensor, below: float) -> torch.Tensor:
    return torch.empty_like(x)


class Squeaky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.i, self.a, self.o = nn.Linear(5, 16), nn.Linear(16, 16), nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.o(squeaky(self.a(squeaky(self.i(x), 0.2)), 0.2))


@pytest.fixture
def taught():
    """Rules that a test adds are gone after it."""
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


X = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
INIT = lzr.init.variance(2.0, 0.1)


def test_another_librarys_operation_is_not_taken_for_torchs_namesake(taught):
    with pytest.raises(KernelError, match="no rule for the operation 'relu' at the network's own forward"):
        lzr.kernel(Squeaky(), init=INIT)(X)


@pytest.mark.parametrize("name", ["relu", "lazyrich_test::relu", "lazyrich_test.relu.default"])
def test_a_rule_is_found_by_its_plain_name_and_in_full(name, taught):
    @lzr.lazy.register(name, moments=True)
    def rule(call):
        """A leaky rectifier."""
        return through(call, call.args[0], lambda x: torch.where(x > 0, x, call.args[1] * x))

    class Plain(Squeaky):
        def forward(self, x):
            return self.o(F.leaky_relu(self.a(F.leaky_relu(self.i(x), 0.2)), 0.2))

    found, known = lzr.kernel(Squeaky(), init=INIT)(X), lzr.kernel(Plain(), init=INIT)(X)
    assert all(torch.allclose(a, b, rtol=1e-9) for a, b in zip(found, known, strict=True))


@pytest.mark.parametrize("name", ["aten::erfinv", "aten::erfinv_", "erfinv.out", "aten.erfinv.default"])
def test_torchs_own_names_are_taken_in_every_spelling(name, taught):
    lzr.lazy.register(name, says="nothing")(lambda call: call.args[0])
    assert RULES["erfinv"].says == "nothing"


def nothing(call):
    """Wrong."""


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (lambda call: torch.ones(3), "returned Tensor, expected a number or one of Field, Curve"),
        (nothing, "its rule 'nothing' returned NoneType"),
        (lambda call: [call.args[0], "two"], "returned str"),
        (lambda call: 1 / 0, "failed with ZeroDivisionError: division by zero; mend the rule"),
        (lambda call: through(call, call.args[0], lambda x: x @ x), "fails on a float64 tensor"),
    ],
)
def test_faults_of_a_rule_are_told_with_their_place(rule, says, taught):
    lzr.lazy.register("lazyrich_test::relu", moments=True)(rule)
    place = r"^relu at the network's own forward \(Squeaky\), .*py:\d+: "
    with pytest.raises(KernelError, match=f"{place}.*{says}"):
        lzr.kernel(Squeaky(), init=INIT)(X)

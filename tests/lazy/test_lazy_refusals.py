"""What has no kernel is refused in one sentence: the operation, its place in the network, the cause and the mend."""

from __future__ import annotations

import pytest
from kernel_refusals import REFUSED

import lazyrich as lzr
from lazyrich.errors import KernelError


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_with_its_cause_and_mend(name):
    case = REFUSED[name]
    with pytest.raises(KernelError) as caught:
        lzr.kernel(case.factory(16).train(case.train), init=case.init)(case.x)
    message = str(caught.value)
    assert all(part in message for part in case.says), message
    assert "\n" not in message and len(message) < 400
    assert ";" in message or "expected" in message or "has no kernel" in message, message

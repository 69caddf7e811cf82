"""Joins of one branch's positions as one matrix, against that matrix written out."""

import pytest
import torch
from torch import nn
from torch.nn.functional import dropout, pad

import lazyrich as lzr
from lazyrich.errors import KernelError
from lazyrich.graph import trace
from lazyrich.lazy.combination import NAME, combined, joins, roots_of
from lazyrich.lazy.identity import identity_of

P = 5
A = torch.rand(P, P, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
ONE, SHIFT = torch.eye(P, dtype=torch.float64), torch.diag(torch.ones(P - 1, dtype=torch.float64), -1)


def running_mean(h):
    kept = [h[:, 0]]
    for t in range(1, P):
        kept.append(0.9 * kept[-1] + 0.1 * h[:, t])
    return torch.stack(kept, 1)


def propagated(h):
    start = h
    for _ in range(3):
        h = 0.9 * (A @ h) + 0.1 * start
    return h


def messages(h):
    sender, receiver = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 2, 0])
    return h + torch.zeros_like(h).index_add(1, receiver, h[:, sender])


def decayed():
    made = torch.zeros(P, P, dtype=torch.float64)
    for t in range(P):
        made[t] = 0.9 * made[t - 1] + 0.1 * ONE[t] if t else ONE[0]
    return made


def of_messages():
    made = ONE.clone()
    for sender, receiver in zip([0, 1, 2, 3], [1, 2, 2, 0], strict=True):
        made[receiver, sender] += 1
    return made


PERSONAL = 0.1 * (ONE + 0.9 * A + 0.81 * A @ A) + 0.729 * A @ A @ A
CASES = {
    "isomorphism": (lambda h: 1.1 * h + A @ h, 1.1 * ONE + A),
    "centred": (lambda h: h - h.mean(1, keepdim=True), ONE - 1 / P),
    "differences": (lambda h: h[:, 1:] - h[:, :-1], ONE[1:] - ONE[:-1]),
    "diff": (lambda h: torch.diff(h, dim=1), ONE[1:] - ONE[:-1]),
    "cumsum": (lambda h: h.cumsum(1), torch.ones(P, P, dtype=torch.float64).tril()),
    "time shift": (lambda h: 0.4 * h + 0.6 * pad(h, (0, 0, 1, 0))[:, :-1], 0.4 * ONE + 0.6 * SHIFT),
    "joined zeros": (lambda h: h + torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1), ONE + SHIFT),
    "running mean": (running_mean, decayed()),
    "propagated": (propagated, PERSONAL),
    "messages": (messages, of_messages()),
    "halves": (lambda h: h[:, :4].unflatten(1, (2, 2)).diff(dim=1).flatten(1, 2), ONE[2:4] - ONE[:2]),
    "fourier": (lambda h: h + torch.fft.fft(h, dim=1).real, ONE + torch.fft.fft(ONE, dim=0).real),
    "counted": (lambda h: h.reshape(h.shape[0], P, -1) - h.mean(1, keepdim=True), ONE - 1 / P),
    "in single precision": (lambda h: h - h.float().mean(1, keepdim=True).double(), ONE - 1 / P),
    "lerp": (lambda h: torch.lerp(h, h.flip(1), 0.3), 0.7 * ONE + 0.3 * ONE.flip(0)),
}


class Net(nn.Module):
    def __init__(self, mix):
        super().__init__()
        self.mix, self.a, self.b, self.c = mix, nn.Linear(3, 16), nn.Linear(16, 16), nn.Linear(16, 1)

    def forward(self, x):
        return self.c(self.b(self.mix(self.a(x).relu())).erf().mean(1))


def kernels(mix, x, kind=Net):
    return lzr.kernel(kind(mix).double(), init=lzr.init.variance(1.5, 0.1))(x)


@pytest.fixture
def x():
    return torch.randn(3, P, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_parts_of_one_branch_are_one_matrix(name, x):
    mix, matrix = CASES[name]
    for found, exact in zip(kernels(mix, x), kernels(lambda h: matrix @ h, x), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-13)


TWICE = {
    "differences": lambda act: lambda h: act(h)[:, 1:] - act(h)[:, :-1],
    "a token and the mean": lambda act: lambda h: act(h)[:, :1] + act(h).mean(1, keepdim=True),
    "no position left": lambda act: lambda h: (act(h)[:, 0] + act(h).mean(1)).unsqueeze(1),
}


@pytest.mark.parametrize("name", TWICE)
@pytest.mark.parametrize("act", [torch.tanh, lambda h: h.sin().clone()])
def test_an_operation_written_twice_is_one(name, act, x):
    class Once(Net):
        def forward(self, x):
            h = act(self.a(x))
            return self.c(self.b(TWICE[name](lambda _: h)(x)).erf().mean(1))

    class Twice(Net):
        def forward(self, x):
            return self.c(self.b(TWICE[name](act)(self.a(x))).erf().mean(1))

    for found, exact in zip(kernels(None, x, Twice), kernels(None, x, Once), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-13)


def test_what_draws_is_not_one_although_it_is_written_alike(x):
    class Drawing(Net):
        def forward(self, x):
            h = self.a(x)
            return self.c(dropout(h, 0.5) + dropout(h, 0.5))

    with pytest.raises(KernelError, match="same weights"):
        kernels(None, x, Drawing)


def test_a_token_and_the_mean_leave_no_position(x):
    class Pooled(Net):
        def forward(self, x):
            h = self.a(x).relu()
            return self.c(self.mix(h))

    written = (lambda h: h[:, 0] + h.mean(1), lambda h: ((ONE[:1] + 1 / P) @ h)[:, 0])
    for found, exact in zip(*(kernels(mix, x, Pooled) for mix in written), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-13)


def test_between_two_batches_and_in_tiles(x):
    mix, matrix = CASES["isomorphism"]
    one, other = (lzr.kernel(Net(m).double(), init=lzr.init.variance(1.5, 0.1)) for m in (mix, lambda h: matrix @ h))
    torch.testing.assert_close(one.ntk(x, x[1:] + 1), other.ntk(x, x[1:] + 1), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(one.diagonal(x, "ntk"), other.ntk(x).diagonal(), rtol=1e-11, atol=1e-13)


class Adjacent(Net):
    """The graph of each sample is computed of the sample."""

    def forward(self, x):
        adjacency = torch.softmax(x @ x.mT, -1)
        return self.c(self.b(self.mix(self.a(x).relu(), adjacency)).erf().mean(1))


def test_each_sample_has_a_matrix_of_its_own(x):
    def steps(h, adjacency):
        for _ in range(2):
            h = 0.5 * h + adjacency @ h
        return h

    def whole(h, adjacency):
        return (0.25 * ONE + adjacency + adjacency @ adjacency) @ h

    for pair in ((x, None), (x, x[:2].flip(1))):
        found, exact = (lzr.kernel(Adjacent(m).double(), init=lzr.init.variance(1.5, 0.1))(*pair) for m in (steps, whole))
        for one, other in zip(found, exact, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


class Image(Net):
    def __init__(self, mix):
        super().__init__(mix)
        self.a = nn.Conv2d(2, 16, 3, padding=1)

    def forward(self, x):
        return self.c(self.b(self.mix(self.a(x).relu()).mean((2, 3))).erf())


def test_pixels_of_an_image():
    x = torch.randn(2, 2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.rand(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    flat = torch.eye(12, dtype=torch.float64) - 1 / 12

    def centred(h):
        return (h - h.mean((2, 3), keepdim=True)) * weights

    def exact(h):
        return (h.flatten(2) @ flat.T).unflatten(2, (4, 3)) * weights

    for one, other in zip(kernels(centred, x, Image), kernels(exact, x, Image), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


def test_a_norm_over_features_behind_it_stays_a_norm(x):
    def normed(h):
        return (h - h.mean(-1, keepdim=True)) / torch.sqrt(h.var(-1, unbiased=False, keepdim=True) + 1e-5)

    def centred(h):
        return h - h.mean(1, keepdim=True)

    exact = kernels(lambda h: nn.functional.layer_norm((ONE - 1 / P) @ h, h.shape[-1:]), x)
    for one, other in zip(kernels(lambda h: normed(centred(h)), x), exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


class Gained(Net):
    """A scalar gain below makes the tangent kernel random, and the covariance not."""

    def __init__(self, mix):
        super().__init__(mix)
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.c(self.mix(self.gain * self.b(self.a(x).relu())).erf().mean(1))


def test_the_covariance_alone_is_found_where_the_tangent_kernel_is_not(x):
    mix, matrix = (lambda h: torch.stack([h[:, 0], h[:, 2]], 1)), ONE[[0, 2]]  # which only pairs of positions refuse
    one, other = (lzr.kernel(Gained(m).double(), init=lzr.init.variance(1.5, 0.1)) for m in (mix, lambda h: matrix @ h))
    torch.testing.assert_close(one.nngp(x), other.nngp(x), rtol=1e-11, atol=1e-13)
    with pytest.raises(KernelError, match="stays random"):
        one.ntk(x)


@pytest.mark.parametrize("mix", [lambda h: h + h.roll(1, -1), lambda h: h + h.flip(1).roll(1, -1)])
def test_joins_of_different_features_stay_refused(mix, x):
    with pytest.raises(KernelError, match="feature"):
        kernels(mix, x)


class Roots(nn.Module):
    """Two branches, and what is done to them."""

    def __init__(self, what):
        super().__init__()
        self.a, self.b, self.gain, self.what = nn.Linear(3, 4), nn.Linear(3, 4), nn.Parameter(torch.ones(4)), what

    def forward(self, x):
        return self.what(self, self.a(x), self.b(x), x)


@pytest.mark.parametrize(
    ("what", "linear"),
    [
        (lambda m, a, b, x: a - a.mean(1, keepdim=True), True),
        (lambda m, a, b, x: a - b, False),
        (lambda m, a, b, x: torch.stack([a, b]), False),
        (lambda m, a, b, x: a * x.mean(-1, keepdim=True), True),
        (lambda m, a, b, x: a * a[:, :1], False),
        (lambda m, a, b, x: a @ a.mT, False),
        (lambda m, a, b, x: a * m.gain, False),
        (lambda m, a, b, x: a / x.mean(-1, keepdim=True), True),
        (lambda m, a, b, x: a / 2, True),
        (lambda m, a, b, x: x.mean(-1, keepdim=True) / a, False),
        (lambda m, a, b, x: a.reciprocal(), False),
        (lambda m, a, b, x: a / a[:, :1], False),
        (lambda m, a, b, x: a.tanh(), False),
        (lambda m, a, b, x: m.gain - m.gain.mean(), False),  # of no samples
    ],
)
def test_the_root_is_the_branch_only_of_linear_functions_of_it_alone(what, linear):
    graph = trace(Roots(what), torch.randn(2, P, 3))
    roots, last = roots_of(graph), list(graph)[-2].name
    assert roots[last] == ("linear" if linear else last)


def test_only_joins_of_the_branches_that_are_asked_for_are_combined():
    graph = trace(Roots(lambda m, a, b, x: (a - a.mean(1, keepdim=True)) * (b - b.mean(1, keepdim=True))), torch.randn(2, P, 3))
    roots = roots_of(graph)
    first, second = joins(graph, roots)
    for name, other in ((first, second), (second, first)):
        made = combined(graph, [roots[name]], frozenset())
        assert [node.name for node in made if node.op == NAME] == [name]
        assert made[other].op == "sub"
        assert not [node for node in combined(graph, [roots[name]], frozenset([name])) if node.op == NAME]


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(
    "mix",
    [
        lambda h, x: h + h.mean(0),
        lambda h, x: h - h.roll(1, 0),
        lambda h, x: h + h.flip(0),
        lambda h, x: x[..., :1] * h + h.mean(0),
        lambda h, x: h.sum(0) / h.shape[0] + h,
    ],
    ids=["mean", "roll", "flip", "of the data", "counted"],
)
def test_samples_are_not_joined(mix, samples, x):
    class Mixed(Net):
        def forward(self, x):
            return self.c(mix(self.a(x).relu(), x))

    with pytest.raises(KernelError, match="sample"):
        kernels(None, x[:samples], Mixed)


def test_explain_names_it_and_identity_reads_its_numbers(x):
    shown = lzr.kernel(Net(CASES["isomorphism"][0]).double()).explain(x)
    assert [row["operation"] for row in shown.operations].count("combination") == 1
    assert not shown.refusal
    one, same, other = (
        identity_of(lzr.kernel(Net(lambda h, e=e: e * h + A @ h).double(), init=lzr.init.variance(1.5, 0.1)), x, "ntk")
        for e in (1.1, 1.1, 1.1 + 1e-12)
    )
    assert one == same != other  # nine digits of the kernel do not tell them apart, the numbers as written do

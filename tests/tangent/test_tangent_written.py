"""Operations that torch differentiates wrongly: written out, they have its values and the derivatives of differences."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, jacrev, jvp, vmap
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from lazyrich.errors import TangentError
from lazyrich.tangent import NtkOperator, bags, contracted, higher_kernels, ntk_of, taylor
from lazyrich.tangent.written import WRITTEN, smooth

f64 = {"dtype": torch.float64}


@cache
def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **f64)


def slope(f, t=0.0, h=2e-3):
    t = torch.tensor(t, **f64)
    return (-f(t + 2 * h) + 8 * f(t + h) - 8 * f(t - h) + f(t - 2 * h)) / (12 * h)


def reflected(t):
    a = (drawn(5, 3) + t * drawn(5, 3, seed=1)).tril(-1)
    return torch.linalg.householder_product(a, 2 / (1 + a.square().sum(0)))


def square(t):
    return drawn(4, 4) + t * drawn(4, 4, seed=1)


def waves(t):
    return torch.complex(square(t), square(2 * t).mT)[:3, :3]


def definite(t):
    return square(t) @ square(t).mT + torch.eye(4, **f64)


def multiplied(t, **options):
    index = torch.tensor([[0, 1, 2, 3], [0, 0, 2, 1], [0, 1, 2, 1]])
    return square(t).scatter_reduce(0, index, drawn(4, 5, seed=2) + t, "prod", **options)


def whitened(values, vectors):
    return vectors * values.rsqrt() @ vectors.mT


def factors(t):
    """One of them zero."""
    return torch.stack([1 + t, 2 * t, 1 - t])


def filled(t, scatter):
    mask = torch.arange(16).view(4, 4) % 3 == 0
    return scatter(square(t), mask, square(t)[mask].sin())


LINES = {
    "masked scatter": lambda t: filled(t, torch.masked_scatter),
    "masked scatter in place": lambda t: filled(t, lambda h, *given: h.clone().masked_scatter_(*given)),
    "masked scatter over rows": lambda t: filled(t, lambda h, mask, _: h.masked_scatter(mask[0], h.sin())),
    "scattered products": multiplied,
    "scattered products alone": lambda t: multiplied(t, include_self=False),
    "products scattered in place": lambda t: (
        square(t).clone().scatter_reduce_(1, torch.zeros(4, 4).long(), square(2 * t), "prod")
    ),
    "reflections": reflected,
    "solve": lambda t: torch.linalg.solve(square(t), drawn(4, 2) * (1 + t)),
    "solve a vector from the right": lambda t: torch.linalg.solve(square(t), drawn(2, 4) * (1 + t), left=False),
    "solve_ex": lambda t: torch.linalg.solve_ex(square(t), drawn(4))[0],
    "lu_solve": lambda t: torch.linalg.lu_solve(*torch.linalg.lu_factor(square(t)), drawn(4, 2) * (1 + t)),
    "lu_solve of the adjoint": lambda t: torch.linalg.lu_solve(*torch.linalg.lu_factor(square(t)), drawn(4, 2), adjoint=True),
    "old lu_solve": lambda t: torch.lu_solve(drawn(4, 2), *torch.linalg.lu_factor(square(t))),
    "tensorsolve": lambda t: torch.linalg.tensorsolve(square(t).view(2, 2, 4), drawn(2, 2)),
    "det": lambda t: square(t).det(),
    "slogdet": lambda t: torch.linalg.slogdet(square(t))[1],
    "logdet": lambda t: torch.logdet(definite(t)),
    "slogdet of complex numbers": lambda t: torch.view_as_real(torch.stack(torch.linalg.slogdet(waves(t)))),
    "logdet of complex numbers": lambda t: torch.view_as_real(torch.logdet(waves(t))),
    "cholesky_inverse": lambda t: torch.cholesky_inverse(torch.linalg.cholesky(definite(t))),
    "eigh": lambda t: whitened(*torch.linalg.eigh(definite(t))),
    "eigenvectors": lambda t: torch.linalg.eigh(definite(t)).eigenvectors.square(),
    "eigvalsh": lambda t: torch.linalg.eigvalsh(definite(t), "U"),
    "eig": lambda t: (lambda values, v: (v * values.exp() @ torch.linalg.inv(v)).real)(*torch.linalg.eig(square(t))),
    "eigvals": lambda t: torch.view_as_real(torch.linalg.eigvals(square(t))),
    "product": lambda t: (square(t)[:, :3] * factors(t)).prod(1),
    "product of all": lambda t: torch.prod(square(t)[0, :3] * factors(t)),
    "products": lambda t: (square(t)[:, :3] * factors(t)).cumprod(1),
    "cdist": lambda t: torch.cdist(square(t), drawn(3, 4, seed=2)),
    "norm": lambda t: square(t).norm(dim=1),
    "vector_norm": lambda t: torch.linalg.vector_norm(square(t), dim=1),
    "order 3": lambda t: square(t).norm(3, 1),
    "order 4 with zeros": lambda t: torch.linalg.vector_norm(square(t)[:, :3] * factors(t), 4, -1),
    "linalg.norm": lambda t: torch.linalg.norm(square(t)),
    "matrix_norm": lambda t: torch.linalg.matrix_norm(square(t)),
    "dist": lambda t: torch.dist(square(t)[0], square(t)[1], 3),
    "pairwise distance": lambda t: F.pairwise_distance(square(t), drawn(4, 4, seed=2), 3),
    "pdist": lambda t: F.pdist(square(t)),
    "renorm": lambda t: square(t).renorm(2, 0, 0.5),
    "triplets": lambda t: F.triplet_margin_loss(square(t), drawn(4, 4, seed=2), square(2 * t).T, margin=9.0, swap=True),
    "signs of others": lambda t: torch.copysign(square(t), drawn(4, 4, seed=2)).exp(),
    "huber": lambda t: F.huber_loss(square(t), drawn(4, 4, seed=2), reduction="none"),
    "std_mean": lambda t: torch.stack(torch.std_mean(square(t), 0)),
    "normalize": lambda t: F.normalize(square(t)),
    "cosine": lambda t: F.cosine_similarity(square(t), drawn(4, 4, seed=2)),
    "std": lambda t: square(t).std(0),
    "angles": lambda t: (torch.complex(square(t) + 3, square(2 * t)) * torch.tensor([1.0, 0.0, 1.0, 1.0])).angle(),
    "abs of complex numbers": lambda t: abs(torch.fft.fft(square(t)) * torch.tensor([1.0, 0.0, 1.0, 1.0])),
}


@pytest.mark.filterwarnings("ignore:torch.lu_solve is deprecated")
@pytest.mark.parametrize("f", LINES.values(), ids=LINES)
def test_values_are_torchs_and_derivatives_along_a_line_are_those_of_differences(f):
    zero, one = torch.zeros((), **f64), torch.ones((), **f64)

    def first(t):
        return jvp(f, (t,), (one,))[1]

    def second(t):
        return jvp(first, (t,), (one,))[1]

    def third(t):
        return jvp(second, (t,), (one,))[1]

    plain = f(zero)
    with smooth():
        torch.testing.assert_close(f(zero), plain)
        torch.testing.assert_close(first(zero), slope(f), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(second(zero), slope(first), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(third(zero), slope(second), rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(jacrev(second)(zero), third(zero))
        two = torch.tensor([0.0, 0.1], **f64)  # as of two samples, together
        torch.testing.assert_close(vmap(jacrev(f))(two), torch.stack([first(t) for t in two]))
        torch.testing.assert_close(
            jvp(vmap(jacrev(f)), (two,), (torch.ones_like(two),))[1], torch.stack([second(t) for t in two])
        )
        torch.testing.assert_close(vmap(jacrev(first))(two), torch.stack([second(t) for t in two]))


def test_eigenvectors_of_values_that_meet_are_refused():
    class Whitened(nn.Linear):
        def forward(self, x):
            return x @ whitened(*torch.linalg.eigh(torch.eye(3, **f64) + self.weight @ self.weight.T))

    model = Whitened(3, 3).double()
    nn.init.zeros_(model.weight)
    with pytest.raises(TangentError, match="eigenvalues of a matrix .* the same to rounding"):
        taylor(model, 2)(drawn(2, 3))


def test_written_products_keep_shapes_and_types():
    x = drawn(2, 3, 4)
    calls = [
        (torch.prod, (x,), {}), (torch.prod, (x, -1, True), {}), (torch.prod, (torch.arange(5),), {}),
        (torch.prod, (x[:, :0], 1), {}), (torch.Tensor.prod, (x,), {"dim": 0, "dtype": torch.float32}),
        (torch.prod, (x > 0, 1), {}), (torch.cumprod, (x, 1), {}), (torch.cumprod, (x[:0],), {"dim": 0}),
        (torch.Tensor.cumprod, (torch.arange(5), 0), {}), (torch.prod, (x[0, 0, 0],), {}), (torch.prod, (x[0, 0, 0], 0), {}),
    ]  # fmt: skip
    for func, args, kwargs in calls:
        torch.testing.assert_close(WRITTEN[func](*args, **kwargs), func(*args, **kwargs))


BAGS = {
    "mean": ({}, {}),
    "mean without padding": ({"padding_idx": 1}, {}),
    "max without padding": ({"mode": "max", "padding_idx": -6}, {}),
    "weighted": ({"mode": "sum", "padding_idx": 0}, {"per_sample_weights": drawn(3, 4)}),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(("options", "given"), BAGS.values(), ids=BAGS)
def test_bags_of_embeddings_are_torchs_and_have_forward_derivatives(options, given):
    table, x = nn.EmbeddingBag(7, 5, **options, **f64), torch.tensor([[0, 1, 2, 5], [1, 1, 1, 1], [6, 5, 1, 4]])
    net = nn.Sequential(table, nn.Tanh(), nn.Linear(5, 2, **f64))
    found = bags.bag(x, table.weight, mode=table.mode, padding_idx=table.padding_idx, **given)
    torch.testing.assert_close(found, table(x, **given))
    rows = [torch.autograd.grad(f, list(net.parameters()), retain_graph=True) for f in net(x).flatten()]
    jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    torch.testing.assert_close(NtkOperator(net, x).matvec(torch.eye(6, **f64)), jacobian @ jacobian.T)
    torch.testing.assert_close(ntk_of(net, x).transpose(1, 2).reshape(6, 6), jacobian @ jacobian.T)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("options", [{"padding_idx": -6}, {"scale_grad_by_freq": True}], ids=["from the end", "by frequency"])
def test_bags_called_as_a_function_have_the_values_and_gradients_of_torch(mode, options):
    table, x = drawn(7, 5).clone().requires_grad_(), torch.tensor([[0, 1, 2, 5], [1, 1, 1, 1], [6, 5, 1, 4]])
    if mode == "max" and "scale_grad_by_freq" in options:
        options = {}  # which torch has not
    found, plain = (f(x, table, mode=mode, **options) for f in (bags.bag, F.embedding_bag))
    torch.testing.assert_close(found, plain)
    one, other = (torch.autograd.grad((f * drawn(3, 5)).sum(), table)[0] for f in (found, plain))
    torch.testing.assert_close(one, other)


def test_weights_of_rows_are_for_sums_as_in_torch():
    with pytest.raises(NotImplementedError, match="mode='sum'"):
        bags.bag(torch.zeros(2, 3).long(), drawn(7, 5), mode="mean", per_sample_weights=drawn(2, 3))


@pytest.mark.parametrize("part", [torch.abs, torch.angle])
def test_expansions_to_any_order_take_the_moduli_of_waves(part):
    class Moduli(nn.Module):
        def __init__(self):
            super().__init__()
            self.i, self.g = nn.Linear(3, 4, **f64), nn.Parameter(drawn(4))

        def forward(self, x):
            waves = torch.fft.fft(self.i(x)) * self.g
            return part(waves + 4 + 1j)

    net = Moduli()
    expanded = taylor(net, 4)
    with torch.no_grad():
        for p, new in zip(expanded.parameters(), net.parameters(), strict=True):
            p.mul_(1.02)
            new.mul_(1.02)
    found = expanded(drawn(2, 3))
    torch.testing.assert_close(found, net(drawn(2, 3)), rtol=1e-6, atol=1e-8)
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(found.sum(), list(expanded.parameters())))


@pytest.mark.filterwarnings("ignore:size_average and reduce args")
def test_written_lengths_keep_the_other_orders_and_shapes():
    x, y = drawn(3, 4, 5), drawn(3, 2, 5, seed=1)
    calls = [
        (torch.norm, (x,), {}), (torch.norm, (x, 1, 1, True), {}), (torch.norm, (x, "nuc"), {"dim": (0, 1)}),
        (torch.Tensor.norm, (x,), {"p": 2, "dim": (0, 2), "keepdim": True}), (torch.norm, (torch.complex(x, x), 2, -1), {}),
        (torch.linalg.vector_norm, (x,), {"ord": 1, "dim": -1}), (F.normalize, (x, 1, -1), {}),
        (torch.std, (x, (0, 1)), {"correction": 0}), (torch.cdist, (x, y, 1.0), {}), (torch.cdist, (x, y[0]), {}),
        (torch.norm, (x, 3.0, (0, 2)), {}), (torch.linalg.norm, (x[0], 2), {}), (torch.linalg.norm, (x[0, 0], 3), {}),
        (torch.linalg.norm, (x, "fro", (0, 1)), {}), (torch.linalg.norm, (x, None, (0, 1), True), {}),
        (torch.linalg.norm, (x, 1, 1), {}), (torch.linalg.norm, (x[0], "nuc"), {}), (torch.linalg.norm, (x,), {"dim": -1}),
        (torch.linalg.norm, (x[0, 0], float("inf")), {}), (torch.linalg.vector_norm, (x, 0.5, (0, 1)), {}),
        (torch.linalg.matrix_norm, (x, "fro"), {}), (torch.linalg.matrix_norm, (x, 2), {}), (torch.dist, (x, x[:1]), {}),
        (torch.renorm, (x, 1, -1, 2.0), {}), (F.pdist, (x[0], 1.0), {}), (F.huber_loss, (x, x**2), {"delta": 0.5}),
        (F.huber_loss, (x, x**2, "sum"), {}), (F.triplet_margin_loss, (x, x**2, 2 * x), {"reduction": "sum", "p": 3.0}),
        (torch.norm, (x[0, 0, 0], 3), {}), (torch.std_mean, (x, -1), {"keepdim": True}),
        (torch.linalg.norm, (x[0].float(),), {"dtype": torch.float64}),
        (torch.linalg.matrix_norm, (x.float(),), {"dtype": torch.float64}), (F.cosine_similarity, (0 * x, y[:, :1], -1), {}),
        (F.normalize, (0 * x,), {}), (F.triplet_margin_loss, (x, x**2, 2 * x), {"size_average": False}),
        (F.pairwise_distance, (x, y[:, :1]), {}), (F.cosine_similarity, (x, y[:, :1], -1), {}),
    ]  # fmt: skip
    for func, args, kwargs in calls:
        torch.testing.assert_close(WRITTEN[func](*args, **kwargs), func(*args, **kwargs))


def test_written_matrices_keep_signs_and_shapes():
    many = drawn(6, 3, 3)  # determinants of both signs
    lower = torch.linalg.cholesky(many @ many.mT)
    calls = [
        (torch.linalg.slogdet, (many,), {}), (torch.logdet, (many,), {}), (torch.linalg.det, (many,), {}),
        (torch.cholesky_inverse, (lower,), {}), (torch.cholesky_inverse, (lower.mT,), {"upper": True}),
        (torch.linalg.solve, (many, drawn(6, 3)), {}), (torch.linalg.solve, (many, drawn(3, 2)), {}),
        (torch.linalg.householder_product, (drawn(5, 3), drawn(2)), {}),
        (torch.linalg.tensorsolve, (drawn(3, 6, 2), drawn(3, 2)), {"dims": (1,)}),
    ]  # fmt: skip
    assert bool(torch.logdet(many).isnan().any())
    for func, args, kwargs in calls:
        found = WRITTEN[func](*args, **kwargs)
        torch.testing.assert_close(found, func(*args, **kwargs), equal_nan=True, msg=lambda m, func=func: f"{func}: {m}")


MAPS = {
    **{
        name: lambda layer, name=name: orthogonal(layer, orthogonal_map=name)
        for name in ("matrix_exp", "cayley", "householder")
    },
    "weight_norm": weight_norm,
    "spectral_norm": spectral_norm,
}


@pytest.mark.parametrize("parametrize", MAPS.values(), ids=MAPS)
def test_a_second_order_expansion_of_a_parametrized_layer_is_that_of_differences(parametrize):
    torch.manual_seed(0)
    layer = parametrize(nn.Linear(3, 5).double()).eval()
    x, name = drawn(2, 3), next(n for n, p in layer.named_parameters() if p.dim() == 2 and p.shape[1] > 1)
    start, step = dict(layer.named_parameters())[name].detach(), 0.1 * drawn(5, 3, seed=3).tril(-1)

    def at(order):
        model = taylor(layer, order)
        with torch.no_grad():
            dict(model.named_parameters())[name].add_(step)
            return model(x)

    def f(t):
        return functional_call(layer, {name: start + t * step}, (x,)).detach()

    want = (-f(0.2) + 16 * f(0.1) - 30 * f(0.0) + 16 * f(-0.1) - f(-0.2)) / (12 * 0.1**2)
    torch.testing.assert_close(2 * (at(2) - at(1)), want, rtol=1e-4, atol=1e-7)


class Radial(nn.Module):
    """exp(-distance to trained centres), read out."""

    def __init__(self, order=2.0):
        super().__init__()
        self.centres, self.out, self.order = nn.Parameter(drawn(5, 3)), nn.Linear(5, 2).double(), order

    def forward(self, x):
        return self.out(torch.exp(-torch.cdist(x, self.centres, p=self.order)))


@pytest.mark.parametrize("order", [1.0, 2.0, 3.0])
def test_kernels_of_radial_units_are_those_of_gradients_one_by_one(order):
    model, x = Radial(order), drawn(4, 3, seed=1)
    weights = list(model.parameters())
    outputs = [f for one in x.split(1) for f in model(one)[0]]
    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(f, weights, retain_graph=True)]) for f in outputs]
    want = torch.stack(rows) @ torch.stack(rows).T
    torch.testing.assert_close(ntk_of(model, x).transpose(1, 2).reshape(8, 8), want)
    torch.testing.assert_close(NtkOperator(model, x).matvec(torch.eye(8, **f64)), want)
    torch.testing.assert_close(higher_kernels(model, x[:1], order=2).k2, want[:2, :2])


class Halted(nn.Module):
    """A part of it without gradient: by no_grad, or written with detach."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.w, self.i, self.o, self.how = nn.Linear(5, 5), nn.Linear(3, 5), nn.Linear(5, 2), how
        self.double()

    def forward(self, x):
        return self.o(self.how(self, torch.tanh(self.i(x))))


def settled(net, h):
    """A fixed point found without gradient, and one step with it."""
    with torch.no_grad():
        z = torch.zeros_like(h)
        for _ in range(5):
            z = torch.tanh(0.3 * net.w(z) + h)
    return torch.tanh(0.3 * net.w(z) + h)


def settled_by_hand(net, h):
    z = torch.zeros_like(h)
    for _ in range(5):
        z = torch.tanh(0.3 * net.w(z) + h).detach()
    return torch.tanh(0.3 * net.w(z) + h)


def scaled_in_place(net, h):
    """The values change, the derivatives do not."""
    h = net.w(h)
    with torch.no_grad():
        h.mul_(net.w.bias).clamp_(-2, 2)
        out = torch.empty_like(h)
        out[:] = h.T.T
    return h * out


def scaled_by_hand(net, h):
    h = net.w(h)
    h = h + ((h * net.w.bias).clamp(-2, 2) - h).detach()
    return h * h.detach()


@pytest.mark.parametrize(("how", "hand"), [(settled, settled_by_hand), (scaled_in_place, scaled_by_hand)])
@pytest.mark.parametrize("enabled", [True, False])
def test_no_derivative_goes_through_what_a_network_does_without_gradient(how, hand, enabled):
    net, plain, x = Halted(how), Halted(hand), drawn(3, 3)
    r = drawn(3, 2, seed=3)
    with torch.set_grad_enabled(enabled):
        torch.testing.assert_close(ntk_of(net, x), ntk_of(plain, x))
        torch.testing.assert_close(NtkOperator(net, x).matvec(r.view(6, 1)), NtkOperator(plain, x).matvec(r.view(6, 1)))
        mine, other = higher_kernels(net, x, order=3), higher_kernels(plain, x, order=3)
        torch.testing.assert_close((mine.k2, mine.k3), (other.k2, other.k3))
        torch.testing.assert_close(contracted(net, x, r, order=3), contracted(plain, x, r, order=3))
        for order in (1, 2):
            found = []
            for model in (net, plain):
                expanded = taylor(model, order)
                with torch.no_grad():
                    for p in expanded.parameters():
                        p += 0.1
                found.append(expanded(x))
            torch.testing.assert_close(*found)
            assert found[0].requires_grad is enabled


def test_gradients_through_an_expansion_stop_where_those_of_the_network_do():
    net, plain, x = Halted(settled), Halted(settled_by_hand), drawn(3, 3)
    found = []
    for model in (net, plain):
        expanded = taylor(model, 2)
        with torch.no_grad():
            for p in expanded.parameters():
                p += 0.1
        found.append(torch.autograd.grad(expanded(x).sum(), list(expanded.parameters())))
    torch.testing.assert_close(*found)


class Upsampled(nn.Module):
    """By an operation that torch takes sample by sample where a pass is vectorised."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x):
        return F.interpolate(torch.tanh(self.gain.square() * x), scale_factor=2, mode="nearest-exact").flatten(1)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize(
    "asked",
    [
        ntk_of,
        lambda net, x: contracted(net, x, torch.ones(3, 16, **f64), keep=2),
        lambda net, x: NtkOperator(net, x).matvec(torch.ones(48, 1, **f64)),
    ],
)
def test_operations_without_a_batched_form_are_taken_one_by_one_in_silence(asked):
    assert asked(Upsampled().double(), drawn(3, 1, 2, 2)).any()


def test_bilinear_layers_are_torchs_and_have_a_batched_form():
    layer = nn.Bilinear(3, 4, 2).double()
    given = (drawn(5, 2, 3), drawn(5, 2, 4), layer.weight)
    for options in ((), (layer.bias,), (None,)):
        torch.testing.assert_close(WRITTEN[F.bilinear](*given, *options), F.bilinear(*given, *options))
    assert vmap(WRITTEN[torch.bilinear], (0, 0, None))(*given).shape == (5, 2, 2)

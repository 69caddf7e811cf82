"""dNTK, ddNTK, K3 and K4 against explicit derivatives, and their contractions against the tensors."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacfwd, jacrev
from torch.utils._python_dispatch import TorchDispatchMode

from lazyrich.errors import TangentError
from lazyrich.tangent import contracted, contraction, hierarchy, higher, higher_kernels, ntk_of, ntk_velocity, taylor
from lazyrich.tangent.once import once
from lazyrich.tangent.outputs import Outputs, along, following
from lazyrich.tangent.written import smooth

EXACT = {"rtol": 1e-10, "atol": 1e-10}


class Attention(nn.Module):
    """One head, whose score is a product of three weights."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 1, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0].sum((1, 2)).unsqueeze(1)


class Tied(nn.Module):
    """One weight, used twice."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        return self.inner(torch.tanh(self.inner(x)))[:, :2]


class Words(nn.Module):
    """A table, one row of which is read twice by a sample, and an output of two numbers."""

    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(3, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.out(torch.tanh(self.words(x)).prod(1))


NETWORKS = {
    "dense": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (3,)),
    "rectified": (lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Linear(5, 1)), (3,)),
    "layer norm": (lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)), (3,)),
    "convolution": (lambda: nn.Sequential(nn.Conv2d(1, 3, 2), nn.GELU(), nn.Flatten(), nn.Linear(12, 1)), (1, 3, 3)),
    "group norm": (
        lambda: nn.Sequential(nn.Conv1d(1, 4, 2), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2)),
        (1, 3),
    ),
    "attention": (Attention, (3, 2)),
    "tied": (Tied, (3,)),
    "embedding": (Words, None),
}


def case(name, samples=2):
    build, shape = NETWORKS[name]
    torch.manual_seed(1)
    model = build().double().eval()
    for p in model.parameters():  # away from ones, zeros and the factory's small numbers
        nn.init.normal_(p, std=0.7)
    if shape is None:
        return model, torch.tensor([[0, 1, 1], [2, 0, 1], [2, 2, 2]])[:samples]
    return model, torch.randn(samples, *shape, dtype=torch.float64)


def referee(model, x, rates=None):
    """K2, K3, K4, dNTK, ddNTK I and II from explicit Jacobians, Hessians and third derivatives."""
    names, shapes, sizes = zip(*((n, p.shape, p.numel()) for n, p in model.named_parameters()), strict=True)
    start = torch.cat([p.detach().flatten() for p in model.parameters()])
    metric = torch.cat([torch.full((n,), (rates or {}).get(name, 1.0)) for name, n in zip(names, sizes, strict=True)]).double()
    model = written_out(model)

    def f(theta):
        parts = {n: part.view(s) for n, part, s in zip(names, theta.split(sizes), shapes, strict=True)}
        with smooth():
            return functional_call(model, parts, (x,)).flatten()

    first, second = jacrev(f), jacfwd(jacrev(f))

    def k3(theta):
        j, h = first(theta) * metric, second(theta)
        dntk = torch.einsum("aij,bi,cj->abc", h, j, j)
        return dntk + dntk.transpose(0, 1)

    j, h, t = first(start), second(start), jacfwd(second)(start)
    u = j * metric
    hu = torch.einsum("aij,cj->aci", h, u)
    return {
        "k2": torch.einsum("ai,bi->ab", u, j),
        "k3": k3(start),
        "k4": torch.einsum("abci,ei->abce", jacfwd(k3)(start), u),
        "dntk": torch.einsum("aij,bi,cj->abc", h, u, u),
        "ddntk_one": torch.einsum("aijk,bi,cj,ek->abce", t, u, u, u),
        "ddntk_two": torch.einsum("aci,i,bei->abce", hu, metric, hu),
    }


class WrittenNorm(nn.LayerNorm):
    """A layer norm by its formula, since torch's own has wrong derivatives here."""

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        return centred / ((centred**2).mean(-1, keepdim=True) + self.eps) ** 0.5 * self.weight + self.bias


def written_out(model):
    if not isinstance(model, nn.Sequential):
        return model
    kinds = {nn.LayerNorm: lambda m: WrittenNorm(m.normalized_shape), nn.ReLU: lambda m: nn.ReLU()}
    return nn.Sequential(*(kinds.get(type(m), lambda m: m)(m) for m in model)).double()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kernel_equals_its_explicit_derivatives(name):
    model, x = case(name)
    got, want = higher_kernels(model, x), referee(model, x)
    assert float(want["k3"].abs().max()) > 1e-3
    for kernel, value in want.items():
        scale = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(getattr(got, kernel) / scale, value / scale, **EXACT)


def test_k4_is_not_symmetric_in_its_last_two_indices():
    model, x = case("dense")
    k4 = higher_kernels(model, x).k4
    torch.testing.assert_close(k4, k4.transpose(0, 1), **EXACT)
    assert float((k4 - k4.transpose(2, 3)).abs().max()) > 1e-3


def test_learning_rates_count_in_every_kernel_and_a_rate_of_zero_freezes():
    model, x = case("dense")
    rates = {"0.weight": 0.25, "2.weight": 3.0, "2.bias": 0.0}
    got, want = higher_kernels(model, x, rates=rates), referee(model, x, rates)
    for kernel, value in want.items():
        torch.testing.assert_close(getattr(got, kernel), value, **EXACT)
    r = torch.randn(2, 2, dtype=torch.float64)
    torch.testing.assert_close(contracted(model, x, r, rates=rates).flatten(), want["k3"] @ r.flatten() @ r.flatten(), **EXACT)


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_of_test_inputs_are_those_of_one_larger_set(name):
    model, x = case(name, samples=3)
    part, whole = higher_kernels(model, x[:2], x[2:]), referee(model, x)
    m = 2 * (len(whole["k2"]) // 3)
    for got, want in ((part.k2, whole["k2"][:, :m]), (part.k3, whole["k3"][:, :m, :m]), (part.k4, whole["k4"][:, :m, :m, :m])):
        scale = max(1.0, float(want.abs().max()))
        torch.testing.assert_close(got / scale, want / scale, **EXACT)


def test_blocks_give_the_same_as_the_whole(monkeypatch):
    model, x = case("dense")
    whole, r = higher_kernels(model, x, order=3), torch.randn(2, 2, dtype=torch.float64)
    matrix = contracted(model, x, r, order=4, keep=2)
    monkeypatch.setattr(higher, "CHUNK", 1.0)
    monkeypatch.setattr(contraction, "ROWS", 1.0)
    torch.testing.assert_close(higher_kernels(model, x, order=3).k3, whole.k3, **EXACT)
    torch.testing.assert_close(contracted(model, x, r, order=4, keep=2), matrix, **EXACT)


@pytest.mark.parametrize("name", NETWORKS)
def test_contractions_equal_the_contracted_tensors(name):
    model, x = case(name, samples=3)
    kernels = higher_kernels(model, x)
    r = torch.randn(kernels.shape, dtype=torch.float64)
    v = r.flatten()
    matrices = {2: kernels.k2, 3: kernels.k3 @ v, 4: kernels.k4 @ v @ v}
    for order, matrix in matrices.items():
        scale = max(1.0, float(matrix.abs().max()))
        torch.testing.assert_close(contracted(model, x, r, order, keep=2) / scale, matrix / scale, **EXACT)
        torch.testing.assert_close(contracted(model, x, r, order).flatten() / scale, matrix @ v / scale, **EXACT)


def test_a_single_output_takes_residuals_without_an_axis():
    model, x = case("convolution")
    r = torch.tensor([1.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(contracted(model, x, r), contracted(model, x, r.unsqueeze(1)))


def test_the_kernel_moves_along_gradient_descent_as_k3_says():
    model, x = case("dense", samples=4)
    y = torch.randn(4, 2, dtype=torch.float64)
    velocity, step = ntk_velocity(model, x, y, loss="mean", lr=0.5), 1e-5

    def kernel(sign):
        trained = NETWORKS["dense"][0]().double()
        trained.load_state_dict(model.state_dict())
        loss = (trained(x) - y).square().sum() / (2 * 4)
        with torch.no_grad():
            for p, g in zip(trained.parameters(), torch.autograd.grad(loss, list(trained.parameters())), strict=True):
                p -= sign * step * 0.5 * g
        return higher_kernels(trained, x, order=2).k2

    measured = (kernel(1) - kernel(-1)) / (2 * step)
    assert float((velocity - measured).norm() / measured.norm()) < 1e-7


def test_an_operation_is_done_once_only_where_nothing_changes_in_place():
    a, calls = torch.randn(3, 3), []

    def repeated():
        calls.append(1)
        first, second = torch.mm(a, a), torch.mm(a, a)
        return first.add_(1.0), second

    first, second = once(repeated)
    assert len(calls) == 2
    torch.testing.assert_close(first, second + 1.0)

    def pure():
        first, second = torch.mm(a, a), torch.mm(a.clone(), a)
        return first, second, torch.mm(a, a)

    first, second, again = once(pure)
    assert first.data_ptr() == again.data_ptr() != second.data_ptr()


def test_marks_of_a_profiler_are_no_operations():
    class Marked(nn.Linear):
        def forward(self, x):
            with torch.profiler.record_function("a part"), torch.profiler.record_function("a part of it"):
                return super().forward(x).sin()

    model, x, r = Marked(3, 1), torch.randn(4, 3), torch.ones(4, 1)
    torch.testing.assert_close(contracted(model, x, r, keep=2) @ r, contracted(model, x, r))


@pytest.mark.parametrize("keep", [1, 2])
def test_derivatives_that_are_not_finite_are_refused(keep):
    class Rooted(nn.Linear):
        def forward(self, x):
            h = super().forward(x)
            return h + (h - h.detach()).abs().pow(1.5)

    with pytest.raises(TangentError, match="Rooted has higher derivatives that are not finite"):
        contracted(Rooted(3, 1), torch.randn(4, 3), torch.ones(4, 1), keep=keep)


def test_a_derivative_that_is_zero_times_a_number():
    """Torch keeps it without memory; that and a mode which sees every operation end the process, if nothing is done."""
    x = torch.randn(3)
    found = once(lambda: along(lambda x: torch.ldexp(x, torch.tensor(2)), x, x, x))
    torch.testing.assert_close(found, torch.zeros(3))


def test_parameters_without_axes_have_matrices():
    class Gained(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.g = nn.Linear(3, 2), nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return self.g.exp() * torch.tanh(self.a(x))

    torch.manual_seed(0)
    model, x, r = Gained().double(), torch.randn(4, 3).double(), torch.randn(4, 2).double()
    matrix = contracted(model, x, r, 3, keep=2)
    torch.testing.assert_close(contracted(model, x, r, 3).flatten(), matrix @ r.flatten(), rtol=1e-9, atol=1e-9)


class Gru(nn.Module):
    def __init__(self):
        super().__init__()
        self.r, self.o = nn.GRU(4, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x):
        return self.o(self.r(x)[0][:, -1])


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 6), nn.GLU(), nn.Linear(3, 2)), (5, 4)),
        (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.Tanh(), nn.Linear(3, 2)), (5, 4)),
        (Gru, (5, 3, 4)),
    ],
    ids=["gated", "weight norm", "recurrent"],
)
def test_operations_that_torch_fuses_have_all_derivatives(make, shape):
    torch.manual_seed(0)
    model, x, r = make().double(), torch.randn(shape).double(), torch.randn(5, 2).double()
    vector, matrix = contracted(model, x, r, 3), contracted(model, x, r, 3, keep=2)
    torch.testing.assert_close(vector.flatten(), matrix @ r.flatten(), rtol=1e-9, atol=1e-9)


def test_an_operation_without_a_forward_derivative_is_named():
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, g):
            return 2 * g

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 2)

        def forward(self, x):
            return Doubled.apply(self.a(x))

    model, x = Net(), torch.randn(3, 4)
    with pytest.raises(TangentError, match="without a forward derivative"):
        contracted(model, x, torch.randn(3, 2), 3)
    assert ntk_of(model, x).shape == (3, 3, 2, 2)


class Slices(nn.Module):
    """Half of its hidden layer is exponentiated, in place or not."""

    def __init__(self, change, sizes=(3, 4, 1)):
        super().__init__()
        self.first, self.last, self.change = nn.Linear(*sizes[:2]), nn.Linear(*sizes[1:]), change

    def forward(self, x):
        return self.last(self.change(self.first(x)))


def exponentiated(h):
    h[:, :2].exp_()
    return h


def anew(h):
    return torch.cat([h[:, :2].exp(), h[:, 2:]], 1)


def assigned(h):
    h[:, :2] = h[:, :2].exp()
    return h


def gated(h):
    h[:, :2].mul_(h[:, 2:])
    return h


def test_changes_in_place_are_followed_or_refused_with_their_mend():
    """torch raises on the last three, each in its own words, which name neither network nor mend."""
    torch.manual_seed(0)
    plain = Slices(exponentiated)
    plain_anew, x = Slices(anew), torch.randn(2, 3)
    plain_anew.load_state_dict(plain.state_dict())
    torch.testing.assert_close(higher_kernels(plain, x).k4, higher_kernels(plain_anew, x).k4)
    constant = Slices(lambda h: exponentiated(h * 0))  # the derivative along a frozen weight is torch's immutable zero
    constant.first.weight.requires_grad_(False)
    mend = r"Slices changes a tensor in place .*; make a new one, torch\.cat"
    with pytest.raises(TangentError, match=mend):
        higher_kernels(constant, x)
    with pytest.raises(TangentError, match=mend):
        ntk_of(Slices(gated), x)
    with pytest.raises(TangentError, match=mend):
        taylor(Slices(assigned), 2)(x)


@pytest.mark.parametrize("norm", [nn.InstanceNorm1d(2), nn.InstanceNorm1d(2, affine=True), nn.LayerNorm(3), nn.PReLU(2)])
def test_contracted_vector_and_matrix_agree_behind_norms_and_prelu(norm):
    """Derivatives of fused forms are wrong in torch; both ways take written ones."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 2, 2), norm, nn.Tanh(), nn.Flatten(), nn.Linear(6, 2)).double()
    x, r = torch.randn(2, 2, 4).double(), torch.randn(2, 2).double()
    vector, matrix = contracted(model, x, r, 3), contracted(model, x, r, 3, keep=2)
    torch.testing.assert_close(vector.flatten(), matrix @ r.flatten(), rtol=1e-9, atol=1e-9)


def test_movement_counts_from_the_start_and_a_prediction_may_end_before_the_first_time():
    torch.manual_seed(0)
    net, x, y = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1)).double(), torch.randn(4, 3), torch.randn(4, 1)
    whole, later = (hierarchy(net, x, y, 4, times=times).ntk_movement() for times in ([0, 1.0, 2.0], [1.0, 2.0]))
    torch.testing.assert_close(whole[1:], later)
    ended = hierarchy(net, x, 100 * y, 3, times=[50.0])
    assert ended.reason and bool(ended.losses.isnan().all()) and "nan" in str(ended)


def test_rates_beside_kernels_are_refused():
    net, x = nn.Linear(3, 1), torch.randn(4, 3)
    with pytest.raises(TangentError, match="rates are in the kernels already"):
        hierarchy(net, x, torch.randn(4), 3, times=1.0, kernels=higher_kernels(net, x, order=3), rates={"weight": 0.5})


def test_products_with_derivatives_of_the_data_are_left_out():
    """They are zero; one that is written out, or that is a repeated number other than zero, is multiplied."""

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.append(func)
            return func(*args, **(kwargs or {}))

    a, calls = torch.randn(3, 3), []
    zero, one = torch.zeros(()).expand(3, 3), torch.ones(()).expand(3, 3)
    with Counting():
        found = once(lambda: (torch.mm(a, zero), torch.mm(zero, a), torch.mm(a, one), torch.mm(a, zero.clone())))
    assert calls.count(torch.ops.aten.mm.default) == 2
    for got, second in zip(found, (zero, zero, one, zero), strict=True):
        torch.testing.assert_close(got, a @ second)


def test_directions_and_fields():
    x, d = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert float(along(lambda x: (x**2).sum(), x, d, d)) == 2 * float(d @ d)
    twice = following(following(lambda x: x[0], lambda x: x * x), lambda x: x * x)  # x' = x^2, so x'' = 2 x^3
    assert float(twice(torch.tensor([3.0]))) == 54.0


def test_the_model_is_only_read():
    model, x = case("dense")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    higher_kernels(model.float(), x.float(), order=3)
    contracted(model, x.float(), torch.ones(2, 2))
    assert next(model.parameters()).dtype == torch.float32
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, before[name].float()) for name, p in model.named_parameters())


def test_what_does_not_fit_is_refused_with_the_mend(monkeypatch):
    model, x = case("dense")
    r = torch.zeros(2, 2, dtype=torch.float64)
    for call, says in [
        (lambda: higher_kernels(model, x, order=5), "got order 5, expected one of 2, 3, 4"),
        (lambda: higher_kernels(model, x, x[:, :2]), r"got x_test of shape \(2, 2\).*\(2, 3\)"),
        (lambda: contracted(model, x, r, keep=3), "keep 1 or 2"),
        (lambda: contracted(model, x, r[0]), r"got r of shape \(2,\), expected the outputs' \(2, 2\).*one-hot"),
        (lambda: contracted(model, x, r * torch.nan), "r has entries that are not finite"),
        (lambda: higher_kernels(model, x, rates={"weight": 1.0}), r"a rate for 'weight'.*0.weight"),
        (lambda: higher_kernels(model, x, rates={"0.bias": -1.0}), "rate -1.0 for '0.bias'"),
        (lambda: Outputs(nn.Linear(3, 1), x.float(), rates={"weight": 0, "bias": 0}), "nothing trains"),
    ]:
        with pytest.raises(TangentError, match=says):
            call()
    monkeypatch.setattr(higher, "LIMIT", 1000)
    with pytest.raises(TangentError, match=r"K4 of 4 training outputs .* needs .* GB.*contracted\(model, x, r, order=4\)"):
        higher_kernels(model, x)


class Cast(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)).float())


def test_a_network_that_fixes_its_precision_is_told_apart_from_inputs_that_do_not_fit():
    x = torch.randn(3, 3)
    with pytest.raises(TangentError, match=r"Cast fixes its precision \(a .float\(\).*take contracted or ntk_of"):
        higher_kernels(Cast(), x)
    assert contracted(Cast(), x, torch.ones(3, 2)).shape == (3, 2)
    with pytest.raises(TangentError, match=r"Cast does not take x of shape \(3, 5\)"):
        higher_kernels(Cast(), torch.randn(3, 5))

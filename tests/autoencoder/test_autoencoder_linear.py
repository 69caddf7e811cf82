"""Linear theory: principal subspaces, probabilistic PCA behind linear VAEs, and the way there, against trained networks."""

import math

import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.stats import multivariate_normal
from torch import nn

from lazyrich.autoencoder import (
    LinearVae,
    Pair,
    Vae,
    codes,
    collapse,
    importance_bound,
    iterate,
    linear_course,
    noisy,
    objective,
    principal,
    subspace_angle,
    vae,
)
from lazyrich.errors import AutoencoderError

DECREASING = torch.tensor([3.0, 1.0])

SPECTRUM, NOISE = [3.0, 1.5, 0.8, 0.3], 0.5


def data(samples=400, size=20, spectrum=SPECTRUM, noise=0.2, seed=0):
    """Samples whose second moments are exactly the spectrum along random directions, and ``noise`` elsewhere."""
    draw = torch.Generator().manual_seed(seed)
    white = torch.randn(samples, size, generator=draw, dtype=torch.float64)
    white = white - white.mean(0)
    white = white @ torch.linalg.inv(torch.linalg.cholesky(white.T @ white / samples)).T
    values = torch.tensor([*spectrum, *[noise] * (size - len(spectrum))], dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(size, size, generator=draw, dtype=torch.float64)).Q
    return white * values.sqrt() @ turn.T + 1.0


def test_principal_directions_are_those_of_the_covariance():
    x = data()
    found = principal(x)
    covariance = torch.cov(x.T, correction=0)
    torch.testing.assert_close(
        found.directions @ covariance @ found.directions.T, torch.diag(found.variances), atol=1e-10, rtol=0
    )
    assert found.variances[:4].tolist() == pytest.approx(SPECTRUM)
    error = (x - found.reconstruct(x, 2)).square().sum(1).mean()
    assert found.error(2) == pytest.approx(float(error))


def test_small_angles_keep_their_digits():
    turn = torch.tensor([[1.0, 1e-9]], dtype=torch.float64)
    assert subspace_angle(torch.tensor([[1.0, 0.0]]), turn) == pytest.approx(1e-9, rel=1e-6)
    with pytest.raises(AutoencoderError, match="dimension 1 .* and 2"):
        subspace_angle(torch.ones(1, 3), torch.eye(3)[:2])


def test_angles_are_those_of_what_rows_span_however_many_there_are():
    twice, eye = torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]]), torch.eye(3)
    assert subspace_angle(twice, torch.tensor([[1.0, 1.0, 0.0]])) == pytest.approx(math.pi / 4)
    assert subspace_angle(torch.cat([eye[:2], torch.zeros(2, 3)]), eye[1:]) == pytest.approx(math.pi / 2)
    for bad, says in (
        ((twice, eye[:2]), r"1 \(a, 2 rows\) and 2"),
        ((0 * twice, eye[:1]), "0 .* and 1"),
        ((0 * twice, twice * 0), "0"),
    ):
        with pytest.raises(AutoencoderError, match=f"row spaces of dimension {says}"):
            subspace_angle(*bad)


def test_a_deep_linear_autoencoder_finds_the_principal_subspace():
    x = data(spectrum=[3.0, 2.0], noise=0.1)
    x = x - x.mean(0)
    torch.manual_seed(0)
    sizes = [20, 20, 2, 20, 20]
    net = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in zip(sizes[:-1], sizes[1:], strict=True))).double()
    sgd = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(3000):
        sgd.zero_grad()
        (0.5 * (net(x) - x).square().sum(1).mean()).backward()
        sgd.step()
    whole = net[3].weight @ net[2].weight @ net[1].weight @ net[0].weight
    rows = torch.linalg.svd(whole.detach()).Vh[:2]
    assert subspace_angle(rows, principal(x).directions[:2]) < 1e-3


def test_the_course_of_learning_solves_its_equation_and_is_that_of_gradient_descent():
    variances, start = torch.tensor([2.0, 0.5], dtype=torch.float64), 0.01
    times = torch.linspace(0, 4, 9, dtype=torch.float64)
    ode = solve_ivp(lambda t, a: 2 * variances.numpy() * a * (1 - a), (0, 4), [start] * 2, t_eval=times, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(linear_course(variances, start, times), torch.tensor(ode.y.T), rtol=1e-7, atol=1e-9)
    w1 = w2 = math.sqrt(start) * torch.eye(2, dtype=torch.float64)
    second, lr = torch.diag(variances), 1e-3
    for _ in range(2000):
        gap = second - w2 @ w1 @ second
        w1, w2 = w1 + lr * w2.T @ gap, w2 + lr * gap @ w1.T
    assert torch.diagonal(w2 @ w1).tolist() == pytest.approx(linear_course(variances, start, times)[4].tolist(), rel=5e-3)
    with pytest.raises(AutoencoderError, match="start = 1"):
        linear_course(variances, 1.0, times)


@pytest.mark.parametrize(("beta", "latents"), [(0.5, 4), (1.0, 4), (2.0, 4), (4.0, 4), (1.0, 2)])
def test_the_likelihood_is_that_of_the_gaussian(beta, latents):
    x = data()
    found = principal(x)
    model = LinearVae(found.variances, NOISE, beta, latents=latents)
    gains = (found.variances[:latents] - beta * NOISE).clamp_min(0).sqrt()
    factors = found.directions[:latents].T * gains
    covariance = factors @ factors.T + NOISE * torch.eye(20)
    referee = multivariate_normal(found.mean.numpy(), covariance.numpy()).logpdf(x.numpy()).mean()
    assert model.log_likelihood == pytest.approx(referee, rel=1e-12)


@pytest.mark.parametrize("beta", [1.0, 2.0, 4.0])
def test_a_linear_vae_reaches_the_rates_of_probabilistic_pca(beta):
    x = data(noise=0.3)
    theory = LinearVae(principal(x).variances, NOISE, beta, latents=5)
    if beta == 1:
        assert theory.rates[:4].tolist() == pytest.approx([0.896, 0.549, 0.235, 0.0], abs=5e-4)
    torch.manual_seed(0)
    vae = Vae(nn.Linear(20, 10), nn.Linear(5, 20), noise=NOISE).double().train()
    # the expectation over z is known for linear decoders: E|x - W z - b|^2 = |x - W mu - b|^2 + sum_j s_j^2 |W_j|^2
    adam = torch.optim.Adam(vae.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 1500)
    for _ in range(1500):
        adam.zero_grad()
        mean, log_variance = vae.posterior(x)
        spread = (log_variance.exp() * vae.decoder.weight.square().sum(0)).sum(1)
        error = (vae.decoder(mean) - x).square().sum(1) + spread
        rate = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        loss = (0.5 * error / NOISE + 10 * math.log(2 * math.pi * NOISE) + beta * rate).mean()
        loss.backward()
        adam.step()
        schedule.step()
    found = collapse(vae, x)
    assert found.rates.sort(descending=True).values.tolist() == pytest.approx(theory.rates.tolist(), abs=0.02)
    variances = log_variance.detach().exp().mean(0).sort().values.tolist()
    assert variances == pytest.approx(theory.posterior_variances.tolist(), abs=0.02)
    assert found.active == theory.active == {1.0: 3, 2.0: 2, 4.0: 1}[beta]
    weight, offset = vae.decoder.weight.detach(), vae.decoder.bias.detach()
    marginal = multivariate_normal(offset.numpy(), (weight @ weight.T + NOISE * torch.eye(20)).numpy())
    assert theory.log_likelihood == pytest.approx(marginal.logpdf(x.numpy()).mean(), abs=0.02)
    if beta == 1:
        assert 0 <= theory.log_likelihood + float(loss.detach()) < 0.01
        bound = float(importance_bound(vae, x, 200).mean())
        assert -float(loss.detach()) - 0.01 < bound < theory.log_likelihood + 0.01


def test_the_objective_is_the_negative_elbo_with_beta_free_bits_and_warm_up():
    torch.manual_seed(0)
    vae, x = Vae(nn.Linear(6, 4), nn.Linear(2, 6), noise=0.3).double(), torch.randn(50, 6, dtype=torch.float64)
    found = vae.eval()(x)
    noise = torch.distributions.Normal(vae.decoder(found.mean), math.sqrt(0.3))
    distortion = -noise.log_prob(x).sum(1).mean()
    q = torch.distributions.Normal(found.mean, (0.5 * found.log_variance).exp())
    rates = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(0)
    torch.testing.assert_close(objective(3.0)(found, x), distortion + 3 * rates.sum())
    free = float(rates.detach().mean())
    torch.testing.assert_close(objective(1.0, free)(found, x), distortion + rates.clamp_min(free).sum())
    warm = objective(1.0, warm_up=4)
    torch.testing.assert_close([warm(found, x) for _ in range(2)][1], distortion + 0.5 * rates.sum())


def test_learnt_noise_is_the_residual_and_bernoulli_likelihoods_are_those_of_torch():
    torch.manual_seed(0)
    x = torch.randn(200, 6, dtype=torch.float64)
    vae = Vae(nn.Linear(6, 4), nn.Linear(2, 6), noise=None).double().eval()
    best = (vae.decoder(vae.posterior(x)[0]) - x).square().mean().detach()
    adam = torch.optim.LBFGS([vae.log_noise], max_iter=50)

    def closure():
        adam.zero_grad()
        value = vae(x).distortion(x).mean()
        value.backward()
        return value

    adam.step(closure)
    assert float(vae.log_noise.detach().exp()) == pytest.approx(float(best), rel=1e-4)
    coin = Vae(nn.Linear(6, 4), nn.Linear(2, 6), likelihood="bernoulli").double().eval()
    bits = (x > 0).double()
    referee = torch.distributions.Bernoulli(logits=coin(bits).reconstruction).log_prob(bits).sum(1)
    torch.testing.assert_close(-coin(bits).distortion(bits), referee)


def test_importance_bounds_rise_with_their_samples():
    torch.manual_seed(0)
    vae, x = Vae(nn.Linear(6, 4), nn.Linear(2, 6), noise=0.3).double(), torch.randn(100, 6, dtype=torch.float64)
    bounds = [float(importance_bound(vae, x, k).mean()) for k in (1, 10, 1000)]
    assert bounds == sorted(bounds)
    assert bounds[2] - bounds[0] > 0.1


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: Vae(nn.Linear(6, 4), nn.Linear(2, 6), likelihood="poisson"), "likelihood 'poisson'"),
        (lambda: Vae(nn.Linear(6, 4), nn.Linear(2, 6), noise=0.0), "noise = 0.0"),
        (lambda: Vae(nn.Linear(6, 3), nn.Linear(2, 6))(torch.zeros(2, 6)), "gives 3 numbers a sample, expected 2 k"),
        (lambda: objective(-1.0), "beta = -1.0"),
        (lambda: collapse(Vae(nn.Linear(6, 4), nn.Linear(2, 6)), torch.zeros(1, 6)), "got 1 sample"),
        (lambda: importance_bound(Vae(nn.Linear(6, 4), nn.Linear(2, 6)), torch.zeros(2, 6), 0), "samples = 0"),
        (lambda: principal(torch.ones(5, 3)), "all samples are equal"),
        (lambda: principal(torch.full((20, 5), 0.1)), "all samples are equal"),  # whose mean rounds
        (lambda: principal(torch.ones(1, 3)), "got 1 sample"),
        (lambda: principal(torch.eye(3)).error(-1), "k = -1, expected a whole number"),
        (lambda: principal(torch.tensor([[math.nan, 1.0], [0.0, 1.0]])), "1 values that are not finite"),
        (lambda: LinearVae(DECREASING, noise=-1.0), "noise = -1.0"),
        (lambda: LinearVae(DECREASING, noise=math.nan), "noise = nan"),
        (lambda: LinearVae(DECREASING, noise=1.0, beta="2"), "beta = '2'"),
        (lambda: LinearVae(DECREASING, noise=1.0, latents=-1), "latents = -1"),
        (lambda: LinearVae(DECREASING.flip(0), noise=1.0), "that decrease"),
        (lambda: LinearVae(DECREASING * math.nan, noise=1.0), "variances .nan"),
        (lambda: LinearVae([3.0, 1.0], noise=1.0), r"variances \[3.0, 1.0\], expected a tensor"),
        (lambda: linear_course(DECREASING, "0.5", DECREASING), "start = '0.5'"),
        (lambda: linear_course(DECREASING, 0.5, [0.0, 1.0]), r"got times \[0.0, 1.0\]"),
        (lambda: linear_course(DECREASING * math.nan, 0.5, DECREASING), "got variances tensor"),
        (lambda: principal(torch.eye(3).long()), "got x of torch.int64"),
        (lambda: importance_bound(Vae(nn.Linear(6, 4), nn.Linear(2, 6)), torch.zeros(2, 6), seed="0"), "seed = '0'"),
        (lambda: vae(8, depth=-1), "depth = -1"),
        (lambda: vae(-1), "width = -1"),
        (lambda: vae(8, inputs="6"), "inputs = '6'"),
        (lambda: objective(beta=math.nan), "beta = nan"),
        (lambda: objective(free_bits=math.nan), "free_bits = nan"),
        (lambda: objective(warm_up=math.nan), "warm_up = nan"),
        (lambda: Pair("3", nn.Linear(2, 6)), "got '3' of type str for encoder"),
        (lambda: Vae("3", nn.Linear(2, 6)), "got '3' of type str for encoder"),
        (lambda: Vae(nn.Linear(6, 4), nn.Linear(2, 6), noise="3"), "noise = '3'"),
        (lambda: subspace_angle(torch.randn(1, 3), torch.randn(1, 4)), "rows have one length"),
    ],
)
def test_what_is_no_vae_is_refused(made, says):
    with pytest.raises(AutoencoderError, match=says):
        made()


def test_half_precision_has_principal_directions() -> None:
    x = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(principal(x.to(dtype)).variances, principal(x).variances)


def test_inputs_of_another_type_are_named_with_the_cast_that_mends_it() -> None:
    encoder, x = nn.Linear(4, 2), torch.ones(3, 4)
    with pytest.raises(AutoencoderError, match=r"inputs of torch.float64: pass inputs.to\(torch.float32\)"):
        codes(encoder, x.double())
    with pytest.raises(AutoencoderError, match=r"weights are of torch.float64 .*: pass inputs.to\(torch.float64\)"):
        iterate(nn.Linear(4, 4).double(), x)
    with pytest.raises(AutoencoderError, match=r"got a list .*pass a tensor, torch.as_tensor"):
        codes(encoder, x.tolist())
    with pytest.raises(AutoencoderError, match="pass inputs of its size"):
        codes(encoder, x[:, :3])
    with pytest.raises(AutoencoderError, match=r"got batches\(2\) whose x is of type ndarray, .*torch.as_tensor"):
        noisy(lambda step: (x.numpy(), x), gaussian=0.1)(2)

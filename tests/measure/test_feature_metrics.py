"""Estimators of feature learning against slow referees, exact limits, and what is claimed of their bias."""

import itertools
import math

import pytest
import torch
from torch import nn

import lazyrich as lzr
from lazyrich.errors import MetricError
from lazyrich.measure.feature import (
    METRICS,
    FeatureProbe,
    Stream,
    agop,
    alignment,
    cka,
    effective_rank,
    feature_ansatz,
    info_nce,
    iso_score,
    levina_bickel,
    linear_probe,
    mean_correlation,
    mean_cosine,
    noisy_information,
    participation_ratio,
    partition_ratio,
    read,
    read_layer,
    stable_rank,
    target_alignment,
    two_nn,
    uniformity,
)  # fmt: skip
from lazyrich.measure.feature.rank import trace_terms
from lazyrich.measure.feature.rows import centred, rows, shaped, targets
from lazyrich.tangent.alignment import hsic


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_hsic_is_the_u_statistic():
    k, other = (m @ m.T for m in (normal(7, 3), normal(7, 4, seed=1)))
    total = 0.0
    for i, j, q, r in itertools.permutations(range(7), 4):
        total += float(k[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q]))
    assert float(hsic(k, other)) == pytest.approx(total / (7 * 6 * 5 * 4), rel=1e-9)


def test_unbiased_cka_of_independent_features_is_nothing_where_the_plug_in_is_nearly_one():
    pairs = [(normal(64, 2048, seed=2 * s), normal(64, 2048, seed=2 * s + 1)) for s in range(10)]
    honest = torch.tensor([cka(h, g) for h, g in pairs])
    plain = torch.tensor([cka(h, g, unbiased=False) for h, g in pairs])
    assert abs(float(honest.mean())) < 0.02
    assert float(plain.min()) > 0.95


def test_cka_does_not_see_turns_and_scales_but_sees_squeezes():
    h = normal(50, 6)
    turn = torch.linalg.qr(normal(6, 6, seed=3)).Q
    assert cka(h, 2.5 * h @ turn + 1) == pytest.approx(1.0)
    assert cka(h, h @ torch.diag(torch.tensor([1.0, 1, 1, 1, 1, 30]).double())) < 0.7


def test_cka_in_batches_is_that_of_averaged_terms():
    total, terms = Stream("cka"), []
    for s in range(5):
        h, g = normal(20, 8, seed=s), normal(20, 8, seed=s) + normal(20, 8, seed=50 + s)
        total.add(h, g)
        k, other = h @ h.T, g @ g.T
        terms.append([float(hsic(a, b)) for a, b in ((k, other), (k, k), (other, other))])
    both, own, others = torch.tensor(terms).mean(0)
    assert total.reading.value == pytest.approx(float(both / (own * others).sqrt()), rel=1e-6)
    assert "no batch" in str(Stream("cka").reading)


def test_moments_of_the_covariance_are_u_statistics():
    h = normal(6, 3)
    traces, squares = [], []
    for i, j, q, r in itertools.permutations(range(6), 4):
        a, b = h[i] - h[j], h[q] - h[r]
        traces.append(float(a @ a * (b @ b)) / 4)
        squares.append(float(a @ b) ** 2 / 4)
    trace, square = trace_terms(h).tolist()
    assert trace == pytest.approx(sum(traces) / len(traces), rel=1e-9)
    assert square == pytest.approx(sum(squares) / len(squares), rel=1e-9)


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_the_participation_ratio_of_few_samples_is_within_five_per_cent(offset):
    found = torch.tensor([participation_ratio(normal(100, 1000, seed=s) + offset) for s in range(20)])
    assert float(found.mean()) == pytest.approx(1000, rel=0.05)
    plain = torch.tensor([participation_ratio(normal(100, 1000, seed=s), unbiased=False) for s in range(5)])
    assert float(plain.mean()) == pytest.approx(1 / (1 / 99 + 1 / 1000), rel=0.02)


def test_ranks_of_known_spectra():
    u, v = (torch.linalg.qr(m).Q for m in (normal(40, 4) - normal(40, 4).mean(0), normal(4, 4, seed=1)))
    values = torch.tensor([3.0, 2.0, 1.0, 1.0]).double()
    h = u * values @ v
    p = values.square() / values.square().sum()
    assert effective_rank(h) == pytest.approx(float(torch.exp(-(p * p.log()).sum())), rel=1e-9)
    assert stable_rank(h) == pytest.approx(15 / 9)
    assert participation_ratio(h, unbiased=False) == pytest.approx(15**2 / float(values.pow(4).sum()))


def test_spheres():
    h, g = normal(30, 5), normal(30, 5, seed=1)
    z, w = h / h.norm(dim=1, keepdim=True), g / g.norm(dim=1, keepdim=True)
    assert alignment(h, g) == pytest.approx(sum(float((a - b) @ (a - b)) for a, b in zip(z, w, strict=True)) / 30)
    pairs = [float(torch.exp(-2 * (z[i] - z[j]) @ (z[i] - z[j]))) for i in range(30) for j in range(i)]
    assert uniformity(h) == pytest.approx(math.log(sum(pairs) / len(pairs)))
    assert uniformity(h, t=1.0) == pytest.approx(math.log(sum(p**0.5 for p in pairs) / len(pairs)))
    assert uniformity(normal(2000, 500)) == pytest.approx(-4.0, abs=0.05)
    cosines = [float(z[i] @ z[j]) for i in range(30) for j in range(30) if i != j]
    assert mean_cosine(h) == pytest.approx(sum(cosines) / len(cosines))


def test_isotropy_runs_from_a_line_to_a_ball():
    ball, line = normal(5000, 10), normal(5000, 1) @ normal(1, 10, seed=1)
    assert iso_score(ball) > 0.97
    assert iso_score(line + 1e-6 * ball) < 1e-3
    assert partition_ratio(ball) > 0.8
    assert partition_ratio(5 * line) < 0.01
    h = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 0.5]])  # the axes are the eigenvectors, in either direction
    sums = [float((sign * h[:, i]).exp().sum()) for i in (0, 1) for sign in (1, -1)]
    assert partition_ratio(h) == pytest.approx(min(sums) / max(sums))
    with pytest.raises(MetricError, match="more samples than units"):
        iso_score(normal(5, 10))


def test_canonical_correlations_are_those_of_the_regression_and_refuse_where_they_say_nothing():
    h = normal(400, 3)
    g = torch.cat([h[:, :1] + normal(400, 1, seed=2), normal(400, 2, seed=3)], 1)
    both = torch.cat([h, g], 1) - torch.cat([h, g], 1).mean(0)
    c = both.T @ both
    roots = torch.linalg.eigvals(
        torch.linalg.solve(c[:3, :3], c[:3, 3:]) @ torch.linalg.solve(c[3:, 3:], c[3:, :3])
    ).real.sqrt()
    assert mean_correlation(h, g, kept=1 - 1e-12) == pytest.approx(float(roots.mean()), rel=1e-6)
    assert mean_correlation(h, h @ normal(3, 3, seed=5), weighted=True) == pytest.approx(1.0)
    with pytest.raises(MetricError, match="say nothing"):
        mean_correlation(normal(20, 30), normal(20, 30, seed=1))
    wide = normal(400, 2, seed=6) * torch.tensor([10.0, 1.0])
    for unit, low, high in ((0, 0.85, 1.0), (1, 0.0, 0.25)):  # g shares the wide direction alone, the narrow one alone
        one = torch.cat([wide[:, unit : unit + 1], normal(400, 1, seed=7)], 1)
        assert low < mean_correlation(wide, one, kept=1 - 1e-12, weighted=True) < high
        assert mean_correlation(wide, one, kept=1 - 1e-12) == pytest.approx(0.52, abs=0.05)


@pytest.mark.parametrize(("size", "slack"), [(1, 0.1), (2, 0.2), (5, 0.8)])
def test_intrinsic_dimensions_of_curved_surfaces(size, slack):
    flat = torch.rand(1500, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = torch.cat([torch.sin(flat @ normal(size, 10, seed=4)), flat @ normal(size, 10, seed=5)], 1)
    assert two_nn(torch.cat([h, h[:100]])) == pytest.approx(size, abs=slack)
    assert levina_bickel(h) == pytest.approx(size, abs=slack)
    assert levina_bickel(h) != levina_bickel(h, neighbours=20) == pytest.approx(size, abs=1.5 * slack)
    near = torch.cdist(few := normal(40, size, seed=8), few).fill_diagonal_(math.inf).sort(1).values
    logs = (near[:, 1] / near[:, 0]).log().sort().values  # the largest four are cut off, of forty
    assert two_nn(few) == pytest.approx(36 / float(logs[:36].sum() + 4 * logs[35]), rel=1e-6)
    with pytest.raises(MetricError, match="1 different samples"):
        two_nn(torch.ones(50, 3))


def test_gradient_outer_products_are_those_of_autograd():
    net = lzr.zoo.MLP(12, 2, 6, 3).double()
    x = normal(9, 6)
    rows = [torch.autograd.functional.jacobian(lambda v: net(v[None])[0], s) for s in x]
    torch.testing.assert_close(agop(net, x), sum(j.T @ j for j in rows) / 9)
    hidden = torch.tanh(net.hidden[0](x)).detach()
    rows = [torch.autograd.functional.jacobian(lambda v: net.readout(torch.tanh(net.hidden[1](v))), h) for h in hidden]
    expected = sum(j.T @ j for j in rows) / 9
    torch.testing.assert_close(agop(net, x, "hidden.1"), expected)
    w = net.hidden[1].weight.detach()
    gram = w.T @ w
    assert feature_ansatz(net, x, "hidden.1") == pytest.approx(float((gram * expected).sum() / gram.norm() / expected.norm()))
    values, vectors = torch.linalg.eigh(expected)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    found = feature_ansatz(net, x, "hidden.1", start=0 * w, power=0.5)
    assert found == pytest.approx(float((gram * root).sum() / gram.norm() / root.norm()))
    with pytest.raises(MetricError, match="has not moved"):
        feature_ansatz(net, x, "hidden.1", start=w)
    with pytest.raises(MetricError, match="expected an nn.Linear"):
        agop(net, x, "hidden")


def test_the_ansatz_grows_with_training_where_the_target_has_few_directions():
    torch.manual_seed(0)
    x = normal(400, 10)
    y = torch.tanh(2 * x[:, :1])
    net = lzr.zoo.MLP(64, 1, 10, 1).double()
    start = net.hidden[0].weight.detach().clone()
    before = feature_ansatz(net, x, "hidden.0")
    sgd = torch.optim.SGD(net.parameters(), lr=0.2)
    for _ in range(500):
        sgd.zero_grad()
        (net(x) - y).square().mean().backward()
        sgd.step()
    assert feature_ansatz(net, x, "hidden.0", start) > 0.9 > before


def test_information_bounds():
    h = normal(4000, 2)
    noise = 0.5
    exact = math.log(1 + 1 / noise**2)  # two Gaussian coordinates, half a logarithm each
    assert noisy_information(h, noise) == pytest.approx(exact, rel=0.02)
    z = h[:256] + noise * normal(256, 2, seed=1)
    scores = -torch.cdist(z, h[:256]).square() / (2 * noise**2)
    assert 0.5 * exact < info_nce(scores) < exact
    assert info_nce(torch.zeros(16, 16)) == pytest.approx(0.0)
    with pytest.raises(MetricError, match="noise = 0"):
        noisy_information(h, 0.0)


def test_linear_probes_hold_out_what_they_ask():
    y = torch.arange(300) % 3
    assert linear_probe(normal(300, 100), y) < 0.45  # a probe that saw its test samples would read far more
    assert linear_probe(normal(300, 5) + 4 * torch.nn.functional.one_hot(y, 5), y) > 0.95
    h = normal(300, 5)
    assert linear_probe(h, h @ normal(5, 2, seed=1)) > 0.999
    assert linear_probe(h, normal(300, 1, seed=2)) < 0.1
    assert linear_probe(h, h @ normal(5, 2, seed=1), ridge=1.0) == pytest.approx(0.75, abs=0.05)  # shrunk by a half
    with pytest.raises(MetricError, match="6 features and targets and 4 folds, expected two samples a fold"):
        linear_probe(h[:6], y[:6], folds=4)
    assert 0 <= linear_probe(h[:6], y[:6], folds=3) <= 1


OF_FEATURES = [name for name, metric in METRICS.items() if metric.against != "layer"]


def second(name, h, g):
    return {"itself": None, "targets": torch.arange(len(h)) % 3}.get(METRICS[name].against, g)


@pytest.mark.parametrize("name", OF_FEATURES)
def test_every_metric_reads_with_a_null_and_says_what_is_undefined(name):
    h, g = normal(60, 4), normal(60, 4, seed=1)
    found = read(name, h, second(name, h, g))
    assert found.value is not None
    assert found.null is not None
    assert abs(found.value - found.null) < 6 * found.spread + 1e-9  # independent normal units: the null is the truth
    for bad, why in ((torch.ones(60, 4), "same features"), (h * torch.inf, "not finite")):
        undefined = read(name, bad, second(name, h, g))
        assert undefined.value is None
        assert why in str(undefined)
    assert all(getattr(METRICS[name], word) for word in ("estimator", "bias", "cost", "null"))


def test_few_samples_bias_the_information_and_the_stable_rank_as_their_words_say():
    units, exact = 20, 10 * math.log1p(100)
    for samples in (100, 400):
        drawn = [normal(samples, units, seed=s) for s in range(20)]
        low = exact - sum(noisy_information(h, 0.1) for h in drawn) / 20
        assert low == pytest.approx(units * (units + 1) / (4 * samples), rel=0.25)
        assert sum(map(stable_rank, drawn)) / 20 == pytest.approx(units / (1 + math.sqrt(units / samples)) ** 2, rel=0.12)
    assert noisy_information(normal(units, units), 0.1) < 0.9 * exact
    assert METRICS["information bound"].bias.startswith("downwards") and METRICS["stable rank"].bias.startswith("downwards, by")


RELATED = {
    "effective rank": -1, "stable rank": -1, "participation ratio": -1, "isoscore": -1, "intrinsic dimension": -1,
    "intrinsic dimension, ten neighbours": -1, "information bound": -1,
}  # fmt: skip


@pytest.mark.parametrize("name", RELATED)
def test_related_units_differ_from_the_null_of_unrelated_ones(name):
    h = normal(200, 2) @ normal(2, 8, seed=3) + 0.05 * normal(200, 8, seed=4)
    found = read(name, h)
    assert (found.value - found.null) * RELATED[name] > 5 * found.spread


@pytest.mark.parametrize("name", OF_FEATURES)
def test_streams_read_what_one_batch_of_everything_reads(name):
    """Batches of 200 of 1600: unbiased terms to their scatter, a reservoir that holds everything to the digit."""
    h = normal(1600, 6) @ torch.diag(torch.tensor([3.0, 2, 1, 1, 1, 1]).double())
    g = 0.8 * h + normal(1600, 6, seed=1)
    targets = (h[:, 0] > 0).long() if METRICS[name].against == "targets" else None
    other = targets if targets is not None else (None if METRICS[name].against == "itself" else g)
    whole, stream = read(name, h, other, permutations=0).value, Stream(name)
    for i in range(0, 1600, 200):
        stream.add(h[i : i + 200], None if other is None else other[i : i + 200])
    exact = METRICS[name].terms is None
    assert stream.reading.value == pytest.approx(whole, rel=1e-9 if exact else 0.03, abs=0 if exact else 5e-3)
    few = Stream(name, kept=300, seed=1)
    for i in range(0, 1600, 200):
        few.add(h[i : i + 200], None if other is None else other[i : i + 200])
    assert few.reading.value == pytest.approx(whole, rel=0.35, abs=0.02)


def test_a_stream_keeps_every_row_with_the_same_probability():
    hits = torch.zeros(6)
    for seed in range(600):
        (stream := Stream("effective rank", kept=2, seed=seed)).add(torch.arange(6.0)[:, None])
        hits[stream._rows[0].flatten().long()] += 1
    assert (hits / 600).tolist() == pytest.approx([1 / 3] * 6, abs=0.08)  # four standard errors


def test_streams_refuse_what_they_cannot_take():
    with pytest.raises(MetricError, match="give 9 rows"):
        Stream("cka").add(normal(9, 2))
    with pytest.raises(MetricError, match="metrics of a layer alone"):
        Stream("feature ansatz")
    with pytest.raises(MetricError, match="at least four"):
        Stream("cka").add(normal(3, 2), normal(3, 2))
    flat = Stream("cka")
    flat.add(torch.ones(8, 2), torch.ones(8, 2))
    assert flat.reading.value is None


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.against == "layer"])
def test_streams_of_a_layer_read_what_all_samples_read(name):
    net, x = lzr.zoo.MLP(12, 2, 6, 3).double(), normal(90, 6)
    start = torch.zeros_like(net.hidden[1].weight)
    stream = Stream(name, layer=(net, "hidden.1", start))
    for part in x.split(40):
        stream.add(part)
    assert stream.reading.value == pytest.approx(read_layer(name, net, x, "hidden.1", start).value, rel=1e-9)


def test_layers_are_read_with_the_null_of_permuted_units():
    torch.manual_seed(0)
    x = normal(300, 10)
    net = lzr.zoo.MLP(64, 1, 10, 1).double()
    start = net.hidden[0].weight.detach().clone()
    assert read_layer("feature ansatz, centred", net, x, "hidden.0", start).value is None
    sgd = torch.optim.SGD(net.parameters(), lr=0.2)
    for _ in range(200):
        sgd.zero_grad()
        (net(x) - torch.tanh(2 * x[:, :1])).square().mean().backward()
        sgd.step()
    found = read_layer("feature ansatz, centred", net, x, "hidden.0", start)
    assert found.value == pytest.approx(feature_ansatz(net, x, "hidden.0", start))
    assert found.value > 0.85
    assert found.value > found.null + 2 * found.spread
    assert "expected an nn.Linear" in read_layer("feature ansatz", net, x, "hidden").note
    with pytest.raises(MetricError, match="read_layer"):
        read("feature ansatz", x)
    with pytest.raises(MetricError, match="is one of features"):
        read_layer("cka", net, x, "hidden.0")


def test_degenerate_features_are_refused_by_the_estimators_themselves():
    flat, h = torch.ones(9, 3), normal(9, 3)
    for call in (lambda: cka(flat, h), lambda: cka(flat, h, unbiased=False), lambda: participation_ratio(flat)):
        with pytest.raises(MetricError):
            call()


def test_features_are_rows_of_finite_numbers_and_complex_ones_have_two_units():
    assert rows(torch.ones(2, 2)).tolist() == [[1.0, 1.0]] * 2  # the fewest
    assert rows(torch.tensor([[1 + 2j, 3 - 4j], [5j, 6]])).tolist() == [[1.0, 2.0, 3.0, -4.0], [0.0, 5.0, 6.0, 0.0]]
    with pytest.raises(MetricError, match=r"shape \(3, 0\), expected .* at least one of each"):
        shaped(torch.ones(3, 0))
    with pytest.raises(MetricError, match="those of 2 of 4 samples"):
        rows(torch.tensor([[math.nan, 1.0], [1.0, 1.0], [math.inf, math.nan], [0.0, 0.0]]))


def test_targets_are_finite():
    with pytest.raises(MetricError, match="some targets are not finite"):
        targets([0.0, math.nan], 2)
    assert targets([0.0, -1.0], 2).tolist() == [0.0, -1.0]


def test_a_mean_that_rounds_is_no_difference_of_samples():
    same = [torch.full((n, 1), value, dtype=torch.float64) for n in range(2, 14) for value in (0.1, 1e9 + 0.1)]
    assert any(bool((x != x.mean(0)).any()) for x in same), "no mean rounds"
    for x in same:
        with pytest.raises(MetricError, match="all samples have the same features"):
            centred(x)
        x[0] *= 1 + 1e-12
        assert float(centred(x).sum()) == pytest.approx(0.0, abs=1e-14 * float(x.norm()))


ALONE = (effective_rank, stable_rank, participation_ratio, uniformity, mean_cosine, iso_score, partition_ratio, two_nn,
         levina_bickel, lambda h: participation_ratio(h, unbiased=False), lambda h: noisy_information(h, 1.0))  # fmt: skip
PAIRED = (cka, lambda h, g: cka(h, g, unbiased=False), mean_correlation, alignment)


@pytest.mark.parametrize("function", ALONE)
def test_estimators_of_features_flatten_maps_and_refuse_what_is_none(function):
    maps = normal(60, 2, 3, 2)
    assert function(maps) == function(maps.flatten(1)) == function(maps.numpy())
    for bad, why in (
        (maps[:, 0, 0, 0], r"shape \(60,\), expected \(samples, units\)"),
        (maps.flatten(1)[:1], "got 1 samples"),
        (torch.where(maps > 2, math.nan, maps), "some features are not finite: those of"),
        ("text", "of type str"),
    ):
        with pytest.raises(MetricError, match=why):
            function(bad)


@pytest.mark.parametrize("function", PAIRED)
def test_estimators_of_two_sets_want_the_same_samples(function):
    maps, others = normal(200, 2, 3, 2), normal(200, 2, 3, 2, seed=1)
    assert function(maps, others) == function(maps.flatten(1), others.flatten(1).numpy())
    with pytest.raises(MetricError, match="got 200 and 100 samples"):
        function(maps, others[:100])
    with pytest.raises(MetricError, match="some features of the second set are not finite"):
        function(maps, others * math.inf)


def test_what_means_nothing_is_refused_in_words():
    h, flat, y = normal(200, 4), torch.full((200, 4), 0.1), torch.arange(200) % 2
    for call, why in (
        (lambda: mean_correlation(flat, h), "all samples have the same features"),
        (lambda: mean_correlation(h, flat), "all samples have the same features"),
        (lambda: mean_correlation(h, h, kept=1.5), "kept = 1.5, expected a part"),
        (lambda: iso_score(flat), "all samples have the same features"),
        (lambda: levina_bickel(h, 1), "neighbours = 1, expected a whole number of at least 2"),
        (lambda: levina_bickel(h, 0), "neighbours = 0"),
        (lambda: alignment(h, h[:, :2]), "got 4 and 2 units"),
        (lambda: linear_probe(h, torch.ones(200)), "all targets are equal"),
        (lambda: linear_probe(h, 0 * y), "all targets are equal"),
        (lambda: linear_probe(h, 2 * y - 1), "got -1 among the classes.*return_inverse"),
        (lambda: target_alignment(h, 2 * y - 1), "got -1 among the classes.*return_inverse"),
        (lambda: target_alignment(h, y[:100]), r"200 samples and targets of shape \(100,\)"),
        (lambda: read("movement", h, normal(200, 5)), "got 4 and 5 units"),
        (lambda: agop(nn.Linear(3, 2).double(), h), r"does not take the samples: .*inputs \(200, 4\)"),
        (lambda: agop(nn.Sequential(nn.Tanh(), nn.Linear(4, 2)).double(), h * math.nan), "not finite"),
    ):
        with pytest.raises(MetricError, match=why):
            found = call()
            raise MetricError(found.note if found.value is None else str(found))
    labels = (2 * y - 1).unique(return_inverse=True)[1]
    assert target_alignment(h, labels) == target_alignment(h, y) == pytest.approx(target_alignment(h, 2.0 * y - 1))


def test_uniformity_is_exact_for_many_samples():
    """Six samples give fifteen pairs, whose logarithm in single precision is off by 1e-8."""
    assert uniformity(torch.ones(6, 3)) == pytest.approx(0.0, abs=1e-14)


def test_the_room_is_an_attribute_of_the_one_above(monkeypatch):
    monkeypatch.delattr(lzr.measure, "feature")  # as before its first import
    assert lzr.measure.feature.cka is cka and "feature" in dir(lzr.measure)
    with pytest.raises(AttributeError, match="'lazyrich.measure' has no attribute 'featur'; it has feature, "):
        _ = lzr.measure.featur


def test_nulls_tell_dependence_from_chance():
    h = normal(60, 40)
    related, chance = read("cka", h, h + normal(60, 40, seed=1)), read("cka", h, normal(60, 40, seed=2))
    assert related.value > related.null + 5 * related.spread
    assert abs(chance.value - chance.null) < 4 * chance.spread
    with pytest.raises(MetricError, match="compares two sets"):
        read("cka", h)
    with pytest.raises(MetricError, match="60 and 59 samples"):
        read("cka", h, h[1:])
    with pytest.raises(MetricError, match="got metric 'rank'"):
        read("rank", h)
    with pytest.raises(MetricError, match="features with targets"):
        read("linear probe", h)


def test_the_probe_reads_rates_targets_and_layers():
    data, net = lzr.data.load("digits"), lzr.zoo.mlp(16)
    names = ["kernel distance", "kernel velocity", "linear probe", "feature ansatz, centred"]
    probe = FeatureProbe(data.x[:80], ["hidden.1"], names, every=5, targets=data.y[:80])
    lzr.train.train(net, torch.optim.SGD(net.parameters(), lr=0.3), lambda s: data.batch(32, s), nn.functional.cross_entropy, 10,
                    probes=[probe])  # fmt: skip
    at = {(row["step"], row["metric"]): row for row in probe.rows()}
    assert at[0, "kernel velocity"]["value"] is None
    assert "before the first" in at[0, "kernel velocity"]["note"]
    assert at[5, "kernel velocity"]["value"] == pytest.approx(at[5, "kernel distance"]["value"] / 5)
    assert at[0, "feature ansatz, centred"]["value"] is None
    assert at[10, "feature ansatz, centred"]["value"] is not None
    assert 0 < at[10, "linear probe"]["value"] <= 1
    with pytest.raises(MetricError, match="give the second"):
        FeatureProbe(data.x[:80], ["hidden.1"], ["linear probe"])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"every": 0}, "every = 0, expected a whole number of at least 1"),
        ({"permutations": -1}, "permutations = -1"),
        ({"layers": "hidden.1"}, r"layers='hidden.1', expected a list of them: \['hidden.1'\]"),
        ({"metrics": "cka"}, r"metrics='cka', expected a list of them: \['cka'\]"),
        ({"metrics": ["rank"]}, "got metric 'rank', expected one of 'cka', 'cka, biased'"),
    ],
)
def test_the_probe_refuses_at_once_what_would_fail_in_training(given, says):
    with pytest.raises(MetricError, match=says):
        FeatureProbe(**({"x": normal(9, 3), "layers": ["hidden.1"], "metrics": ["cka"]} | given))


def test_the_probe_takes_words_as_samples():
    words, y = torch.arange(30) % 7, torch.arange(30) % 3
    net = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3))
    probe = FeatureProbe(words, ["0"], ["target alignment"], targets=y)
    lzr.train.train(
        net, torch.optim.SGD(net.parameters(), 0.1), lambda s: (words, y), nn.functional.cross_entropy, 1, probes=[probe]
    )
    assert [row["value"] is not None for row in probe.rows()] == [True]
    with pytest.raises(MetricError, match="30 samples and targets of shape"):
        FeatureProbe(words, ["0"], ["target alignment"], targets=y[:9])


def test_the_probe_watches_single_runs_and_ensembles_alike():
    data, rows = lzr.data.load("digits"), {}
    for engine in ("loop", "vmap"):
        plan = lzr.plan(lzr.Family(lzr.zoo.mlp, base=16), lzr.mup(), "sgd")
        nets = [plan.build(16, seed) for seed in range(2)]
        probes = [FeatureProbe(data.x[:80], ["hidden.1"], ["cka", "participation ratio"], every=4) for _ in nets]
        members = [lzr.train.Member(net, plan.optimizer(net, lr=0.1), lambda s: data.batch(32, s), [p])
                   for net, p in zip(nets, probes, strict=True)]  # fmt: skip
        lzr.train.train_all(members, nn.functional.cross_entropy, 8, engine=engine)
        rows[engine] = [row["value"] for probe in probes for row in probe.rows()]
    assert len(rows["loop"]) == 2 * 3 * 2
    assert rows["loop"] == pytest.approx(rows["vmap"], rel=1e-3)
    assert rows["loop"][0] == pytest.approx(1.0)
    assert rows["loop"][4] < 1.0

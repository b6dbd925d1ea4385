"""Densities along the flow, against closed forms."""

import math

import pytest
import torch
from torch import nn

from scorefield import (
    EDM,
    VE,
    VP,
    Gaussian,
    GaussianMixture,
    LogProb,
    PlantedField,
    PreconditionedField,
    SubVP,
    log_prob,
)
from scorefield.calculus.derivatives import value_and_products
from scorefield.fields.planted import PredictedNoise, Turned, right_angle
from scorefield.likelihood.compute import EXACT_UP_TO
from scorefield.likelihood.density import CENTERED_BYTES, UNIT_BYTES, DataTransform
from scorefield.noise import Noise
from scorefield.samplers.flow import StalledError
from tests.planted import Affine

SDES = [EDM(0.02, 50.0), VE(prior_mean=0.3), VP(t_min=1e-3), SubVP(t_min=1e-2)]
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def points(shape, n=6, scale=1.0):
    z = Noise(3).normal("points", shape, torch.arange(n), dtype=torch.float64)
    return 0.5 + scale * z


def carried_prior(x, sde, mean, variance, stretch=1.0):
    """The law that the flow of independent normals, stretched, carries the prior to, at x.

    Each coordinate's deviation from the mean goes as the standard deviation to the power
    ``stretch``.
    """
    low, high = (variance + level**2 for level in sde.level_range)
    shrink = (low / high) ** (stretch / 2)
    alpha = float(sde.alpha(torch.tensor(sde.t_max, dtype=torch.float64)))
    prior = torch.as_tensor(sde.prior_mean, dtype=torch.float64) / alpha
    law = torch.distributions.Normal(mean + (prior - mean) * shrink, sde.prior_std / alpha * shrink)
    return law.log_prob(x).reshape(len(x), -1).sum(dim=1)


def correlated(dim, sde=None, seed=0):
    """A normal law none of whose directions is a coordinate."""
    z = Noise(seed).normal("factor", (dim, dim), torch.tensor([0]), dtype=torch.float64)[0]
    covariance = z @ z.T / dim + 0.05 * torch.eye(dim, dtype=torch.float64)
    return Gaussian(torch.full((dim,), 0.2), covariance=covariance, sde=sde or EDM(0.02, 50.0))


@pytest.mark.parametrize("sde", SDES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 2)])
def test_of_a_gaussian_it_is_the_closed_form(sde, shape):
    mean = 0.3 * torch.ones(shape, dtype=torch.float64)
    std = 0.5 + 0.1 * torch.arange(mean.numel(), dtype=torch.float64).reshape(shape)
    x, field = points(shape), Gaussian(mean, std, sde=sde)
    exact = carried_prior(x, sde, mean, std**2)
    for tol in (1e-5, 1e-7, 1e-9):
        found = log_prob(field, x, rtol=tol, atol=tol)
        error = (found.value - exact).abs()
        assert bool((error <= found.solver_error + 1e-12).all())
    assert float(error.max()) < 1e-6
    assert float(found.solver_error.max()) < 1e-4
    assert float(found.standard_error.max()) == 0
    alpha = sde.alpha(torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64))
    latent = field.flow(alpha[0] * x, sde.t_min, sde.t_max)
    scale = float(latent.abs().max())
    torch.testing.assert_close(found.latent, latent, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("probes", ["rademacher", "gaussian", "variance_reduced"])
@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 2)])
def test_probes_know_every_event_shape(probes, shape):
    # Signs have no variance for independent coordinates, normals do.
    field = Gaussian(torch.zeros(shape), 0.7, sde=EDM(0.02, 50.0))
    x = points(shape)
    exact = log_prob(field, x, **TIGHT)
    found = log_prob(field, x, trace="probes", probes=probes, n_probes=64, **TIGHT)
    assert found.n_probes.tolist() == [64] * 6
    spread = 6 * found.standard_error + 1e-6
    assert bool(((found.value - exact.value).abs() < spread).all())
    if probes == "rademacher":
        torch.testing.assert_close(found.value, exact.value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sde", SDES, ids=lambda s: type(s).__name__)
def test_of_a_wrong_field_it_is_the_density_of_its_own_flow(sde):
    truth = Gaussian(torch.zeros(2), 0.7, sde=sde)
    x = points((2,), scale=0.1)
    found = log_prob(PlantedField(truth, PredictedNoise(), 0.1), x, **TIGHT)
    if sde.prior_mean == 0:
        exact = carried_prior(x, sde, torch.zeros(2), 0.49, stretch=1.1)
        assert float((found.value - exact).abs().max()) < 1e-6
    assert bool(found.value.isfinite().all())


def test_of_a_mixture_it_is_the_closed_form():
    # The prior neglects the spread of the data, as a share of its own of (spread / sigma_max)².
    truth = GaussianMixture.ring(sde=EDM(0.05, 1e5))
    x = truth.sample(32, 0, torch.float64, 0.05)
    found = log_prob(truth, x, **TIGHT)
    assert float((found.value - truth.log_density(x, 0.05)).abs().max()) < 1e-6
    wide = log_prob(truth, x, t_min=0.5, **TIGHT)
    assert float((wide.value - truth.log_density(x, 0.5)).abs().max()) < 1e-6


def test_curl_that_moves_no_mass_changes_no_density():
    truth = GaussianMixture([[-1.0, 0.5, 0.5], [1.0, -0.5, -0.5]], [0.5, 0.8], sde=EDM(0.05, 500.0))
    x = truth.sample(16, 0, torch.float64, truth.sde.t_min)
    exact = truth.log_density(x, truth.sde.t_min)
    turned = PlantedField(truth, Turned(PredictedNoise(), right_angle(3)), 0.5)
    for field in (truth, turned):
        found = log_prob(field, x, rtol=1e-7, atol=1e-7)
        # The prior neglects the spread of the data, some (1.3 / 500)² of its own.
        assert bool(((found.value - exact).abs() < found.solver_error + 1e-4).all())
    assert float((turned.score(x, 1.0) - truth.score(x, 1.0)).norm(dim=1).mean()) > 0.1


@pytest.mark.parametrize("sde", [EDM(0.02, 50.0), VP(t_min=1e-3)], ids=lambda s: type(s).__name__)
def test_the_solver_error_is_honest(sde):
    truth = GaussianMixture.ring(sde=sde)
    x = truth.sample(100, 5, torch.float64)
    exact = log_prob(truth, x, rtol=1e-11, atol=1e-11).value
    for tol, share in ((1e-3, 0.9), (1e-5, 0.97), (1e-7, 1.0)):
        found = log_prob(truth, x, rtol=tol, atol=tol, solver_error="embedded")
        error = (found.value - exact).abs()
        assert float((error <= found.solver_error).double().mean()) >= share
        # And not far above: the error of order 4 stands for one of order 5.
        assert float((found.solver_error / error).median()) < 1000
    for tol, share in ((1e-3, 0.9), (1e-5, 0.97)):
        two = log_prob(truth, x, rtol=tol, atol=tol)
        covered = (two.value - exact).abs() <= two.solver_error
        assert float(covered.double().mean()) >= share
    once = log_prob(truth, x, rtol=1e-5, atol=1e-5, solver_error="embedded").calls
    assert 1.3 < float((two.calls / once).mean()) < 1.8


@pytest.mark.parametrize("sde", [EDM(0.05, 50.0), VP(t_min=1e-3)], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("mean", [30.0, 1e3, 1e4])
def test_an_error_of_the_state_is_one_of_the_density(sde, mean):
    """Far from the origin points have rounded digits, and the divergence of a Gaussian's flow does
    not depend on them: the error of the density is the score times that of the point. It is the
    prior's score as well, which is not the field's where the prior is not where the data are.
    """
    truth = Gaussian(torch.full((2,), mean), 0.5, sde=sde)
    x = truth.sample(50, 5, torch.float64, sde.t_min)
    exact = log_prob(truth, x, rtol=1e-11, atol=1e-11).value
    for tol in (1e-3, 1e-5):
        found = log_prob(truth, x, rtol=tol, atol=tol, solver_error="embedded")
        error = (found.value - exact).abs()
        assert float((error <= found.solver_error).double().mean()) >= 0.95
        assert float((found.solver_error / error).median()) < 1000


def test_a_row_does_not_know_its_neighbours():
    truth = GaussianMixture.ring(sde=VP(t_min=1e-3))
    x = torch.cat((truth.sample(3, 0, torch.float64), points((2,), n=1, scale=50.0)))
    index = torch.arange(4)
    for settings in (
        {},
        {"trace": "probes", "probes": "gaussian", "standard_error": 0.5, "max_probes": 16},
        {"trace": "probes", "probes": "variance_reduced"},
    ):
        settings = {"rtol": 1e-3, "atol": 1e-3, **settings}
        whole = log_prob(truth, x, **settings)
        for size in (1, 3):
            parts = [
                log_prob(truth, rows, index=names, **settings)
                for rows, names in zip(x.split(size), index.split(size), strict=True)
            ]
            for name in ("value", "standard_error", "solver_error", "latent"):
                found = torch.cat([getattr(part, name) for part in parts])
                torch.testing.assert_close(found, getattr(whole, name), rtol=1e-10, atol=1e-10)
            for name in ("n_probes", "calls", "reached"):
                found = torch.cat([getattr(part, name) for part in parts])
                assert torch.equal(found, getattr(whole, name))
        batched = log_prob(truth, x, batch_size=3, **settings)
        torch.testing.assert_close(batched.value, whole.value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("probes", ["rademacher", "gaussian", "variance_reduced"])
def test_estimates_are_unbiased_and_so_are_their_errors(probes):
    truth = correlated(12)
    x = truth.sample(1, 0, torch.float64).expand(400, 12)
    exact = float(log_prob(truth, x[:1], **TIGHT).value)
    found = log_prob(truth, x, trace="probes", probes=probes, n_probes=4, rtol=1e-7, atol=1e-7)
    error = found.value - exact
    spread = float(error.std())
    assert abs(float(error.mean())) < 5 * spread / 20 + 1e-5
    told = float(found.standard_error.square().mean().sqrt())
    assert told == pytest.approx(spread, rel=0.2)


def test_directions_that_are_exact_take_variance_away():
    # Data near a plane that lies askew: four directions matter.
    axes = torch.linalg.qr(correlated(24).covariance).Q[:, :4]
    covariance = torch.eye(24, dtype=torch.float64) - 0.99 * axes @ axes.T
    truth = Gaussian(torch.zeros(24), covariance=covariance, sde=EDM(0.02, 50.0))
    x = truth.sample(16, 0, torch.float64)
    error = {
        kind: float(
            log_prob(truth, x, trace="probes", probes=kind, n_probes=n).standard_error.mean()
        )
        for kind, n in (("gaussian", 16), ("rademacher", 16), ("variance_reduced", 8))
    }
    # Twice eight products against sixteen.
    assert error["variance_reduced"] < 1e-3 * error["rademacher"]
    assert error["rademacher"] < error["gaussian"]


def coverage(repeats, probes, n_probes, **settings):
    truth = correlated(12)
    x = truth.sample(repeats, 0, torch.float64)
    exact = log_prob(truth, x, **TIGHT).value
    settings = {"rtol": 1e-7, "atol": 1e-7, **settings}
    found = log_prob(truth, x, trace="probes", probes=probes, n_probes=n_probes, **settings)
    low, high = found.interval(0.95)
    return float(((low <= exact) & (exact <= high)).double().mean())


@pytest.mark.parametrize("probes", ["rademacher", "variance_reduced"])
def test_intervals_cover(probes):
    # 0.93 to 0.97, widened to what chance does to 200 repeats once in a million.
    assert coverage(200, probes, 8) > 0.86


@pytest.mark.slow
@pytest.mark.parametrize("probes", ["rademacher", "gaussian", "variance_reduced"])
@pytest.mark.parametrize("n_probes", [8, 32])
def test_intervals_cover_as_often_as_they_say(probes, n_probes):
    assert 0.93 <= coverage(1000, probes, n_probes) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.3, 0.5, 0.7])
def test_intervals_cover_where_probes_came_until_the_error_was_reached(target):
    settings = {"standard_error": target, "rtol": 1e-5, "atol": 1e-5}
    assert 0.93 <= coverage(1000, "rademacher", 2, **settings) <= 0.97


def test_more_probes_come_until_the_error_is_reached_or_there_are_enough():
    truth = correlated(12)
    x = truth.sample(16, 0, torch.float64)
    settings = {"trace": "probes", "n_probes": 4}
    plain = log_prob(truth, x, **settings)
    target = float(plain.standard_error.median()) / 2
    found = log_prob(truth, x, standard_error=target, **settings)
    assert bool(found.reached.all())
    assert bool((found.standard_error <= target).all())
    assert bool((found.calls >= plain.calls).all())
    # However small the standard error of four looks, it takes sixteen to judge it.
    sixteen = log_prob(truth, x, trace="probes", n_probes=16)
    fine = sixteen.standard_error <= target
    assert bool(fine.any())
    assert torch.equal(found.n_probes == 16, fine)
    torch.testing.assert_close(found.value[fine], sixteen.value[fine], rtol=1e-10, atol=1e-10)
    # The first probes are the same: sixteen and then sixteen more are thirty-two.
    more = log_prob(truth, x, trace="probes", n_probes=32)
    twice = found.n_probes == 32
    assert bool(twice.any())
    torch.testing.assert_close(found.value[twice], more.value[twice], rtol=0, atol=1e-3)
    short = log_prob(truth, x, standard_error=1e-4, max_probes=6, **settings)
    assert not bool(short.reached.any())
    assert short.n_probes.tolist() == [6] * 16


def test_probes_have_addresses():
    truth = correlated(8)
    x = truth.sample(4, 0, torch.float64)
    settings = {"trace": "probes", "n_probes": 2}
    found = log_prob(truth, x, **settings)
    assert torch.equal(found.value, log_prob(truth, x, seed=Noise(0), **settings).value)
    assert not torch.equal(found.value, log_prob(truth, x, seed=1, **settings).value)
    named = log_prob(truth, x[2:], index=torch.tensor([2, 3]), **settings)
    torch.testing.assert_close(named.value, found.value[2:], rtol=1e-10, atol=1e-10)
    one = log_prob(truth, x, trace="probes", n_probes=1)
    assert bool(one.standard_error.isinf().all())
    assert one.interval()[0].tolist() == [-math.inf] * 4


def test_small_spaces_are_exact_and_large_ones_are_not():
    for dim, exact in ((EXACT_UP_TO, True), (EXACT_UP_TO + 1, False)):
        field = Gaussian(torch.zeros(dim), 0.8, sde=EDM(0.02, 50.0))
        found = log_prob(field, points((dim,), n=2), rtol=1e-3, atol=1e-3)
        assert (found.n_probes == 0).all() == exact


def test_a_call_is_one_evaluation():
    rows, truth = [], correlated(5)

    class Watched(Gaussian):
        def predict(self, x, t, quantity, classes=None):
            rows.append(len(x))
            return super().predict(x, t, quantity)

    field = Watched(truth.mean, covariance=truth.covariance, sde=truth.sde)
    x = truth.sample(3, 0, torch.float64)
    one = log_prob(field, x, trace="probes", n_probes=1)
    assert sum(rows) == int(one.calls.sum())
    rows.clear()
    # Few points are repeated to save passes, which is no call more.
    full = log_prob(field, x)
    assert len(rows) <= int(full.calls.max()) + 2
    assert int(full.calls.max()) < 2 * int(one.calls.min())


def test_products_come_with_their_value_however_they_are_batched(monkeypatch):
    matrix = torch.arange(9.0, dtype=torch.float64).reshape(3, 3)
    x, t = points((3,)), torch.zeros(6, dtype=torch.float64)
    v = Noise(0).normal("v", (6, 3), torch.arange(5), dtype=torch.float64)
    for rows in (1, 8, 13, 10_000):
        monkeypatch.setattr("scorefield.calculus.derivatives._ROWS", rows)
        value, products = value_and_products(lambda x, t: (x @ matrix.T).sin(), x, t, v)
        angle = x @ matrix.T
        torch.testing.assert_close(value, angle.sin())
        torch.testing.assert_close(products, (v * angle.cos()) @ matrix)
    value, products = value_and_products(lambda x, t: torch.ones_like(x), x, t, v)
    assert torch.equal(products, torch.zeros_like(v))


def test_a_network_keeps_its_mode_and_gets_no_gradients():
    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.dropout = nn.Linear(2, 2), nn.Dropout(0.5)

        def forward(self, x, label):
            return self.dropout(torch.tanh(self.inner(x)))

        event_shape = (2,)

    field = PreconditionedField(Backbone(), EDM(), 1.0)
    first, second = (log_prob(field, torch.ones(3, 2), rtol=1e-3) for _ in range(2))
    assert torch.equal(first.value, second.value)
    assert first.value.dtype == first.solver_error.dtype == torch.float32
    assert not first.value.requires_grad
    assert field.training
    assert all(p.grad is None for p in field.parameters())


def test_points_keep_their_classes():
    class Backbone(nn.Module):
        event_shape, classes = (2,), 2

        def forward(self, x, label, classes):
            return x * (0.2 + 0.5 * classes).unsqueeze(1).to(x)

    field = PreconditionedField(Backbone(), EDM(), 1.0)
    x, classes = points((2,), n=8), torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
    mixed = log_prob(field, x, batch_size=5, classes=classes)
    for k in (0, 1):
        alone = log_prob(field, x, classes=k)
        torch.testing.assert_close(mixed.value[classes == k], alone.value[classes == k])


def told(value=(1.0, 2.0, 4.0), standard_error=0.1, solver_error=0.2, n=5):
    value = torch.tensor(value, dtype=torch.float64)
    count = torch.full((len(value),), n)
    return LogProb(
        value,
        torch.full_like(value, standard_error),
        torch.full_like(value, solver_error),
        count,
        count,
        torch.zeros(len(value), 3, 4, 4),
        count > 0,
    )


def test_intervals_are_students_and_hold_the_solver_error():
    low, high = told().interval(0.95)
    half = 2.7764451 * 0.1 + 0.2  # four degrees of freedom
    torch.testing.assert_close(high - low, torch.full((3,), 2 * half, dtype=torch.float64))
    low, high = told(standard_error=0.0, n=0).interval(0.95)
    torch.testing.assert_close(high - low, torch.full((3,), 0.4, dtype=torch.float64))
    with pytest.raises(ValueError, match="confidence"):
        told().interval(1.0)


def test_the_mean_has_the_error_of_the_points():
    found = told().mean()
    assert found.value == pytest.approx(7 / 3)
    assert found.standard_error == pytest.approx(math.sqrt((7 / 3) / 3))
    assert (found.n, found.unit, found.numerical_error) == (3, "nats", pytest.approx(0.2))


def test_bits_name_their_offset():
    assert CENTERED_BYTES.offset == 7
    assert UNIT_BYTES.offset == 8
    digits = DataTransform(17 / 8, -17 / 16, levels=17)
    assert digits.offset == pytest.approx(3)
    assert digits.cell == pytest.approx(1 / 8)
    bits = told().bits_per_dim(CENTERED_BYTES)
    torch.testing.assert_close(bits.value, 7 - told().value / (48 * math.log(2)))
    torch.testing.assert_close(bits.solver_error, told().solver_error / (48 * math.log(2)))
    assert bits.transform is CENTERED_BYTES
    assert bits.mean().unit == "bits/dim"
    assert "256 levels in [-1, 1], dequantization uniform, offset 7" in str(bits.transform)


def test_bits_are_those_of_the_integers():
    # Two levels with probabilities 1/4 and 3/4, uniform within their cells of length 2: the
    # expected code length is the entropy.
    p = torch.tensor([0.25, 0.75], dtype=torch.float64)
    density = LogProb(
        (p / 2).log(), *(torch.zeros(2, dtype=torch.float64),) * 2, *(torch.zeros(2).long(),) * 2,
        torch.zeros(2, 1), torch.ones(2, dtype=torch.bool),
    )  # fmt: skip
    bits = density.bits_per_dim(DataTransform(4.0, -2.0, levels=2)).value
    torch.testing.assert_close(bits, -p.log2())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scale": 0.0, "shift": 0.0}, "scale must be positive"),
        ({"scale": 1.0, "shift": math.inf}, "shift must be finite"),
        ({"scale": 1.0, "shift": 0.0, "levels": 1}, "levels must be an integer of at least 2"),
        ({"scale": 1.0, "shift": 0.0, "dequantization": "some"}, "uniform or none"),
    ],
)
def test_wrong_transforms_are_named(unchecked, settings, words):
    with pytest.raises(ValueError, match=words):
        DataTransform(**settings)


@pytest.mark.parametrize(
    ("x", "settings", "words"),
    [
        (torch.zeros(2, 3), {}, r"x must have the event shape \(2,\)"),
        (torch.zeros(2, 2, dtype=torch.int64), {}, "got torch.int64"),
        (torch.zeros(0, 2), {}, "at least one point"),
        (torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), {}, r"the first is nan at index \(1, 0\)"),
        (torch.zeros(2, 2), {"probes": "sobol"}, "probes is one of rademacher, gaussian"),
        (torch.zeros(2, 2), {"trace": "some"}, "trace is one of exact, probes"),
        (torch.zeros(2, 2), {"solver_error": "none"}, "solver_error is one of embedded"),
        (torch.zeros(2, 2), {"n_probes": 0}, "n_probes must be a positive integer"),
        (
            torch.zeros(2, 2),
            {"trace": "probes", "n_probes": 1, "standard_error": 0.1},
            "n_probes must be at least 2",
        ),
        (torch.zeros(2, 2), {"standard_error": 0.0}, "standard_error must be positive"),
        (torch.zeros(2, 2), {"rtol": 0.0}, "rtol must be at least"),
        (torch.zeros(2, 2), {"t_min": 90.0}, "t_min must lie in"),
        (torch.zeros(2, 2), {"index": torch.arange(3)}, "index names 3 points"),
    ],
)
def test_log_prob_names_the_argument_that_it_refuses(unchecked, x, settings, words):
    with pytest.raises(ValueError, match=words):
        log_prob(GaussianMixture.ring(), x, **settings)


def test_a_flow_that_diverges_is_an_error():
    away = Affine(-1e6 * torch.eye(2, dtype=torch.float64))
    with pytest.raises(StalledError, match=r"2 of 2 samples .* noise level"):
        log_prob(away, torch.ones(2, 2, dtype=torch.float64), max_calls=300)

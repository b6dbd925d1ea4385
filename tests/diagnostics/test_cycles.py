import math

import pytest
import torch
from scipy import stats

from scorefield import (
    EDM,
    MLP,
    Empirical,
    Gaussian,
    GaussianMixture,
    PotentialField,
    Protocol,
    cycle_circulation,
)
from scorefield.calculus.circulation import nearest_neighbours
from scorefield.networks.features import Features
from tests.planted import Planted, skew

SIGMAS = (0.02, 0.1, 0.5, 2.0, 10.0)
RULES = ["left", "midpoint", "trapezoid", "simpson", "gauss-2", "gauss-4"]
RING = GaussianMixture.ring()


def normal(dim):
    return Gaussian(torch.zeros(dim), 1.3)


def mixture(dim):
    if dim == 2:
        return RING
    means = 2 * torch.randn(4, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return GaussianMixture(means, stds=torch.tensor([0.3, 0.5, 0.8, 1.0]))


@pytest.mark.parametrize("dim", [2, 5, 64])
def test_no_gradient_circulates_beyond_its_interval(dim):
    """However long the edges, at any noise level, on Gaussians, mixtures, data and networks."""
    law = mixture(dim)
    data = Empirical(law.sample(100, 0))
    network = PotentialField(MLP(dim, hidden=16, depth=2), EDM(), sigma_data=2.0, head="inner")
    for field, points in ((normal(dim),) * 2, (law, law), (data, data), (network.double(), law)):
        protocol = Protocol(SIGMAS, n=128)
        for sigma, e in cycle_circulation(field, points, protocol, (3, 4), cloud=32, cycles=16):
            low, high = e.interval()
            assert low <= 0 <= high, (type(field).__name__, sigma)


@pytest.mark.parametrize("rule", RULES)
def test_affine_gradients_give_zero_by_every_rule_but_the_published_one(rule):
    base = Gaussian(torch.zeros(3), covariance=torch.diag(torch.tensor([2.0, 1.0, 0.3])))
    for _, e in cycle_circulation(base, base, Protocol(SIGMAS, n=128), (3, 5), rule=rule):
        if rule == "left":
            assert e.value > 1e-3
        else:
            assert e.value < 1e-12
            assert e.numerical_error < 1e-11


@pytest.mark.parametrize("rule", ["midpoint", "gauss-4"])
def test_a_rotation_in_the_plane_is_exact(rule):
    """In two dimensions every cycle sees |J - J^T|_F = 2 eps |R|_F itself."""
    base = normal(2)
    protocol = Protocol(SIGMAS, n=128)
    profile = cycle_circulation(
        Planted(base, skew(2), 0.3), base, protocol, (3, 4), rule=rule, quantity="score"
    )
    for _, e in profile:
        assert e.value == pytest.approx(0.6 * math.sqrt(2), rel=1e-9)
        assert e.n == 128 // 32


@pytest.mark.slow
def test_a_spread_rotation_lies_in_its_own_interval():
    """In 93 to 97% of 300 repeats: the cycles of an isotropic cloud have no preferred plane."""
    base, dim = Gaussian(torch.zeros(6), 1.0), 6
    field = Planted(base, skew(dim), 0.2, mu=0.3)
    expected, inside = 0.4 * float(skew(dim).norm()), 0
    for seed in range(300):
        profile = cycle_circulation(
            field,
            base,
            Protocol((0.5,), n=320, seed=seed),
            lengths=(3, 4),
            cloud=20,
            cycles=8,
            rule="midpoint",
            quantity="score",
        )
        low, high = profile.estimates[0].interval()
        inside += low <= expected <= high
    assert stats.binom.ppf(1e-6, 300, 0.93) <= inside <= stats.binom.isf(1e-6, 300, 0.97)


@pytest.mark.parametrize("rule", RULES)
def test_the_numerical_error_bounds_what_the_rule_gets_wrong(rule):
    field, protocol = Planted(RING, skew(2), 0.3), Protocol((2.0, 10.0), n=128)
    coarse = cycle_circulation(field, RING, protocol, rule=rule)
    exact = cycle_circulation(field, RING, protocol, rule="gauss-16")
    for (_, a), (_, b) in zip(coarse, exact, strict=True):
        assert abs(a.value - b.value) <= 1.02 * a.numerical_error


def test_clouds_are_the_draws_and_disjoint():
    """The remainder plays no part, and a point of one cloud none in another."""
    field = Planted(RING, skew(2), 0.3)
    whole = cycle_circulation(field, RING, Protocol((0.5,), n=200)).estimates[0]
    part = cycle_circulation(field, RING, Protocol((0.5,), n=192)).estimates[0]
    assert (whole.value, whole.n, whole.settings["clouds"]) == (part.value, 6, 6)
    assert whole.settings["cycles"] == part.settings["cycles"] <= 6 * 128


def test_neighbours_are_found_in_the_named_features():
    """Seen through one coordinate alone, neighbours lie far apart in the other."""
    first = Features("first coordinate", lambda x: x[:, :1])
    seen = []

    class Watched(Gaussian):
        def predict(self, x, t, quantity, classes=None):
            seen.append(x)
            return super().predict(x, t, quantity)

    base, protocol = Watched(torch.zeros(2), 1.0), Protocol((0.5,), n=128)
    profile = cycle_circulation(
        base, base, protocol, (3,), features=first, rule="trapezoid", neighbours=2, cloud=64
    )
    assert profile.settings["features"] == "first coordinate"
    (points,) = protocol.points(base, base)
    halves = points.noisy.split(64)
    graph = torch.cat([nearest_neighbours(h[:, :1], 2) + 64 * i for i, h in enumerate(halves)])
    corners = seen[0].reshape(-1, 3, 2, 2)[:, :, 0]  # the trapezoid's node at 0, then the middle
    index = (corners.unsqueeze(2) - points.noisy).norm(dim=3).argmin(dim=2)
    assert torch.equal(points.noisy[index], corners)
    following = index.roll(-1, dims=1).unsqueeze(2)
    assert bool((graph[index] == following).any(dim=2).all())


def test_the_fewest_cycles_and_neighbours():
    """One cycle in each of two clouds has an error bar; the nearest neighbours alone, each nearer
    than the one before, close no cycle.
    """
    base, protocol = normal(2), Protocol((0.5,), n=64)
    (found,) = cycle_circulation(base, base, protocol, (3,), cycles=1).estimates
    assert (found.n, found.settings["cycles"]) == (2, 2)
    with pytest.raises(ValueError, match=r"0 of 2 clouds of 32 points"):
        cycle_circulation(base, base, protocol, (3,), neighbours=1)


def test_edges_are_no_longer_than_reach():
    """A longest edge of one sigma leaves some cycles at high noise, and none at low."""
    base = normal(2)
    unlimited = cycle_circulation(base, base, Protocol((2.0,), n=128)).estimates[0]
    short = cycle_circulation(base, base, Protocol((2.0,), n=128), reach=0.3).estimates[0]
    assert 0 < short.settings["cycles"] < unlimited.settings["cycles"]
    with pytest.raises(
        ValueError,
        match=r"noise level 0\.02: 0 of 4 clouds of 32 points.*length 3 with edges below 1 sigma",
    ):
        cycle_circulation(base, base, Protocol((0.02,), n=128), reach=1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lengths": ()}, "lengths"),
        ({"lengths": (2,)}, "lengths"),
        ({"neighbours": 0}, "neighbours"),
        ({"neighbours": 64}, "neighbours"),
        ({"cycles": 0}, "cycles"),
        ({"reach": 0.0}, "reach"),
        ({"cloud": 65}, "128 points make 1 cloud of 65"),
        ({"cloud": 0}, "cloud"),
        ({"rule": "romberg"}, "quadrature"),
    ],
)
def test_cycles_name_the_setting_that_they_refuse(settings, message):
    with pytest.raises(ValueError, match=message):
        cycle_circulation(RING, RING, Protocol((0.5,), n=128), **settings)


def test_nothing_circulates_in_one_dimension():
    law = Gaussian(0.0, 1.0)
    with pytest.raises(ValueError, match="two dimensions"):
        cycle_circulation(law, law, Protocol((0.5,), n=128))


def test_few_cycles_of_a_small_cloud_are_found():
    """In many dimensions few points are the neighbours of many, and few walks close: of 32 walks in
    each of two clouds, five of these eight seeds found too few cycles for an error bar.
    """
    law = normal(1024)
    field = law.under(EDM())
    for seed in range(8):
        protocol = Protocol([5.0], n=128, seed=seed)
        profile = cycle_circulation(field, law, protocol, cloud=64, cycles=4, rule="midpoint")
        (found,) = profile.estimates
        assert found.settings["clouds"] == 2

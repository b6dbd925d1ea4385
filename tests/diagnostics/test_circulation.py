import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from scorefield import (
    EDM,
    MLP,
    VP,
    Empirical,
    Gaussian,
    GaussianMixture,
    PotentialField,
    Protocol,
    circulation_growth,
    exterior_derivative,
    loop_circulation,
)
from scorefield.diagnostics.circulation import SquaredCurls
from tests.planted import Function, Planted, skew

SIGMAS = (0.02, 0.1, 0.5, 2.0, 10.0)
RULES = ["left", "midpoint", "trapezoid", "simpson", "gauss-2", "gauss-4"]


def mixture(dim):
    if dim == 2:
        return GaussianMixture.ring()
    means = 2 * torch.randn(4, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return GaussianMixture(means, stds=torch.tensor([0.3, 0.5, 0.8, 1.0]))


def conservative(dim):
    """Fields without curl, and where their points come from."""
    law = mixture(dim)
    data = Empirical(law.sample(100, 0))
    network = PotentialField(MLP(dim, hidden=16, depth=2), EDM(), sigma_data=2.0, head="inner")
    normal = Gaussian(torch.zeros(dim), 1.3)
    return [(normal, normal), (law, law), (data, data), (network.double(), law)]


def wave(dim, k):
    """A shear wave: the score k^-1 sin(k . x) m with m at a right angle to k."""

    def score(x, t):
        value = torch.zeros_like(x)
        value[:, 1] = torch.sin(k * x[:, 0]) / k
        return value

    return Function(score, (dim,))


@pytest.mark.parametrize("dim", [2, 64])
@pytest.mark.parametrize("rule", ["simpson", "gauss-4"])
@pytest.mark.parametrize("head", ["sum", "inner", "denoising"])
def test_networks_in_float32_circulate_by_no_more_than_rounding(head, rule, dim):
    """Under a protocol in float64, in which the values have the digits of float32 all the same."""
    network = MLP(dim, hidden=16, depth=2)
    field = PotentialField(network, EDM(), sigma_data=2.0, head=head)
    for sigma, e in loop_circulation(field, mixture(dim), Protocol(SIGMAS, n=64), rule=rule):
        assert e.value <= e.numerical_error, sigma


@pytest.mark.parametrize("dim", [2, 5, 64])
def test_no_gradient_circulates_beyond_its_interval(dim):
    for field, data in conservative(dim):
        for sigma, e in loop_circulation(field, data, Protocol(SIGMAS, n=64)):
            low, high = e.interval()
            assert low <= 0 <= high, (type(field).__name__, sigma)
            assert e.value < 1e-5


@pytest.mark.parametrize("rule", RULES)
def test_no_quadrature_finds_curl_in_a_gradient(rule):
    """However wrong the rule, its companion says so."""
    law = mixture(5)
    for sigma, e in loop_circulation(law, law, Protocol(SIGMAS, n=64), radius=1.0, rule=rule):
        low, high = e.interval()
        assert low <= 0 <= high, sigma


def test_a_network_in_float32_circulates_by_rounding_alone():
    network = PotentialField(MLP(2, hidden=16, depth=2), EDM(), sigma_data=2.0, head="inner")
    for _, e in loop_circulation(network, mixture(2), Protocol(SIGMAS, n=64)):
        low, high = e.interval()
        assert low <= 0 <= high
        assert 0 < e.value < 1e-5


@pytest.mark.parametrize("sde", [EDM(), VP()], ids=["EDM", "VP"])
@pytest.mark.parametrize(("dim", "n"), [(2, 64), (64, 64), (784, 48)])
def test_loops_and_jacobians_agree_on_planted_curl(dim, n, sde):
    """Loops in random planes see the Jacobian's norm, within an interval missed once in 10^6."""
    base = (mixture(dim) if dim < 784 else Gaussian(torch.zeros(dim), 1.0)).under(sde)
    field = Planted(base, skew(dim) / math.sqrt(2 * dim), 0.1, mu=0.3)
    exact = exterior_derivative(field, base, Protocol((0.5,), n=2)).estimates[0]
    loops = loop_circulation(field, base, Protocol((0.5,), n=n)).estimates[0]
    low, high = loops.interval(1 - 1e-6)
    assert low <= exact.value <= high
    assert exact.value == pytest.approx(
        0.2 * float(skew(dim).norm()) / math.sqrt(2 * dim) * float(_scale(sde)), rel=1e-6
    )
    assert loops.numerical_error < 1e-3 * exact.value
    assert loops.standard_error < 0.2 * exact.value


def _scale(sde):
    """From the score's Jacobian to the denoiser's."""
    t = sde.time(torch.tensor(0.5, dtype=torch.float64))
    return sde.sigma(t) ** 2 / sde.alpha(t)


@pytest.mark.parametrize("rule", RULES)
def test_the_numerical_error_bounds_what_the_rule_gets_wrong(rule):
    law = mixture(2)
    field = Planted(law, skew(2), 0.3)
    protocol = Protocol((0.5, 2.0), n=32)
    for radius in (0.3, 1.0):
        exact = loop_circulation(field, law, protocol, radius, rule="gauss-16")
        coarse = loop_circulation(field, law, protocol, radius, rule=rule)
        for (_, a), (_, b) in zip(coarse, exact, strict=True):
            assert abs(a.value - b.value) <= 1.02 * a.numerical_error


def test_the_curl_of_a_plane_wave_averages_to_a_bessel_function():
    """A loop of radius r sees the curl cos(k x) times 2 J1(k r) / (k r)."""
    k, sigma, protocol = 2.0, 0.5, Protocol((0.5,), n=50)
    center = mixture(2)
    (points,) = protocol.points(center, wave(2, k))
    # |J - J^T|_F is sqrt(2) |curl|
    local = math.sqrt(2 * float((k * points.noisy[:, 0]).cos().square().mean()))
    for radius in (0.1, 1.0, 2.5):
        kr = k * radius * sigma
        profile = loop_circulation(
            wave(2, k), center, protocol, radius, sides=256, rule="gauss-2", quantity="score"
        )
        expected = local * 2 * special.j1(kr) / kr
        assert profile.estimates[0].value == pytest.approx(expected, rel=1e-3)


def test_an_affine_field_does_not_grow():
    for dim in (2, 5):
        base = Gaussian(torch.zeros(dim), 1.3)
        for _, e in circulation_growth(Planted(base, skew(dim), 0.3), base, Protocol(SIGMAS, n=32)):
            assert abs(e.value) < 1e-9
            assert e.standard_error < 1e-9
            assert e.unit == ""


def test_the_growth_of_a_plane_wave_in_closed_form():
    """In the plane all points see the same Bessel function, so that nothing is left to chance."""
    k, radii = 2.0, (0.25, 0.5, 1.0, 2.0)
    kr = k * 0.5 * np.asarray(radii)
    expected = np.polyfit(np.log(radii), np.log(2 * special.j1(kr) / kr), 1)[0]
    (e,) = circulation_growth(
        wave(2, k), mixture(2), Protocol((0.5,), n=20), radii, sides=256, rule="gauss-2"
    ).estimates
    assert expected < -0.1
    assert e.value == pytest.approx(expected, rel=1e-3)
    assert e.standard_error < 1e-9
    assert e.numerical_error < 1e-4


@pytest.mark.parametrize("rule", ["midpoint", "trapezoid", "simpson", "gauss-2"])
def test_the_numerical_error_of_a_growth_bounds_what_the_rule_gets_wrong(rule):
    protocol = Protocol((0.5,), n=20)
    exact, coarse = (
        circulation_growth(wave(2, 2.0), mixture(2), protocol, (0.5, 1.0, 2.0), rule=r).estimates[0]
        for r in ("gauss-8", rule)
    )
    assert 1e-9 < abs(coarse.value - exact.value) <= coarse.numerical_error


def test_the_growth_lies_in_its_interval():
    """In space, where planes are tilted at random against the wave, in 93 to 97% of 300 repeats.

    A plane whose normal makes the angle a with the wave sees its wave number as k sin a, and the
    curl as sin a times a factor that averages out; its phase is the same for all radii.
    """
    k, sigma, radii = 2.0, 0.5, (0.5, 2.0)

    def mean_square(r):
        def weight(a):
            kr = k * sigma * r * math.sin(a)
            bessel = 2 * special.j1(kr) / kr if kr > 1e-9 else 1.0
            return math.sin(a) ** 3 * bessel**2

        return integrate.quad(weight, 0, math.pi)[0]

    logs = [0.5 * math.log(mean_square(r)) for r in radii]
    expected = (logs[1] - logs[0]) / math.log(radii[1] / radii[0])
    assert expected < -0.1
    data, inside = Gaussian(torch.zeros(3), 5.0), 0
    for seed in range(300):
        profile = circulation_growth(
            wave(3, k), data, Protocol((sigma,), n=60, seed=seed), radii, sides=24, rule="midpoint"
        )
        low, high = profile.estimates[0].interval()
        inside += low <= expected <= high
    assert stats.binom.ppf(1e-6, 300, 0.93) <= inside <= stats.binom.isf(1e-6, 300, 0.97)


def test_the_growth_of_nothing_is_an_error():
    law = mixture(2)
    with pytest.raises(ValueError, match=r"circulation_growth at noise level 0\.5.*not defined"):
        circulation_growth(law, law, Protocol((0.5,), n=16))


@pytest.mark.parametrize(
    ("radii", "message"),
    [((), "at least two"), ((0.5, 0.5), "at least two"), ((0.5, -1.0), "positive")],
)
def test_bad_radii_are_named(radii, message):
    law = mixture(2)
    with pytest.raises(ValueError, match=message):
        circulation_growth(law, law, Protocol((0.5,), n=16), radii)


def test_nothing_circulates_in_one_dimension():
    law = Gaussian(torch.zeros(1), 1.0)
    for diagnostic in (loop_circulation, circulation_growth):
        with pytest.raises(ValueError, match="two dimensions"):
            diagnostic(law, law, Protocol((0.5,), n=16))


def test_the_root_mean_square_curl_of_given_draws():
    """Means of circulation, error and area, whatever the number of draws."""
    for copies in (2, 20):
        draws = (np.tile(values, copies) for values in ([30.0, 42.0], [1.0, 3.0], [4.0, 14.0]))
        found = SquaredCurls(*draws).root("1")
        assert found.value == pytest.approx(2.0)
        assert found.numerical_error == pytest.approx(math.sqrt(2 / 9))

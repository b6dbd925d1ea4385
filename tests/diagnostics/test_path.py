import math

import pytest
import torch
from scipy import stats

from scorefield import (
    EDM,
    MLP,
    VP,
    Empirical,
    Gaussian,
    GaussianMixture,
    PotentialField,
    PreconditionedField,
    Protocol,
    path_gap,
    potential_gap,
)
from tests.planted import Affine, Planted, Plus, skew

SIGMAS = (0.02, 0.1, 0.5, 2.0, 10.0)
RING = GaussianMixture.ring()


def potential(dim, dtype=torch.float64):
    network = MLP(dim, hidden=16, depth=2)
    return PotentialField(network, EDM(), sigma_data=2.0, head="inner").to(dtype)


def conservative(dim):
    """Fields without curl, and where their points come from."""
    means = 2 * torch.randn(4, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    law = RING if dim == 2 else GaussianMixture(means, stds=torch.tensor([0.3, 0.5, 0.8, 1.0]))
    data, normal = Empirical(law.sample(100, 0)), Gaussian(torch.zeros(dim), 1.3)
    return [(normal, normal), (law, law), (data, data), (potential(dim), law)]


class Wrong(Planted):
    """A rotation that its potential knows nothing of."""

    @property
    def has_potential(self):
        return True

    def potential(self, x, t, classes=None):
        return self.base.potential(x, t)


@pytest.mark.parametrize("diagnostic", [path_gap, potential_gap])
@pytest.mark.parametrize("dim", [2, 5, 64])
def test_gradients_have_no_gap(dim, diagnostic):
    """Within the interval, and far below the tolerance a path."""
    for field, data in conservative(dim):
        for sigma, e in diagnostic(field, data, Protocol(SIGMAS, n=64)):
            low, high = e.interval()
            assert low <= 0 <= high, (type(field).__name__, sigma)
            assert e.value < 2e-6
            assert e.unit == "nats"
            assert e.settings["unresolved"] == 0


@pytest.mark.parametrize("diagnostic", [path_gap, potential_gap])
def test_networks_in_float32_have_no_gap_but_rounding(diagnostic):
    for _, e in diagnostic(potential(2, torch.float32), RING, Protocol(SIGMAS, n=64)):
        low, high = e.interval()
        assert low <= 0 <= high
        assert 0 < e.value < 1e-3
        assert e.settings["unresolved"] == 0


@pytest.mark.parametrize("diagnostic", [path_gap, potential_gap])
def test_events_of_any_shape(diagnostic):
    law = Gaussian(torch.zeros(1, 2, 2), 0.5)
    for _, e in diagnostic(law, law, Protocol((0.1, 1.0), n=8)):
        assert e.value < 1e-12


def expected(dim, sigma, eps, bend=0.5):
    r"""The mean square 64/pi^2 h^2 sigma^4 (D + 2)/(D - 1) |A|_F^2 with A = 2 eps R."""
    norm = 2 * eps * float(skew(dim).norm())
    return 64 / math.pi**2 * bend**2 * sigma**4 * (dim + 2) / (dim - 1) * norm**2


@pytest.mark.parametrize("bend", [0.2, 1.0])
@pytest.mark.parametrize("sde", [EDM(), VP()], ids=["EDM", "VP"])
@pytest.mark.parametrize("dim", [2, 5, 64])
def test_a_planted_rotation_in_closed_form(dim, sde, bend):
    """Whatever the base: a gradient adds nothing."""
    base = (RING if dim == 2 else Gaussian(torch.zeros(dim), 1.0)).under(sde)
    n = 2000 if dim > 5 else 4000
    field, protocol = Planted(base, skew(dim), 0.1, mu=0.3), Protocol((0.5,), n=n)
    (e,) = path_gap(field, base, protocol, bend).estimates
    sigma = float(sde.sigma(sde.time(torch.tensor(0.5, dtype=torch.float64))))
    square = expected(dim, sigma, 0.1, bend)
    assert abs(e.value**2 - square) < 6 * 2 * e.value * e.standard_error
    assert e.standard_error < 0.05 * e.value


@pytest.mark.slow
def test_the_gap_lies_in_its_interval():
    """In 93 to 97% of 300 repeats, in dimensions enough for the fourth power of |e| to average."""
    base = Gaussian(torch.zeros(16), 1.0)
    field, inside = Planted(base, skew(16), 0.1, mu=0.3), 0
    truth = math.sqrt(expected(16, 0.5, 0.1))
    for seed in range(300):
        profile = path_gap(field, base, Protocol((0.5,), n=200, seed=seed), tolerance=1e-3)
        low, high = profile.estimates[0].interval()
        inside += low <= truth <= high
    assert stats.binom.ppf(1e-6, 300, 0.93) <= inside <= stats.binom.isf(1e-6, 300, 0.97)


@pytest.mark.parametrize("dim", [2, 5])
def test_a_potential_that_leaves_out_a_rotation_in_closed_form(dim):
    r"""The gap is eps (R y . e - 4/pi delta^T R e) with the middle y of the chord from mu, which is
    independent of e: E = eps^2 |R|^2 2 sigma^2 (s^2 + sigma^2/2) + a quarter of the path gap's."""
    s, sigma, eps = 1.3, 0.5, 0.2
    base = Gaussian(torch.full((dim,), 0.3), s)
    field = Wrong(base, skew(dim), eps, mu=0.3)
    (e,) = potential_gap(field, base, Protocol((sigma,), n=4000)).estimates
    chord = (eps * float(skew(dim).norm())) ** 2 * 2 * sigma**2 * (s**2 + sigma**2 / 2)
    square = chord + expected(dim, sigma, eps) / 4
    assert abs(e.value**2 - square) < 6 * 2 * e.value * e.standard_error
    assert e.standard_error < 0.05 * e.value


def test_potentials_are_compared_in_one_dimension_too():
    for law in (Gaussian(torch.zeros(1), 0.7), Gaussian(0.2, 0.7)):
        for _, e in potential_gap(law, law, Protocol(SIGMAS, n=16)):
            low, high = e.interval()
            assert low <= 0 <= high
            assert e.value < 1e-11
        with pytest.raises(ValueError, match="second path needs two dimensions"):
            path_gap(law, law, Protocol((0.5,), n=16))


def test_a_tighter_tolerance_is_kept():
    """The truth is zero: what is left is the quadrature, and no more than was stated."""
    previous = math.inf
    for tolerance in (1e-2, 1e-5, 1e-8):
        (e,) = path_gap(RING, RING, Protocol((2.0,), n=64), tolerance=tolerance).estimates
        assert e.value <= e.numerical_error <= 2 * tolerance
        assert e.numerical_error < previous
        previous = e.numerical_error


def test_paths_that_do_not_settle_are_counted():
    """With two panels at most the mixture's score is not resolved, and the interval says so."""
    (e,) = path_gap(RING, RING, Protocol((2.0,), n=64), tolerance=1e-9, panels=2).estimates
    assert 64 < e.settings["unresolved"] <= 128
    low, high = e.interval()
    assert low <= 0 <= high
    assert e.numerical_error > 1e-9


def test_gaps_do_not_depend_on_the_other_levels():
    field = Planted(RING, skew(2), 0.3)
    alone = path_gap(field, RING, Protocol((0.5,), n=16)).estimates[0]
    among = path_gap(field, RING, Protocol((0.1, 0.5), n=16)).estimates[1]
    assert alone.value == among.value


def test_a_field_without_a_potential_is_named():
    for field in (
        PreconditionedField(MLP(2, hidden=8, depth=1), EDM(), sigma_data=1.0),
        Affine(skew(2)),
    ):
        with pytest.raises(ValueError, match=rf"{type(field).__name__} has no potential"):
            potential_gap(field, RING, Protocol((0.5,), n=8))


@pytest.mark.parametrize("diagnostic", [path_gap, potential_gap])
@pytest.mark.parametrize(
    ("settings", "message"),
    [({"bend": 0.0}, "bend"), ({"tolerance": 0.0}, "tolerance"), ({"panels": 1}, "panels")],
)
def test_a_bend_a_tolerance_and_panels_out_of_range_are_refused(diagnostic, settings, message):
    with pytest.raises(ValueError, match=message):
        diagnostic(RING, RING, Protocol((0.5,), n=8), **settings)


def test_a_failed_measurement_is_an_error():
    broken = Affine(torch.full((2, 2), math.nan, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"path_gap at noise level 0\.5.*not finite"):
        path_gap(broken, RING, Protocol((0.5,), n=4))


def test_in_one_dimension_the_gap_is_what_the_potential_leaves_out_along_the_chord():
    """A constant c on top of a gradient adds c times the chord between two noisy points of one
    clean one, of variance 2 sigma².
    """
    sigma, c = 0.5, 0.3
    law = Gaussian(torch.full((1,), 3.0), 2.0)

    class Leaning(Plus):
        has_potential = True

        def potential(self, x, t, classes=None):
            return self.base.potential(x, t)

    leaning = Leaning(law, lambda x, t: torch.full_like(x, c))
    (e,) = potential_gap(leaning, law, Protocol((sigma,), n=4000)).estimates
    assert abs(e.value - math.sqrt(2) * sigma * c) < 6 * e.standard_error
    assert e.standard_error < 0.03 * e.value

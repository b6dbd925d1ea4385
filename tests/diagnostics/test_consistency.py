import itertools
import math

import pytest
import torch

from scorefield import (
    EDM,
    MLP,
    VE,
    VP,
    Empirical,
    Gaussian,
    GaussianMixture,
    PlantedField,
    PreconditionedField,
    Protocol,
    PseudoAtoms,
    consistency_error,
    score_error,
)
from scorefield.diagnostics.consistency import _joined
from scorefield.fields.planted import Radial
from scorefield.noise import Noise
from tests.laws.cases import KnownWave
from tests.planted import Planted, skew

ATOMS = PseudoAtoms([[0.25], [0.75]], std=0.01, sde=VE(0.001, 0.5))
EXACT = {
    "gaussian": Gaussian(torch.zeros(3), std=torch.tensor([0.3, 1.0, 2.0])),
    "mixture": GaussianMixture.ring(),
    "mixture VP": GaussianMixture.ring(sde=VP()),
    "points": Empirical(GaussianMixture.ring().sample(20, 0)),
}


def missed(profile):
    """How many of the intervals of 95 % miss zero, and whether any of 99.99 % does."""
    missed = [not (e.interval()[0] <= 0 <= e.interval()[1]) for _, e in profile]
    far = [not (e.interval(1 - 1e-6)[0] <= 0 <= e.interval(1 - 1e-6)[1]) for _, e in profile]
    return sum(missed), any(far)


@pytest.mark.parametrize("name", EXACT)
def test_the_exact_field_is_consistent(name):
    field = EXACT[name]
    profile = consistency_error(field, field, Protocol((0.05, 0.2, 0.5, 1.0, 2.0, 10.0), n=64))
    few, far = missed(profile)
    assert few <= 1
    assert not far
    assert all(abs(e.value) < 0.03 for _, e in profile)


def test_the_exact_field_is_consistent_on_a_torus():
    """From where the wells are apart to where the noise goes round the box."""
    sigmas = (0.002, 0.01, 0.05, 0.1, 0.2, 0.35, 0.5)
    few, far = missed(consistency_error(ATOMS, ATOMS, Protocol(sigmas, n=64)))
    assert few <= 1
    assert not far


def turned(dim, std, eps, high, low):
    """The mean square of Planted(Gaussian) over a span of EDM, by its linear reverse process.

    With v = sigma^2 the mean obeys dm/dv = m / (std^2 + v) - eps R m, and h = x + v s.
    """
    turn = eps * skew(dim)
    one = torch.eye(dim, dtype=torch.float64)

    def denoiser(v):
        return one * std**2 / (std**2 + v) + v * turn

    v_s, v_e = high**2, low**2
    mean = (std**2 + v_e) / (std**2 + v_s) * torch.matrix_exp((v_s - v_e) * turn)
    residual = denoiser(v_e) @ mean - denoiser(v_s)
    return float(residual.square().sum()) * (std**2 + v_s) / (dim * v_s)


@pytest.mark.parametrize("dim", [2, 5])
@pytest.mark.parametrize("span", [1.5, 3.0])
def test_a_planted_error_is_found_to_be_as_large_as_it_is(dim, span):
    law = Gaussian(torch.zeros(dim), 0.7)
    field = Planted(law, skew(dim), eps=0.1)
    profile = consistency_error(field, law, Protocol((0.2, 0.5, 1.0), n=200), span=span)
    for sigma, e in profile:
        expected = turned(dim, 0.7, 0.1, sigma, sigma / span)
        low, high = e.interval(1 - 1e-6)
        assert low <= expected <= high, sigma
        assert low > 0
        assert high - low < 2 * expected


def test_extrapolation_leaves_less_than_the_numerical_error():
    """The residual of a linear field does not scatter over trajectories, so that the same points
    tell the difference between few steps and many: it shrinks with the square of the step, and is
    within the numerical error."""
    law = Gaussian(torch.zeros(2), 0.7)
    field, protocol = Planted(law, skew(2), eps=0.3), Protocol((1.0,), n=4)
    *found, best = (
        consistency_error(field, law, protocol, steps=n).estimates[0] for n in (4, 8, 16, 256)
    )
    left = [abs(e.value - best.value) for e in found]
    assert all(a > 3 * b for a, b in itertools.pairwise(left))
    assert all(a < e.numerical_error for a, e in zip(left, found, strict=True))


@pytest.mark.parametrize("sde", [EDM(), VP()], ids=lambda s: type(s).__name__)
def test_coarse_steps_are_on_the_path_of_the_fine_ones(sde):
    """Where the score is zero, x / alpha wanders by the Brownian path alone."""
    grid = sde.time(torch.tensor([2.0, 1.9, 1.0, 0.8, 0.4], dtype=torch.float64))
    z = Noise(0).normal("z", (4, 3), torch.arange(5), dtype=torch.float64).transpose(0, 1)
    level = sde.noise_level(grid)

    def ends(points, normals):
        width = (points[:-1] ** 2 - points[1:] ** 2).sqrt()
        return (width.reshape(-1, 1, 1) * normals).sum(dim=0)

    torch.testing.assert_close(ends(level[::2], _joined(sde, grid, z)), ends(level, z))
    torch.testing.assert_close(
        ends(level[2::2], _joined(sde, grid[2:], z[2:])), ends(level[2:], z[2:])
    )


def test_an_error_is_found_on_a_torus():
    field = PlantedField(ATOMS, Radial(0.1), dose=0.3)
    for sigma, e in consistency_error(field, ATOMS, Protocol((0.01, 0.4), n=64)):
        assert e.interval(1 - 1e-6)[0] > 0, sigma


def test_a_field_that_winds_can_be_consistent():
    """Where the noise fills the box, a constant is as consistent as the score without it."""

    class Drifting(PseudoAtoms):
        def predict(self, x, t, quantity, classes=None):
            assert quantity in ("score", "noise")
            value = super().predict(x, t, quantity)
            return value + (1.0 if quantity == "score" else -self.sde.sigma(t).reshape(-1, 1, 1))

    field = Drifting([[0.25], [0.75]], std=0.01, sde=ATOMS.sde)
    (e,) = consistency_error(field, ATOMS, Protocol((0.5,), n=64)).estimates
    (error,) = score_error(field, ATOMS, Protocol((0.5,), n=64)).estimates
    low, high = e.interval()
    assert low <= 0 <= high < 0.01
    assert error.value == pytest.approx(0.5)


def test_a_guide_draws_the_trajectories():
    """Along those of the exact field the mean is the exact posterior's, whatever the field is."""
    law = Gaussian(torch.zeros(2), 0.7)
    field = Planted(law, skew(2), eps=0.3)
    (e,) = consistency_error(field, law, Protocol((1.0,), n=200), guide=law).estimates
    turn, one = 0.3 * skew(2), torch.eye(2, dtype=torch.float64)
    v_s, v_e, v = 1.0, 0.25, 0.49
    ends = [one * v / (v + u) + u * turn for u in (v_e, v_s)]
    residual = (v + v_e) / (v + v_s) * ends[0] - ends[1]
    expected = float(residual.square().sum()) * (v + v_s) / (2 * v_s)
    low, high = e.interval(1 - 1e-6)
    assert low <= expected <= high
    assert high - low < expected
    alone = turned(2, 0.7, 0.3, 1.0, 0.5)
    assert not low <= alone <= high


def test_the_square_is_not_cut_at_zero():
    """Of the exact field, estimates of either sign are as many."""
    law = GaussianMixture.ring()
    found = [
        consistency_error(law, law, Protocol((1.0,), n=32, seed=seed)).estimates[0]
        for seed in range(6)
    ]
    negative = [e.value < 0 for e in found]
    assert any(negative)
    assert not all(negative)


def test_blocks_of_points_change_nothing(monkeypatch):
    """Of points with classes, too."""
    law = GaussianMixture.ring()
    field = PreconditionedField(KnownWave((2,)), EDM(), sigma_data=0.7)
    protocol, classes = Protocol((1.0,), n=30), torch.arange(30) % 3
    whole = consistency_error(field, law, protocol, classes=classes)
    monkeypatch.setattr("scorefield.diagnostics.consistency._COORDINATES", 100)
    again = consistency_error(field, law, protocol, classes=classes)
    (part,), (e,) = again.estimates, whole.estimates
    assert part.value == pytest.approx(e.value, rel=1e-9)
    assert part.standard_error == pytest.approx(e.standard_error, rel=1e-9)


def test_the_span_ends_at_the_least_level():
    law = Gaussian(torch.zeros(2), 1.0, sde=EDM(0.1, 10.0))
    profile = consistency_error(law, law, Protocol((0.15, 1.0), n=16))
    spans = [e.settings["span"] for _, e in profile]
    assert spans == pytest.approx([1.5, 2.0])
    assert profile.name == "consistency"
    assert profile.settings == {"span": 2.0, "steps": 8, "trajectories": 8, "guide": None}


def test_networks_in_float32_are_judged_in_evaluation_mode():
    field = PreconditionedField(MLP(2, hidden=16, depth=2), EDM(), sigma_data=2.0).train()
    law = GaussianMixture.ring()
    single = Protocol((0.05, 1.0), n=64, dtype=torch.float32)
    for (_, a), (_, b) in zip(
        consistency_error(field, law, Protocol((0.05, 1.0), n=64)),
        consistency_error(field, law, single),
        strict=True,
    ):
        assert a.value == pytest.approx(b.value, rel=1e-2)
    assert field.training
    assert all(not p.grad_fn and p.grad is None for p in field.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"span": 1.0}, "must be above 1"),
        ({"span": math.inf}, "must be above 1"),
        ({"steps": 3}, "must be even and at least 2"),
        ({"trajectories": 2}, "at least 4, got 2"),
        ({"trajectories": 5}, "trajectories must be even"),
        ({"guide": Gaussian(torch.zeros(2), 1.0, sde=VP())}, "another process"),
    ],
)
def test_consistency_names_the_setting_that_it_refuses(arguments, message):
    law = Gaussian(torch.zeros(2), 1.0)
    with pytest.raises(ValueError, match=message):
        consistency_error(law, law, Protocol((1.0,), n=8), **arguments)


def test_below_the_least_level_there_is_nothing_to_agree_with():
    law = Gaussian(torch.zeros(2), 1.0, sde=EDM(0.1, 10.0))
    with pytest.raises(ValueError, match=r"consistency at noise level 0.1: it is the lowest"):
        consistency_error(law, law, Protocol((0.1,), n=8))

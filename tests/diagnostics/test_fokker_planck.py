"""The Fokker–Planck residual as a diagnostic: zero of the truth, known elsewhere, with errors."""

import math

import pytest
import torch

from scorefield import (
    EDM,
    MLP,
    VE,
    VP,
    EDMScaling,
    EquivariantScore,
    Gaussian,
    GaussianMixture,
    PotentialField,
    PreconditionedField,
    Protocol,
    PseudoAtoms,
    fokker_planck_error,
    fokker_planck_errors,
    fokker_planck_gap,
)
from tests.laws.cases import KnownWave, Wave, normal
from tests.planted import Planted, skew

LEVELS = (0.02, 0.1, 0.5, 2.0)
RING = GaussianMixture.ring()
FORMS = ("gradient", "component")


def waved(shape, sde=None):
    return PreconditionedField(Wave(shape), EDM() if sde is None else sde, sigma_data=0.7)


ATOMS = PseudoAtoms([[0.25], [0.75]], 0.01, sde=VE(0.001, 0.5))
TRUTHS = {
    "ring": (RING, LEVELS),
    "ring, VP": (RING.under(VP(t_min=1e-3)), LEVELS),
    "atoms": (ATOMS, (0.001, 0.01, 0.1, 0.5)),
    "images": (EquivariantScore(normal((3, 1, 2, 2), "images"), EDM()), LEVELS),
}


@pytest.mark.parametrize("name", TRUTHS)
def test_the_truth_has_no_residual_in_either_form(name):
    """Nor an interval without zero: the numerical error covers what rounding leaves."""
    truth, levels = TRUTHS[name]
    for profile in fokker_planck_errors(truth, truth, Protocol(levels, n=32)):
        for _, estimate in profile:
            assert estimate.value < 1e-8
            assert estimate.interval()[0] <= 0


def test_probes_find_none_but_by_chance():
    """The mean of the products of two draws, each of which misses zero, has no bias."""
    for _, estimate in fokker_planck_error(RING, RING, Protocol(LEVELS, n=400), probes=2):
        assert estimate.value < 4 * estimate.standard_error


def test_a_known_residual():
    """s = -x / (a^2 + 4 t^2) under EDM has r = 6 t x / v^2: rho = 6 t^3 x / v^2, by quadrature
    over x = x_0 + t z with variance b^2 + t^2."""
    late = Gaussian(torch.zeros(2), 0.5)

    class Late(Gaussian):
        def score(self, x, t, classes=None):
            return late.score(x, 2 * t)

    field, b = Late(torch.zeros(2), 0.5), 0.8
    data = b * torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    for form in FORMS:
        profile = fokker_planck_error(field, data, Protocol(LEVELS, n=20_000), form)
        for sigma, estimate in profile:
            v = 0.25 + 4 * sigma**2
            expected = 6 * sigma**3 * math.sqrt(b**2 + sigma**2) / v**2
            assert abs(estimate.value - expected) < 5 * estimate.standard_error
            assert estimate.standard_error < 0.01 * expected


def test_a_rotation_of_known_gap():
    """A = 2 eps R: the gap is 2 eps g^2 sigma |R s| / rate = 4 eps sigma^3 |s|, s with its turn."""
    field = Planted(Gaussian(torch.zeros(2), 1.0), skew(2), 0.1)
    data = torch.randn(5_000, 2, generator=torch.Generator().manual_seed(0))
    for sigma, estimate in fokker_planck_gap(field, data, Protocol(LEVELS, n=5_000)):
        variance = 1 + sigma**2
        size = math.sqrt(variance * (1 / variance**2 + 0.1**2))
        expected = 4 * 0.1 * sigma**3 * size
        assert abs(estimate.value - expected) < 5 * estimate.standard_error


@pytest.mark.parametrize("probes", [None, 2])
def test_one_evaluation_gives_all_three(probes):
    field, protocol = waved((3,)), Protocol(LEVELS, n=32)
    data = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
    all_three = fokker_planck_errors(field, data, protocol, probes)
    alone = [fokker_planck_error(field, data, protocol, form, probes) for form in FORMS]
    alone.append(fokker_planck_gap(field, data, protocol, probes))
    names = ["fokker_planck", "fokker_planck_component", "fokker_planck_gap"]
    assert [p.name for p in all_three] == [p.name for p in alone] == names
    for one, other in zip(all_three, alone, strict=True):
        assert one.settings == other.settings == {"probes": probes or "exact"}
        for (_, a), (_, b) in zip(one, other, strict=True):
            assert a.value == pytest.approx(b.value, rel=1e-10)
            assert a.standard_error == pytest.approx(b.standard_error, rel=1e-8)
            assert a.numerical_error < 1e-10


def test_the_interval_of_probes_holds_the_truth():
    """At least 52 of 60 intervals, from 100 points with two signs each, hold what 20,000 points
    have exactly."""
    field = waved((4,))
    data = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0))
    exact = fokker_planck_errors(field, data, Protocol((0.5,), n=20_000, seed=1000))
    held = [0, 0, 0]
    for seed in range(60):
        probed = fokker_planck_errors(field, data, Protocol((0.5,), n=100, seed=seed), probes=2)
        for k in range(3):
            low, high = probed[k].estimates[0].interval()
            held[k] += low <= exact[k].estimates[0].value <= high
    assert min(held) >= 52


def test_a_potential_has_no_gap():
    backbone = MLP(2, hidden=16, depth=2, outputs=1)
    field = PotentialField(backbone, EDM(), sigma_data=2.85)
    errors = fokker_planck_errors(field, RING, Protocol(LEVELS, n=32))
    for _, gap in errors.gap:
        assert gap.interval()[0] <= 0
        assert gap.value < 1e-3
    for (_, one), (_, other) in zip(errors.gradient, errors.component, strict=True):
        assert one.value > 0.01
        assert one.value == pytest.approx(other.value, rel=1e-3)


def test_the_clock_does_not_matter():
    """One denoiser under two processes that differ by their clock, at the same levels."""
    data = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
    profiles = [
        fokker_planck_errors(waved((2,), sde), data, Protocol(LEVELS, n=32))
        for sde in (EDM(), VE(0.001, 80.0))
    ]
    for one, other in zip(*profiles, strict=True):
        for (_, a), (_, b) in zip(one, other, strict=True):
            assert a.value == pytest.approx(b.value, rel=1e-8)


def test_blocks_of_points_change_nothing(monkeypatch):
    """Of points with classes, too."""
    data = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    field = PreconditionedField(KnownWave((3,)), EDM(), parametrization=EDMScaling(0.7))
    classes = torch.arange(10) % 3
    for probes in (None, 2):
        whole = fokker_planck_errors(field, data, Protocol((0.3,), n=10), probes, classes)
        monkeypatch.setattr("scorefield.diagnostics.protocol._ENTRIES", 30)
        parts = fokker_planck_errors(field, data, Protocol((0.3,), n=10), probes, classes)
        monkeypatch.undo()
        for one, other in zip(whole, parts, strict=True):
            a, b = one.estimates[0], other.estimates[0]
            assert a.value == pytest.approx(b.value, rel=1e-10)
            assert a.numerical_error == pytest.approx(b.numerical_error, rel=0.5)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_form_one_probe_and_values_that_are_not_finite_are_refused():
    protocol = Protocol(LEVELS, n=8)
    with pytest.raises(ValueError, match="gradient or component, not 'curl'"):
        fokker_planck_error(RING, RING, protocol, "curl")
    with pytest.raises(ValueError, match="must be an integer of at least 2, got 1"):
        fokker_planck_errors(RING, RING, protocol, 1)

    class Broken(GaussianMixture):
        def score(self, x, t, classes=None):
            return super().score(x, t) * torch.inf

    with pytest.raises(ValueError, match=r"fokker_planck at noise level 0\.02"):
        fokker_planck_error(Broken(RING.means, 0.35), RING, protocol)

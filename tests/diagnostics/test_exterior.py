import math

import pytest
import torch

from scorefield import (
    EDM,
    MLP,
    VE,
    VP,
    GaussianMixture,
    PotentialField,
    PreconditionedField,
    Protocol,
    PseudoAtoms,
    asymmetries,
    exterior_derivative,
    relative_asymmetry,
)
from scorefield.diagnostics import asymmetry
from tests.planted import Affine, Planted, skew

SIGMAS = (0.1, 1.0, 10.0)
BASE = GaussianMixture(
    2 * torch.eye(5, dtype=torch.float64)[:3],
    stds=torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64),
)
TURNING = Planted(BASE, skew(5), 0.2, mu=0.3)


@pytest.mark.parametrize("sde", [EDM(), VP()], ids=["edm", "vp"])
@pytest.mark.parametrize("probes", [None, 3])
@pytest.mark.parametrize("quantity", ["score", "denoiser", "velocity"])
def test_one_set_of_jacobians_gives_both_numbers(sde, probes, quantity):
    truth = BASE.under(sde)
    field = Planted(truth, skew(5), 0.2, mu=0.3)
    protocol = Protocol(SIGMAS, n=16)
    both = asymmetries(field, truth, protocol, probes, quantity)
    alone = exterior_derivative(field, truth, protocol, probes, quantity)
    relative = relative_asymmetry(field, truth, protocol, probes, "score")
    for together, apart in ((both.exterior, alone), (both.relative, relative)):
        assert (together.name, together.unit) == (apart.name, apart.unit)
        assert together.settings == apart.settings
        for (_, a), (_, b) in zip(together, apart, strict=True):
            assert a.value == pytest.approx(b.value, rel=1e-9)
            assert a.standard_error == pytest.approx(b.standard_error, rel=1e-6)
            assert a.unit == b.unit


def test_jacobians_are_computed_a_few_points_at_a_time(monkeypatch):
    """With less workspace than two Jacobians take, the points come one by one."""
    seen = []
    whole = asymmetry.jacobian

    def spy(fn, x, t, **options):
        seen.append(len(x))
        return whole(fn, x, t, **options)

    monkeypatch.setattr(asymmetry, "jacobian", spy)
    protocol = Protocol((1.0,), n=16)
    (expected,) = exterior_derivative(TURNING, BASE, protocol).estimates
    assert seen == [16]
    monkeypatch.setattr(asymmetry, "_WORKSPACE", 2 * 5 * 5 * 8 - 1)
    (streamed,) = exterior_derivative(TURNING, BASE, protocol).estimates
    assert seen[1:] == [1] * 16
    assert streamed.value == pytest.approx(expected.value, rel=1e-12)
    assert streamed.standard_error == pytest.approx(expected.standard_error, rel=1e-9)


def test_probes_do_not_depend_on_how_many_are_evaluated_at_once(monkeypatch):
    protocol = Protocol((1.0,), n=16)
    (expected,) = exterior_derivative(TURNING, BASE, protocol, probes=4).estimates
    monkeypatch.setattr("scorefield.diagnostics.protocol._ENTRIES", 15)
    (few,) = exterior_derivative(TURNING, BASE, protocol, probes=4).estimates
    assert few.value == pytest.approx(expected.value, rel=1e-12)


def test_the_error_that_probes_add_is_the_one_they_make():
    """(probed - exact) / error has variance 1 where both see the same points.

    Over 150 seeds its mean square is within these bounds but for a chance of 1e-6.
    """
    deviations = []
    for seed in range(150):
        terms = {"sigmas": (1.0,), "n": 40, "seed": seed}
        (exact,) = exterior_derivative(TURNING, BASE, Protocol(**terms)).estimates
        probed = exterior_derivative(TURNING, BASE, Protocol(**terms, precision=0.5), probes=4)
        (estimate,) = probed.estimates
        assert estimate.settings["probes"] == 4
        error = estimate.settings["probe_error"] * estimate.value
        deviations.append((estimate.value - exact.value) / error)
    assert 0.4 < sum(d**2 for d in deviations) / 150 < 1.8


@pytest.mark.parametrize("diagnostic", [exterior_derivative, relative_asymmetry])
def test_the_error_of_probes_of_one_jacobian_in_closed_form(diagnostic):
    r"""A form v^T M v of random signs has the variance :math:`2 \sum_{i \ne j} M_{ij}^2`, and the
    root of a mean of them half its relative error: M is A^T A, of the ratio less its share of the
    norm's.
    """
    n, probes = 2000, 4
    jacobian = 0.2 * skew(5) - torch.diag(torch.arange(1.0, 6.0, dtype=torch.float64))
    a = jacobian - jacobian.T
    form, size = a.T @ a, float(a.square().sum())
    if diagnostic is relative_asymmetry:
        whole = (jacobian.T @ jacobian + jacobian @ jacobian.T) / 2
        form = form - size / float(jacobian.square().sum()) * whole
    variance = 2 * float((form - form.diag().diag()).square().sum())
    expected = math.sqrt(variance / (n * probes)) / (2 * size)
    protocol = Protocol((1.0,), n=n, precision=0.5)
    (found,) = diagnostic(Affine(jacobian), BASE, protocol, probes, "score").estimates
    assert found.settings["probes"] == probes
    # A variance of 2,000 variances of four.
    assert found.settings["probe_error"] == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("precision", [0.02, 0.005])
def test_probes_go_on_until_the_precision_is_reached(precision):
    protocol = Protocol(SIGMAS, n=30, precision=precision)
    profile = exterior_derivative(TURNING, BASE, protocol, probes=2)
    exact = exterior_derivative(TURNING, BASE, Protocol(SIGMAS, n=30))
    for (_, e), (_, truth), used in zip(profile, exact, profile.settings["probes"], strict=True):
        assert e.settings == {"probes": used, "probe_error": e.settings["probe_error"]}
        assert e.settings["probe_error"] <= precision
        # Each round doubles the number: half as many were not enough.
        assert used in {2**k for k in range(1, 11)}
        assert abs(e.value - truth.value) < 6 * precision * truth.value
    assert profile.settings["precision"] == precision
    assert "precision_missed_at" not in profile.settings
    coarse = exterior_derivative(TURNING, BASE, Protocol(SIGMAS, n=30, precision=0.3), probes=2)
    assert sum(profile.settings["probes"]) > sum(coarse.settings["probes"])


def test_a_precision_that_is_not_reached_is_told():
    protocol = Protocol((1.0,), n=2, precision=1e-6)
    profile = exterior_derivative(TURNING, BASE, protocol, probes=300)
    assert profile.settings["probes"] == [1024]
    assert profile.settings["precision_missed_at"] == [1.0]
    assert profile.estimates[0].settings["probe_error"] > 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_to_be_precise_about_ends_the_probes_at_once(dtype):
    """Rounding is not measured to a precision: not with the truth, nor with a network."""
    network = PotentialField(MLP(5, hidden=32, outputs=1), EDM(), sigma_data=1.5).to(dtype)
    for field in (BASE, network):
        protocol = Protocol(SIGMAS, n=8, precision=1e-3, dtype=dtype)
        both = asymmetries(field, BASE, protocol, probes=2)
        for profile in both:
            assert profile.settings["probes"] == [2, 2, 2]
            assert "precision_missed_at" not in profile.settings


def test_both_numbers_reach_the_precision():
    network = PreconditionedField(MLP(5, hidden=32), EDM(), sigma_data=1.5).double()
    both = asymmetries(network, BASE, Protocol((0.5,), n=16, precision=0.02), probes=2)
    exact = asymmetries(network, BASE, Protocol((0.5,), n=16))
    for a, b in zip(both, exact, strict=True):
        assert a.estimates[0].value == pytest.approx(b.estimates[0].value, rel=0.12)


def test_a_score_that_is_zero_is_a_gradient():
    """Ten periods of noise leave a law on a torus uniform, to the last bit."""
    law = PseudoAtoms([[0.25], [0.75]], 0.01, sde=VE(0.001, 20.0))
    for found in asymmetries(law, law, Protocol([10.0], 8, dtype=torch.float64)):
        (estimate,) = found.estimates
        assert (estimate.value, estimate.standard_error) == (0, 0)


def test_a_failed_measurement_does_not_go_on():
    """A value that is not finite ends the probes and is an error."""

    class Broken(Planted):
        calls = 0

        def score(self, x, t, classes=None):
            self.calls += 1
            return math.inf * super().score(x, t)

    field = Broken(BASE, skew(5), 0.2)
    with pytest.raises(ValueError, match="not finite"):
        exterior_derivative(field, BASE, Protocol((1.0,), n=4, precision=0.1), probes=2)
    assert field.calls == 1

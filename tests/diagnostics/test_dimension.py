"""The trace of the denoiser's Jacobian against closed forms: subspaces, and a circle."""

import math

import numpy as np
import pytest
import torch
from scipy.special import ive

from scorefield import (
    EDM,
    VP,
    Empirical,
    Gaussian,
    GaussianMixture,
    Protocol,
    RectifiedFlow,
    SubVP,
    denoising_loss,
    intrinsic_dimension,
)
from scorefield.errors import UserError
from tests.planted import Function, Planted, skew

LEVELS = (0.02, 0.1, 0.5, 2.0)
STDS = torch.tensor([1.0, 0.5, 1e-4, 1e-4, 1e-4, 1e-4], dtype=torch.float64)
PROCESSES = {"EDM": EDM(), "VP": VP(), "SubVP": SubVP(), "flow": RectifiedFlow()}


def turned(dim, seed=0):
    """A rotation of all axes."""
    m = torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(m).Q


def subspace(sde=None):
    """A plane in six dimensions, up to a width of 1e-4."""
    q = turned(6)
    return Gaussian(torch.zeros(6), covariance=(q * STDS**2) @ q.T, sde=sde)


def of_subspace(sigma):
    return float((STDS**2 / (STDS**2 + sigma**2)).sum())


def circle(radius=2.0, points=512):
    """A circle in a plane of three dimensions: at noise of four times the spacing of its points
    their score is that of the circle up to exp(-2 pi^2 16)."""
    angle = torch.arange(points, dtype=torch.float64) * (math.tau / points)
    plane = radius * torch.stack((angle.cos(), angle.sin(), 0 * angle), dim=1)
    return Empirical(plane @ turned(3).T, EDM())


@pytest.mark.parametrize("closed", [True, False], ids=["closed form", "products"])
@pytest.mark.parametrize("sde", PROCESSES.values(), ids=PROCESSES)
def test_of_a_plane_in_six_dimensions(sde, closed):
    """A sum over its axes, the same at all points and of all processes, and 2 at little noise."""
    truth = subspace(sde)
    field = truth if closed else Function(truth.score, (6,), sde)
    profile = intrinsic_dimension(field, truth, Protocol(LEVELS, n=8))
    for sigma, e in profile:
        assert e.value == pytest.approx(of_subspace(sigma), rel=1e-9)
        assert e.standard_error < 1e-9
    assert profile.estimates[0].value == pytest.approx(2, abs=2e-3)
    assert profile.unit == "dimensions"


def test_of_a_circle():
    """At each point that of the closed form; at little noise its mean is about 1."""
    data, protocol = circle(), Protocol((0.1, 0.5, 2.0), n=64)
    found = intrinsic_dimension(data, data, protocol)
    q = turned(3)
    for (sigma, e), points in zip(found, protocol.points(data, data), strict=True):
        r = (points.noisy @ q)[:, :2].norm(dim=1).numpy()
        kappa = 2.0 * r / sigma**2
        share = ive(1, kappa) / ive(0, kappa)
        expected = np.mean(4.0 / sigma**2 * (1 - share**2))
        assert e.value == pytest.approx(expected, rel=1e-6)
    assert found.estimates[0].value == pytest.approx(1, abs=0.05)


def test_probes_have_the_trace_in_their_interval():
    """Of one Jacobian for all points the scatter is the probes' alone."""
    truth = subspace()
    for sigma, e in intrinsic_dimension(truth, truth, Protocol(LEVELS, n=256), probes=2):
        low, high = e.interval(1 - 1e-7)
        assert low < of_subspace(sigma) < high
        assert 0 < e.standard_error < 0.1


def test_signs_are_exact_where_the_jacobian_is_diagonal():
    truth = Gaussian(torch.zeros(5), STDS[:5])
    exact, probed = (
        intrinsic_dimension(truth, truth, Protocol(LEVELS, n=4), probes) for probes in (None, 3)
    )
    for one, other in zip(exact.estimates, probed.estimates, strict=True):
        assert other.value == pytest.approx(one.value, rel=1e-9)


def test_curl_does_not_change_it():
    ring = GaussianMixture.ring()
    field, protocol = Planted(ring, skew(2), 3.0), Protocol(LEVELS, n=16)
    found = intrinsic_dimension(field, ring, protocol)
    for one, other in zip(found, intrinsic_dimension(ring, ring, protocol), strict=True):
        assert one[1].value == pytest.approx(other[1].value, rel=1e-9)


def test_of_the_exact_score_it_is_the_denoising_loss_of_all_coordinates():
    ring, protocol = GaussianMixture.ring(), Protocol(LEVELS, n=4096)
    losses = denoising_loss(ring, ring, protocol)
    for (_, d), (_, loss) in zip(intrinsic_dimension(ring, ring, protocol), losses, strict=True):
        error = math.hypot(d.standard_error, 2 * loss.standard_error)
        assert abs(d.value - 2 * loss.value) < 6 * error


def test_blocks_of_points_change_nothing(monkeypatch):
    data, protocol = circle(), Protocol((0.1, 0.5), n=7)
    field = Function(data.score, (3,))
    whole = [intrinsic_dimension(field, data, protocol, probes) for probes in (None, 2)]
    monkeypatch.setattr("scorefield.diagnostics.protocol._ENTRIES", 20)
    for probes, profile in zip((None, 2), whole, strict=True):
        again = intrinsic_dimension(field, data, protocol, probes)
        for one, other in zip(again.estimates, profile.estimates, strict=True):
            assert one.value == pytest.approx(other.value, rel=1e-9)


@pytest.mark.parametrize("probes", [None, 8])
def test_memory_does_not_grow_with_the_number_of_points(probes):
    def largest(n):
        entries = []

        def score(x, t):
            entries.append(x.numel())
            return -x

        dim = 64 if probes is None else 256
        points = torch.zeros(n, dim)
        intrinsic_dimension(Function(score, (dim,)), points, Protocol((1.0,), n=n), probes)
        return max(entries)

    assert largest(128) == largest(512)


def test_a_number_of_probes_that_is_none_is_refused():
    truth = subspace()
    with pytest.raises(UserError, match="the probes of a trace must be a positive integer, got 0"):
        intrinsic_dimension(truth, truth, Protocol(LEVELS, n=8), probes=0)


def test_a_field_that_is_not_finite_is_named():
    field = Function(lambda x, t: x.sqrt(), (2,))
    with pytest.raises(UserError, match=r"intrinsic_dimension at noise level 0.02: .* not finite"):
        intrinsic_dimension(field, GaussianMixture.ring(), Protocol((0.02,), n=64))

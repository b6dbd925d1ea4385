"""Loops, cycles and paths that cross the seam of a torus see no more than they do elsewhere."""

import math

import pytest

from scorefield import (
    VE,
    Protocol,
    PseudoAtoms,
    cycle_circulation,
    exterior_derivative,
    loop_circulation,
    path_gap,
    potential_gap,
    relative_asymmetry,
)
from tests.planted import Shear

PAIR = PseudoAtoms([[0.25], [0.75]], std=0.01, sde=VE(0.001, 0.5))
SIGMAS = (0.01, 0.1, 0.2, 0.4)


@pytest.mark.parametrize("quantity", ["denoiser", "score"])
def test_a_gradient_does_not_circulate_across_the_seam(quantity):
    """The denoiser x + sigma² s jumps where x is wrapped; that is no curl."""
    protocol = Protocol(SIGMAS, n=64)
    for profile in (
        loop_circulation(PAIR, PAIR, protocol, radius=1.0, quantity=quantity),
        cycle_circulation(PAIR, PAIR, protocol, cloud=32, rule="gauss-6", quantity=quantity),
    ):
        for sigma, e in profile:
            low, high = e.interval()
            assert low <= 0 <= high, (profile.name, sigma)
            if quantity == "denoiser":
                assert e.value < 0.02


@pytest.mark.parametrize("diagnostic", [path_gap, potential_gap])
def test_gradients_have_no_gap(diagnostic):
    for sigma, e in diagnostic(PAIR, PAIR, Protocol(SIGMAS, n=64)):
        low, high = e.interval()
        assert low <= 0 <= high, sigma
        assert e.value < 1e-3


def test_a_planted_curl_is_seen_by_all():
    r"""At much noise the points are almost uniform: :math:`\mathbb{E}\,\|A\|^2 = (2 \pi a)^2`."""
    field, protocol, size = Shear(PAIR, 0.3), Protocol((0.4,), n=1024), 0.3
    (exact,) = exterior_derivative(field, PAIR, protocol, quantity="score").estimates
    assert exact.value == pytest.approx(2 * math.pi * size, rel=0.05)
    (loops,) = loop_circulation(field, PAIR, protocol, radius=0.05, quantity="score").estimates
    assert abs(loops.value - exact.value) < 3e-3 * exact.value + loops.numerical_error
    (cycles,) = cycle_circulation(field, PAIR, protocol, quantity="score").estimates
    assert abs(cycles.value - exact.value) < 6 * math.hypot(
        cycles.standard_error, exact.standard_error
    )
    (share,) = relative_asymmetry(field, PAIR, protocol).estimates
    assert 0.3 < share.value < 0.8

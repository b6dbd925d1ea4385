import math

import pytest
import torch

from scorefield import (
    EDM,
    Empirical,
    Gaussian,
    GaussianMixture,
    Protocol,
    exterior_derivative,
    loop_circulation,
)
from scorefield.diagnostics.published import (
    finite_difference_asymmetry,
    left_cycle_circulation,
    path_variance,
)
from tests.planted import Affine, Function, Planted, skew

RING = GaussianMixture.ring()


def test_the_left_rule_prefers_a_rotation_to_the_truth():
    """A gradient scores a thousand times what a rotation scores; loops see it the right way
    round.
    """
    sigma = 0.1
    protocol = Protocol((sigma,), n=256)
    gradient = Affine(-torch.eye(2, dtype=torch.float64) / sigma**2)
    rotation = Affine(skew(2))
    (wrong,) = left_cycle_circulation(gradient, RING, protocol).estimates
    (right,) = left_cycle_circulation(rotation, RING, protocol).estimates
    assert wrong.value > 1e3 * right.value > 0
    (none,) = loop_circulation(gradient, RING, protocol, quantity="score").estimates
    (some,) = loop_circulation(rotation, RING, protocol, quantity="score").estimates
    assert none.value < 1e-9
    assert some.value == pytest.approx(2 * math.sqrt(2), rel=1e-9)


def test_the_left_rule_grows_with_the_sharpness_of_a_gradient():
    """C is linear in the Hessian, so that its square grows with the fourth power of 1 / sigma."""
    protocol = Protocol((0.1,), n=128)
    values = [
        left_cycle_circulation(
            Affine(-torch.eye(2, dtype=torch.float64) * c), RING, protocol
        ).estimates[0]
        for c in (1.0, 10.0)
    ]
    assert values[1].value == pytest.approx(100 * values[0].value, rel=1e-9)


def test_straight_paths_do_not_see_a_rotation_but_see_a_gradient():
    protocol = Protocol((0.5,), n=64)
    (rotation,) = path_variance(Affine(100 * skew(2)), RING, protocol).estimates
    (gradient,) = path_variance(RING, RING, protocol).estimates
    assert rotation.value < 1e-20
    assert gradient.value > 1e-3
    assert gradient.value > 3 * gradient.standard_error


def test_a_fixed_step_measures_rounding():
    """On an affine field there is nothing but rounding, which grows with 1 / h, and hides a curl
    that the exact derivative sees to four digits."""
    base = Gaussian(torch.full((2,), 4.0), 0.01)
    protocol = Protocol((0.02,), n=256)
    planted = Planted(base, skew(2), 1e-3, mu=4.0)
    (exact,) = exterior_derivative(planted, base, protocol, quantity="score").estimates
    assert exact.value == pytest.approx(2e-3 * math.sqrt(2), rel=1e-4)
    for field in (base, planted):
        (fixed,) = finite_difference_asymmetry(field, base, protocol).estimates
        assert fixed.value > 10 * exact.value
        (finer,) = finite_difference_asymmetry(field, base, protocol, step=1e-5).estimates
        assert 30 < finer.value / fixed.value < 300


def test_where_rounding_is_small_the_differences_are_right():
    """The published estimators are those that were published: unbiased where nothing hurts."""
    (e,) = finite_difference_asymmetry(
        Affine(skew(2)), RING, Protocol((1.0,), n=4000), step=1.0
    ).estimates
    assert abs(e.value - 2 * math.sqrt(2)) < 6 * e.standard_error


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: path_variance(RING, RING, p, paths=1), "paths must be an integer of at least 2"),
        (lambda p: finite_difference_asymmetry(RING, RING, p, step=0.0), "step must be positive"),
        (lambda p: left_cycle_circulation(RING, RING, p, neighbours=8), "1 to 7"),
    ],
)
def test_published_estimators_name_the_setting_that_they_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make(Protocol((1.0,), n=8))


@pytest.mark.parametrize(
    "matrix", [-4 * torch.eye(2), skew(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])]
)
def test_midpoints_are_exact_for_affine_fields(matrix):
    """However the chord is cut, its integral is the same; and a chord that is not cut has one."""
    affine = Affine(matrix.double(), mu=0.7)
    for segments in (2, 12):
        (e,) = path_variance(affine, RING, Protocol((0.5,), n=32), segments=segments).estimates
        assert e.value < 1e-24
    (whole,) = path_variance(RING, RING, Protocol((0.5,), n=32), segments=1).estimates
    assert whole.value == 0


def test_the_variance_of_two_cuts_of_a_square_by_hand():
    """For (x_1², 0) two midpoints lack e³ (u³ + (1 - u)³) / 12 of the integral along a chord e
    that is cut at u, where u³ + (1 - u)³ = 1/4 + 3 (u - 1/2)² has the variance 1/20 for a uniform
    u. The ends are at e = 0 or at e = 10, with probability 1/2.
    """

    def square(x, t, classes=None):
        return torch.stack((x[:, 0] ** 2, torch.zeros_like(x[:, 0])), dim=1)

    law = Empirical(torch.tensor([[0.0, 0.0], [10.0, 0.0]]))
    protocol = Protocol((1e-5,), n=2001)
    (found,) = path_variance(
        Function(square, sde=EDM(1e-5)), law, protocol, segments=2, pairs=2000
    ).estimates
    assert abs(found.value - 0.5 * 10**6 / 144 / 20) < 6 * found.standard_error
    assert found.standard_error < 0.05 * found.value

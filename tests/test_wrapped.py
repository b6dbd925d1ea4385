"""The wrapped normal law against its definition, at any width."""

import pytest
import torch
from mpmath import erf, exp, log, mp, mpf, pi, sqrt

from scorefield.wrapped import WrappedNormal, nonuniformity, wrapped_cdf

WIDTHS = [1e-4, 1e-3, 0.02, 0.1, 0.3, 0.3989, 0.399, 0.45, 0.8, 2.0, 10.0]
SHIFTS = [0.0, 1e-9, 1e-4, 0.03, 0.25, 0.4, 0.499, 0.49999999, 0.5]


def definition(u, s):
    """Log-density, score, curvature and cdf by the sum over images, with fifty digits."""
    with mp.workdps(50):
        u, s = mpf(u), mpf(s)
        images = range(-int(14 * s) - 9, int(14 * s) + 10)
        terms = [(u + k, exp(-((u + k) ** 2) / (2 * s**2)) / (s * sqrt(2 * pi))) for k in images]
        w = sum(p for _, p in terms)
        first = sum(-v / s**2 * p for v, p in terms) / w
        second = sum((v**2 / s**4 - 1 / s**2) * p for v, p in terms) / w
        mass = sum(erf((u + k) / (s * sqrt(2))) - erf(k / (s * sqrt(2))) for k in images) / 2
        return float(log(w)), float(first), float(second - first**2), float(mass)


@pytest.mark.parametrize("s", WIDTHS)
def test_density_score_curvature_and_cdf_against_brute_force(s):
    u = torch.tensor(SHIFTS, dtype=torch.float64)
    width = torch.full_like(u, s)
    exact = torch.tensor([definition(v, s) for v in SHIFTS], dtype=torch.float64).T
    torch.testing.assert_close(WrappedNormal(u, width).log_prob(), exact[0], rtol=1e-14, atol=1e-14)
    # Half a period from the centre the score is a difference of equals, of size u / s^2.
    bound = 1e-15 / s**2 + 1e-14 * exact[1].abs()
    assert ((WrappedNormal(u, width).score() - exact[1]).abs() <= bound).all()
    scale = s**-2 + exact[2].abs()
    assert ((WrappedNormal(u, width).curvature() - exact[2]).abs() <= 1e-14 * scale).all()
    torch.testing.assert_close(wrapped_cdf(u, width), exact[3], rtol=1e-14, atol=1e-15)


def test_the_cdf_grows_by_one_in_a_period():
    u = torch.linspace(-0.5, 0.5, 41, dtype=torch.float64)
    for s in (0.01, 0.2, 1.0):
        width = torch.full_like(u, s)
        torch.testing.assert_close(wrapped_cdf(u + 1, width), wrapped_cdf(u, width) + 1)
        torch.testing.assert_close(wrapped_cdf(-u, width), -wrapped_cdf(u, width))


@pytest.mark.parametrize("s", [1e-3, 0.1, 0.3989, 0.399, 3.0])
def test_three_derivatives_by_autograd_are_finite_and_right(s):
    """The other branch must not leak into gradients; the third is checked by a difference."""
    u = torch.tensor([0.1, 0.31, 0.47], dtype=torch.float64, requires_grad=True)
    width = torch.full((3,), s, dtype=torch.float64, requires_grad=True)
    value = WrappedNormal(u, width).log_prob()
    first, by_width = torch.autograd.grad(value.sum(), (u, width), create_graph=True)
    torch.testing.assert_close(first, WrappedNormal(u, width).score())
    assert by_width.isfinite().all()
    (second,) = torch.autograd.grad(first.sum(), u, create_graph=True)
    torch.testing.assert_close(second, WrappedNormal(u, width).curvature(), rtol=1e-9, atol=1e-9)
    (third,) = torch.autograd.grad(second.sum(), u)
    h = 1e-5 * min(s, 1.0)
    ahead, behind = (WrappedNormal(u.detach() + e, width.detach()).curvature() for e in (h, -h))
    limit = 1e-4 * (third.abs() + s**-3)
    assert ((third - (ahead - behind) / (2 * h)).abs() <= limit).all()


@pytest.mark.parametrize("s", [0.25, 0.35, 0.5, 0.8])
@pytest.mark.parametrize("dim", [1, 2])
def test_the_bound_on_the_distance_from_uniform_is_one(s, dim):
    edges = torch.linspace(0, 1, 401, dtype=torch.float64)
    mass = wrapped_cdf(edges, torch.full_like(edges, s)).diff()
    joint = mass if dim == 1 else torch.outer(mass, mass)
    distance = 0.5 * float((joint - joint.mean()).abs().sum())
    bound = nonuniformity(s, dim)
    assert distance <= bound
    assert bound <= 3 * distance  # and no empty one


def test_noise_that_fills_nothing_is_as_far_from_uniform_as_can_be():
    assert nonuniformity(1e-3, 5) == 1.0
    assert nonuniformity(2.0, 10_000) < 1e-20


@pytest.mark.parametrize("s", [0.2, 0.3, 0.5])
@pytest.mark.parametrize("dim", [1, 3])
def test_the_bound_is_half_the_mean_square_of_the_density_by_parseval(s, dim):
    u = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    square = float(WrappedNormal(u, torch.full_like(u, s)).log_prob().exp().square().mean())
    bound = min(1.0, 0.5 * (square**dim - 1) ** 0.5)
    assert nonuniformity(s, dim) == pytest.approx(bound, rel=1e-9)

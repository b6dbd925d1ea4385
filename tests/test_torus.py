"""Truths about the flat torus, and about processes that run on it."""

import math

import pytest
import torch

from scorefield import EDM, VE, VP, Cosine, NoisePrediction, PotentialField, PreconditionedField
from scorefield.calculus.circulation import circulation, find_cycles, quadrature, squared_area
from scorefield.domain import Euclidean, Torus
from scorefield.noise import Noise
from scorefield.sde.base import NormalPrior, UniformPrior
from tests.laws.cases import Wave

TORI = [Torus((), 2.0), Torus((5,)), Torus((3, 2), (1.0, 2.5))]


@pytest.fixture(params=TORI, ids=str)
def torus(request):
    return request.param


def anywhere(torus, purpose, n=200, spread=7.0):
    z = Noise(0).normal(purpose, torus.shape, torch.arange(n), dtype=torch.float64)
    return spread * z


def test_a_wrapped_point_is_in_the_box_and_the_same_point(torus):
    x = anywhere(torus, "x")
    inside, period = torus.wrap(x), torus.periods(x)
    assert bool(((inside >= 0) & (inside < period)).all())
    turns = (x - inside) / period
    torch.testing.assert_close(turns, turns.round(), rtol=0, atol=1e-12)
    assert torch.equal(torus.wrap(inside), inside)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("period", [0.1, 0.3, 0.7, 3.7, math.tau])
def test_whole_periods_and_their_neighbours_are_wrapped_into_the_box(period, dtype):
    """Also where a quotient is rounded to a whole number of turns that it does not reach."""
    torus, ends = Torus((1,), period), torch.tensor(period, dtype=dtype)
    whole = (torch.arange(-50, 51).to(dtype) * ends).unsqueeze(1)
    for x in (whole, whole.nextafter(whole - 1), whole.nextafter(whole + 1)):
        inside = torus.wrap(x)
        assert bool(((inside >= 0) & (inside < ends)).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_point_just_below_the_origin_stays_in_the_box(dtype):
    torus = Torus((4,), 1.0)
    x = torch.tensor([[-1e-30, -1e-9, 0.0, 1.0]], dtype=dtype)
    inside = torus.wrap(x)
    assert bool(((inside >= 0) & (inside < 1)).all())
    # and without any jump in the displacement
    assert float(torus.displacement(x, inside).abs().max()) <= 1e-8


def test_a_displacement_leads_there_and_is_the_shortest(torus):
    a, b = torus.wrap(anywhere(torus, "a")), torus.wrap(anywhere(torus, "b"))
    delta = torus.displacement(a, b)
    apart = torus.displacement(torus.wrap(a + delta), b)
    torch.testing.assert_close(apart, torch.zeros_like(apart), rtol=0, atol=1e-13)
    assert bool((delta.abs() <= torus.periods(a) / 2 + 1e-12).all())
    torch.testing.assert_close(torus.displacement(b, a).abs(), delta.abs(), rtol=0, atol=1e-13)


def test_the_kernel_does_not_see_whole_periods(torus):
    delta = anywhere(torus, "delta", 40, 0.4)
    sigma = torch.logspace(-1.5, 0.5, 40, dtype=torch.float64)
    around = delta + 3 * torus.periods(delta)
    torch.testing.assert_close(
        torus.kernel_log_prob(around, sigma), torus.kernel_log_prob(delta, sigma), rtol=1e-9, atol=0
    )
    torch.testing.assert_close(
        torus.kernel_score(around, sigma), torus.kernel_score(delta, sigma), rtol=1e-8, atol=1e-8
    )


def test_the_kernel_is_a_density(torus):
    """Its mean over uniform points, times the volume, is 1, to quadrature on a line of each."""
    line = Torus((), torus.period if isinstance(torus.period, float) else torus.period[-1])
    period = float(line.periods(torch.zeros(1, dtype=torch.float64)))
    for sigma in (0.05, 0.5, 3.0):
        u = torch.arange(4096, dtype=torch.float64) / 4096 * period
        p = line.kernel_log_prob(u, torch.full((1,), sigma, dtype=torch.float64)).exp()
        assert float(p.mean()) * period == pytest.approx(1, abs=1e-12)


def test_the_kernels_score_and_noise(torus):
    delta = anywhere(torus, "delta", 30, 0.6).requires_grad_()
    sigma = torch.logspace(-1, 0.5, 30, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(torus.kernel_log_prob(delta, sigma).sum(), delta)
    torch.testing.assert_close(torus.kernel_score(delta, sigma), gradient, rtol=1e-9, atol=1e-12)
    z = anywhere(torus, "z", 30, 1.0)
    wide = sigma.reshape(-1, *(1,) * len(torus.shape))
    torch.testing.assert_close(
        torus.kernel_noise(z, sigma), -wide * torus.kernel_score(wide * z, sigma)
    )
    # Noise that does not come around is the noise of flat space.
    little = torch.full((30,), 0.01, dtype=torch.float64)
    torch.testing.assert_close(torus.kernel_noise(z, little), z, rtol=1e-12, atol=1e-12)


def test_uniform_points_fill_the_box(torus):
    n = 20_000
    x = torus.uniform(Noise(1), "test", torch.arange(n), dtype=torch.float64)
    assert x.shape == (n, *torus.shape)
    share = (x / torus.periods(x)).reshape(n, -1)
    assert bool(((share >= 0) & (share < 1)).all())
    # Six standard errors of the mean of a uniform.
    assert float((share.mean(dim=0) - 0.5).abs().max()) < 6 / math.sqrt(12 * n)


def test_embedded_points_are_near_where_they_are_near():
    torus = Torus((2,), (1.0, 3.0))
    a = torch.tensor([[0.999, 2.998]], dtype=torch.float64)
    b = torch.tensor([[0.002, 0.001]], dtype=torch.float64)
    apart = float((torus.embed(a) - torus.embed(b)).norm())
    assert apart == pytest.approx(float(torus.displacement(a, b).norm()), rel=1e-4)


def test_small_loops_across_the_border_unroll_and_large_ones_do_not_close():
    torus = Torus((2,))
    small = torch.tensor([[[0.95, 0.95], [0.05, 0.95], [0.05, 0.05]]], dtype=torch.float64)
    flat, closes = torus.unroll(small)
    assert bool(closes)
    assert float(squared_area(flat)) == pytest.approx((0.1 * 0.1 / 2) ** 2)
    around = torch.tensor([[[0.1, 0.5], [0.4, 0.5], [0.8, 0.5]]], dtype=torch.float64)
    assert not bool(torus.unroll(around)[1])


def test_cycles_of_a_graph_are_borders_of_something():
    """A constant field has circulation around the torus, and none around cycles in it."""
    torus, n = Torus((2,)), 12
    grid = torch.linspace(0, 1, n + 1, dtype=torch.float64)[:-1]
    points = torch.stack((grid, torch.full_like(grid, 0.5)), dim=1)
    # Each of the points on a ring around the torus has its neighbour at four steps.
    ring = (torch.arange(n).unsqueeze(1) + torch.tensor([4])) % n
    draws = Noise(0).uniform("walk", (3,), torch.arange(64), dtype=torch.float64)
    assert len(find_cycles(points, ring, draws, torus)) == 0
    assert len(find_cycles(points, ring, draws, Euclidean((2,)))) > 0


def test_loops_larger_than_the_torus_have_their_own_area():
    torus = Torus((2,))
    square = torch.tensor([[[0.0, 0.0], [1.5, 0.0], [1.5, 1.5], [0.0, 1.5]]], dtype=torch.float64)
    assert float(squared_area(square)) == pytest.approx(1.5**4)

    def shear(x, t):
        """A periodic field whose curl is -2 pi cos 2 pi y."""
        wave = torch.sin(math.tau * x[:, 1])
        return torch.stack((wave, torch.zeros_like(wave)), dim=1)

    turn = circulation(shear, square, torch.zeros(1), quadrature("gauss-20"), torus)
    torch.testing.assert_close(turn, torch.zeros(1, dtype=torch.float64), atol=1e-8, rtol=0)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, (1.0, 0.0)])
def test_periods_are_positive(bad):
    with pytest.raises(ValueError, match="period of a torus must be positive"):
        Torus((3, 2), bad)


@pytest.mark.parametrize("shape", [(), (2, 3)], ids=str)
def test_there_are_as_many_periods_as_the_last_axis_is_long(shape):
    with pytest.raises(ValueError, match="2 periods do not fit"):
        Torus(shape, (1.0, 2.0))


def test_the_prior_is_uniform_once_noise_has_filled_the_torus():
    torus = Torus((2, 1), 2.0)
    prior = VE(0.001, 1.0).prior(torus)
    assert prior == UniformPrior(torus)
    x = prior.sample(Noise(0), torch.arange(8))
    torch.testing.assert_close(prior.log_prob(x), torch.full((8,), -2 * math.log(2.0)))
    assert isinstance(VE().prior(Euclidean((2,))), NormalPrior)


def test_too_little_noise_for_a_uniform_start_says_how_much_is_enough():
    torus = Torus((2, 1))
    with pytest.raises(
        ValueError, match=r"sigma_max=0.2 does not fill .* sigma_max of (0\.\d+)"
    ) as e:
        VE(0.001, 0.2).prior(torus)
    enough = float(str(e.value).split("sigma_max of ")[1].split()[0])
    assert torus.nonuniformity(enough) <= 0.01 < torus.nonuniformity(0.95 * enough)
    VE(0.001, enough).prior(torus)


def test_what_is_not_periodic_is_no_field_on_a_torus():
    torus, noise = Torus((2,)), NoisePrediction()
    with pytest.raises(ValueError, match="EDMScaling adds"):
        PreconditionedField(Wave((2,)), VE(), sigma_data=0.3, domain=torus)
    for head in ("inner", "denoising"):
        with pytest.raises(ValueError, match="not periodic; take 'sum'"):
            PotentialField(Wave((2,)), VE(), None, noise, torus, head=head)


@pytest.mark.parametrize("sde", [VP(), Cosine()], ids=lambda s: type(s).__name__)
def test_a_process_that_shrinks_the_data_does_not_run_on_a_torus(sde):
    torus = Torus((2,))
    with pytest.raises(ValueError, match="shrinks the data"):
        PreconditionedField(Wave((2,)), sde, parametrization=NoisePrediction(), domain=torus)
    with pytest.raises(ValueError, match="shrinks the data"):
        sde.prior(torus)
    for keeps in (VE(), EDM()):
        PreconditionedField(Wave((2,)), keeps, parametrization=NoisePrediction(), domain=torus)

"""Markov kernels leave known distributions as they are, and annealed chains arrive at them."""

import math

import pytest
import torch
from scipy import stats
from torch.special import ndtr

from scorefield import (
    EDM,
    HMC,
    MALA,
    ULA,
    VE,
    AcceptanceRates,
    AnnealedLangevin,
    AnnealedMCMC,
    Gaussian,
    GaussianMixture,
    Heun,
    PseudoAtoms,
    StepContext,
    negation,
    product,
    tempered,
)
from scorefield.errors import UserError
from scorefield.noise import Noise
from scorefield.samplers.kernels import Density
from tests.laws.cases import normal
from tests.planted import Affine, Function, Watched, skew

CHANCE = 1e-7
"""Of each test, to fail where all is well."""
EYE = torch.eye(2, dtype=torch.float64)
PLANE = GaussianMixture(
    [[1.0, 0.5], [-1.2, 0.3], [0.2, -0.9]],
    stds=[0.3, 0.5, 0.4],
    weights=[0.5, 0.3, 0.2],
    sde=EDM(0.01, 20.0),
)
ATOMS = PseudoAtoms([[0.25], [0.75]], std=0.05, sde=VE(0.001, 0.5))
ADJUSTED = [MALA(1.2, width=0.3), HMC(0.9, width=0.3, leaps=3)]


def time(field, level):
    return float(field.sde.time(torch.tensor(level, dtype=torch.float64)))


def points(field, level, n=4000):
    """Points of a target at a level."""
    return field.sample(n, 3, torch.float64, t=time(field, level))


def moved(field, kernel, x, level, moves, seed=1):
    """The states after moves at a level."""
    t = time(field, level)
    at = StepContext(Noise(seed), torch.arange(len(x)))
    return AnnealedMCMC(1, kernel, moves).step(field, x, t, None, at).x


def p_value(values, cdf, edges):
    """Of Pearson's test that values between edges are as many as a distribution has there."""
    ends = torch.tensor([-math.inf, *edges, math.inf], dtype=torch.float64)
    expected = len(values) * cdf(ends).diff()
    counts = torch.histogram(values, ends.clamp(-1e9, 1e9)).hist
    assert expected.min() > 25
    return stats.chi2.sf(float(((counts - expected) ** 2 / expected).sum()), len(expected) - 1)


def of_plane(x, level):
    """The least p-value over projections of the plane, on which the mixture is one of normals."""
    std = (PLANE.components.variances[:, 0] + level**2).sqrt()
    found = []
    for angle in (0.0, 0.6, math.pi / 2, 2.4):
        direction = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        centre = PLANE.means @ direction

        def cdf(u, centre=centre):
            return (PLANE.weights * ndtr((u[:, None] - centre) / std)).sum(dim=1)

        found.append(p_value(x @ direction, cdf, torch.linspace(-1.2, 1.2, 15).tolist()))
    return min(found)


def of_atoms(x, level):
    """The same for one atom of two, and for the difference of both, around the circle."""
    turns = torch.arange(-6, 7, dtype=torch.float64)

    def wrapped(centres, std):
        def cdf(u):
            places = torch.tensor(centres, dtype=torch.float64)[:, None] + turns
            ends = u.clamp(0, 1).reshape(-1, 1, 1)
            return (ndtr((ends - places) / std) - ndtr(-places / std)).sum(dim=2).mean(dim=1)

        return cdf

    std = math.hypot(0.05, level)
    edges = torch.linspace(0.15, 0.85, 15).tolist()
    between = torch.remainder(x[:, 0, 0] - x[:, 1, 0], 1.0)
    return min(
        p_value(x[:, 0, 0], wrapped([0.25, 0.75], std), edges),
        p_value(between, wrapped([0.5], math.sqrt(2) * std), edges),
    )


@pytest.mark.parametrize("known", [True, False], ids=["potential", "line integral"])
@pytest.mark.parametrize("kernel", ADJUSTED, ids=lambda k: type(k).__name__)
class TestStationarity:
    """Chains that start in the distribution stay in it, at steps that are often rejected."""

    def test_on_a_mixture_in_the_plane(self, kernel, known):
        start = points(PLANE, 0.2)
        x = moved(PLANE if known else Watched(PLANE), kernel, start, 0.2, moves=5)
        assert of_plane(x, 0.2) > CHANCE
        assert (x - start).norm(dim=1).median() > 0.1

    def test_on_the_torus(self, kernel, known):
        kernel = type(kernel)(kernel.size, width=0.05)
        start = points(ATOMS, 0.1)
        x = moved(ATOMS if known else Watched(ATOMS), kernel, start, 0.1, moves=5)
        assert ((x >= 0) & (x < 1)).all()
        assert of_atoms(x, 0.1) > CHANCE


def test_the_same_steps_without_rejection_are_seen():
    for field, judge, level, width in ((PLANE, of_plane, 0.2, 0.3), (ATOMS, of_atoms, 0.1, 0.05)):
        start = points(field, level)
        assert judge(moved(field, ULA(1.2, width), start, level, moves=8), level) < CHANCE


def test_short_unadjusted_steps_stay_near_the_distribution():
    start = points(PLANE, 0.2)
    assert of_plane(moved(PLANE, ULA(0.1, 0.3), start, 0.2, moves=20), 0.2) > CHANCE
    start = points(ATOMS, 0.1)
    assert of_atoms(moved(ATOMS, ULA(0.1, 0.05), start, 0.1, moves=20), 0.1) > CHANCE


def test_unadjusted_steps_have_the_variance_of_their_own():
    """On a normal distribution they are an autoregression, of variance v / (1 - h² / 4v)."""
    n, level, std = 20_000, 0.3, 0.4
    v, kernel = std**2 + level**2, ULA(1.0, std)
    truth = Gaussian([0.0], std=std, sde=EDM(0.01, 20.0))
    x = moved(truth, kernel, truth.sample(n, 0, torch.float64, t=level), level, moves=30)
    ratio = float(x.square().sum()) / (v / (1 - 1 / 4))
    low, high = stats.chi2.ppf([CHANCE / 2, 1 - CHANCE / 2], n)
    assert low < ratio < high


def test_an_unadjusted_step_is_that_of_annealed_langevin():
    x, z, t = normal((5, 2), "x"), normal((5, 2), "z"), 0.3
    density = Density(PLANE, t)
    found = ULA(0.4).propose(density, ULA(0.4).begin(density, x), z, 0.4 * t).end.x
    corrector = AnnealedLangevin(snr=0.2)
    expected = corrector.correct(PLANE, x, t, 2 * (0.2 * t) ** 2, lambda k: z).x
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("field", [PLANE, Watched(PLANE)], ids=["potential", "line integral"])
def test_langevin_steps_are_in_detailed_balance(field):
    """The ratio is p(y) q(x | y) / p(x) q(y | x), with the normal density q of a step."""
    t, h, kernel = 0.2, 0.3, MALA()
    x, z = PLANE.sample(40, 0, torch.float64, t=t), normal((40, 2), "z")
    density = Density(field, t)
    proposal = kernel.propose(density, kernel.begin(density, x), z, h)
    y = proposal.end.x

    def step(a, b):
        return -(b - a - h**2 / 2 * PLANE.score(a, t)).square().sum(dim=1) / (2 * h**2)

    expected = PLANE.potential(y, t) + step(y, x) - PLANE.potential(x, t) - step(x, y)
    tolerance = 1e-9 if field is PLANE else 1e-3
    torch.testing.assert_close(proposal.log_ratio, expected, rtol=0, atol=tolerance)


TURNING = Function(lambda x, t: PLANE.score(x, t) + x @ skew(2).T)


@pytest.mark.parametrize("field", [PLANE, TURNING, ATOMS], ids=["potential", "curl", "torus"])
@pytest.mark.parametrize("kernel", [MALA(), HMC(leaps=5)], ids=lambda k: type(k).__name__)
def test_a_path_reversed_leads_back_at_the_opposite_ratio(field, kernel):
    t, domain = 0.2, field.domain
    target = ATOMS if field is ATOMS else PLANE
    x, density = target.sample(20, 0, torch.float64, t=t), Density(field, t)
    z = normal((20, *domain.shape), "z")
    there = kernel.propose(density, kernel.begin(density, x), z, 0.1)
    back = kernel.propose(density, there.end, -there.momentum, 0.1)
    torch.testing.assert_close(back.end.x, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(back.momentum, -z, rtol=0, atol=1e-10)
    torch.testing.assert_close(back.log_ratio, -there.log_ratio, rtol=0, atol=1e-10)
    assert there.log_ratio.abs().max() > 1e-4


def test_line_integrals_of_an_affine_field_are_those_of_its_middle():
    matrix = normal((2, 2), "matrix")
    field, a, b = Affine(matrix), normal((6, 2), "a"), normal((6, 2), "b")
    expected = (field.score((a + b) / 2, 1.0) * (b - a)).sum(dim=1)
    torch.testing.assert_close(Density(field, 1.0).along(a, b), expected)


@pytest.mark.parametrize("beta", [3.0, 0.5])
def test_a_tempered_normal_has_its_variance_and_the_flow_another(beta):
    n, std, end = 4000, 0.5, 0.05
    truth = Gaussian([0.0], std=std, sde=EDM(end, 5.0))
    field = tempered(truth, beta)
    sampler = AnnealedMCMC(10, HMC(0.8 / beta**0.5, std, leaps=3), moves=6)
    x = sampler.sample(field, n, dtype=torch.float64)
    v = std**2 + end**2
    low, high = stats.chi2.ppf([CHANCE / 2, 1 - CHANCE / 2], n)
    assert low < float(x.square().sum()) * beta / v < high
    # The flow multiplies by (v / v_max)^(β / 2) what starts at the width of the prior.
    y = Heun(60).sample(field, n, dtype=torch.float64)
    denoised = 1 - beta * end**2 / v
    flow = 5.0 * (v / (std**2 + 25.0)) ** (beta / 2) * denoised
    assert float(y.square().mean().sqrt()) == pytest.approx(flow, rel=0.08)
    assert not 0.8 < flow / (std / beta**0.5) < 1.25


def test_a_negated_normal_has_its_mean_and_variance():
    n, end, strength = 4000, 0.05, 0.8
    sde = EDM(end, 5.0)
    one, other = Gaussian([0.3], std=0.4, sde=sde), Gaussian([-0.5], std=0.8, sde=sde)
    v, w = 0.4**2 + end**2, 0.8**2 + end**2
    precision = 1 / v - strength / w
    mean = (0.3 / v + strength * 0.5 / w) / precision
    sampler = AnnealedMCMC(10, HMC(0.8, 0.4, leaps=3), moves=8, t_end=end)
    x = sampler.sample(negation(one, other, strength), n, dtype=torch.float64)
    scaled = (x - mean) * precision**0.5
    assert abs(float(scaled.mean())) * n**0.5 < -stats.norm.ppf(CHANCE / 2)
    low, high = stats.chi2.ppf([CHANCE / 2, 1 - CHANCE / 2], n)
    assert low < float(scaled.square().sum()) < high


END = 0.05
ONE = GaussianMixture([[1.5, 0.0], [-1.5, 0.2]], stds=0.6, weights=[0.3, 0.7], sde=EDM(END, 5.0))
OTHER = GaussianMixture([[0.3, 1.5], [-0.2, -1.5]], stds=0.7, weights=[0.6, 0.4], sde=EDM(END, 5.0))


def quadrants(x):
    """How many points are in each quadrant."""
    return torch.bincount(2 * (x[:, 0] > 0).long() + (x[:, 1] > 0).long(), minlength=4)


def exact_quadrants():
    """Their probabilities for the product, which is a mixture of four normals."""
    v, w = 0.6**2 + END**2, 0.7**2 + END**2
    m, n = ONE.means[:, None], OTHER.means[None]
    logs = ONE.weights[:, None].log() + OTHER.weights.log()
    logs = logs - (m - n).square().sum(dim=2) / (2 * (v + w))
    centre = ((m * w + n * v) / (v + w)).reshape(4, 2)
    right, above = ndtr(centre / (v * w / (v + w)) ** 0.5).T
    each = torch.stack([(1 - right) * (1 - above), (1 - right) * above, right * (1 - above),
                        right * above])  # fmt: skip
    return each @ logs.reshape(4).softmax(dim=0)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [MALA(0.9, 0.45), HMC(0.6, 0.45, leaps=3)], ids=type)
def test_a_product_of_mixtures_is_sampled_with_its_weights(kernel):
    """At a size that sees one hundredth of the mass in a wrong quadrant."""
    n, exact = 100_000, exact_quadrants()
    moves = 40 if isinstance(kernel, MALA) else 15
    sampler = AnnealedMCMC(6, kernel, moves)
    counts = quadrants(sampler.sample(product(ONE, OTHER), n, dtype=torch.float64, seed=2))
    for count, p in zip(counts.tolist(), exact.tolist(), strict=True):
        low, high = stats.binom.ppf([CHANCE / 8, 1 - CHANCE / 8], n, p)
        assert low <= count <= high
        assert high - low < 2 * 0.01 * n


def test_the_flow_of_the_summed_scores_misses_the_product():
    n, exact = 4000, exact_quadrants()
    counts = quadrants(Heun(40).sample(product(ONE, OTHER), n, dtype=torch.float64))
    wrong = 0.5 * float((counts / n - exact).abs().sum())
    # Twice the total variation of the quadrants is within 0.11 of the truth but once in 10^7.
    assert wrong > 0.1


def test_line_integrals_and_potentials_accept_the_same_moves():
    sampler = AnnealedMCMC(6, HMC(0.6, 0.45, leaps=3), moves=4)
    both = product(ONE, OTHER)
    x, y = (sampler.sample(f, 400, dtype=torch.float64) for f in (both, Watched(both)))
    same = torch.isclose(x, y, rtol=0, atol=1e-9).all(dim=1).double().mean()
    assert same > 0.98


@pytest.mark.parametrize("known", [True, False], ids=["potential", "line integral"])
@pytest.mark.parametrize("kernel", [ULA(0.3), MALA(0.5), HMC(0.5, leaps=3)], ids=type)
def test_calls_and_rates_are_reported_by_level(kernel, known):
    class Counted(Watched):
        """It keeps evaluations of the potential too, where it has one."""

        has_potential = known

        def potential(self, x, t, classes=None):
            self.points.append(x)
            return self.field.potential(x, t)

    watched, rates, states = Counted(PLANE), AcceptanceRates(), []
    sampler = AnnealedMCMC(4, kernel, moves=3)

    def callback(state):
        rates(state)
        states.append(state)

    sampler.sample(watched, 10, batch_size=5, callback=callback)
    assert len(watched.points) == 2 * states[-1].nfe
    assert list(rates.levels) == [s.sigma for s in states[:4]]
    assert all(rate.n == 10 and 0 < rate.value <= 1 for rate in rates.levels.values())
    if isinstance(kernel, ULA):
        assert {rate.value for rate in rates.levels.values()} == {1.0}
        assert states[-1].nfe == 4 * (1 + 3)
    assert "sigma" in repr(rates)


def test_the_path_gap_of_a_rotation_is_its_circulation_and_none_of_a_gradient():
    """Around a triangle of area |e|²/4; the chord is e = h p + h² s(x) / 2, with the momentum p."""
    turn, n, h = 0.4, 500, 0.3
    rates, none, states = AcceptanceRates(), AcceptanceRates(), []

    def callback(state):
        rates(state)
        states.append(state)

    sde = EDM(0.2, 1.0)
    turning = Affine(turn * skew(2) - EYE, sde=sde)
    AnnealedMCMC(2, MALA(h), 2).sample(turning, n, dtype=torch.float64, callback=callback)
    for state, (sigma, gap) in zip(states, rates.path_gaps.items(), strict=True):
        step = h * sigma
        push = (1 + turn**2) * float(state.x.square().sum(dim=1).mean())
        expected = 2 * turn / 4 * (2 * step**2 + step**4 / 4 * push)
        assert abs(gap.value - expected) < 6 * gap.standard_error < 0.3 * expected
        assert gap.unit == "nats"
    total = rates.path_gap
    assert total.value == pytest.approx(sum(g.value for g in rates.path_gaps.values()) / 2)
    assert f"path gap {gap}" in repr(rates)
    straight = Affine(torch.tensor([[-1.0, 0.3], [0.3, -2.0]], dtype=torch.float64), sde=sde)
    AnnealedMCMC(3, HMC(h, leaps=3), 2).sample(straight, n, dtype=torch.float64, callback=none)
    assert none.path_gap.value < 1e-13
    AnnealedMCMC(1, MALA(h), 2).sample(turning, 5, dtype=torch.float64, callback=rates)
    with pytest.raises(UserError, match="over levels that all samples have passed"):
        _ = rates.path_gap


@pytest.mark.parametrize(("field", "kernel"), [(PLANE, MALA()), (Watched(PLANE), ULA())])
def test_moves_that_no_line_integral_accepts_have_no_path_gap(field, kernel):
    rates = AcceptanceRates()
    AnnealedMCMC(2, kernel, 1).sample(field, 4, callback=rates)
    assert rates.path_gap is None
    assert rates.path_gaps == {}


def test_too_long_steps_are_seen_by_their_rate():
    """Of a normal distribution in 40 coordinates, too long steps are hardly ever accepted."""
    truth = Gaussian(torch.zeros(40), std=1.0, sde=EDM(0.5, 5.0))
    short, long = AcceptanceRates(), AcceptanceRates()
    for rates, size in ((short, 0.3), (long, 1.8)):
        AnnealedMCMC(3, MALA(size, 1.0), moves=4).sample(truth, 200, callback=rates)
    # Where the chains start, they are in the distribution already.
    first = max(short.levels)
    assert short.levels[first].value > 0.9
    assert long.levels[first].value < 0.01


def test_a_field_that_is_not_finite_is_named():
    def score(x, t):
        return torch.where(x > 0, math.nan, -x)

    with pytest.raises(FloatingPointError, match="stopped being finite in step 1 of 2"):
        AnnealedMCMC(2, MALA()).sample(Function(score), 8)


def test_mistakes_are_one_sentence():
    for wrong, match in (
        (lambda: MALA(0.0), "MALA: size must be positive"),
        (lambda: HMC(width=-1.0), "HMC: width must be at least 0"),
        (lambda: HMC(leaps=0), "HMC: leaps must be a positive integer"),
        (lambda: AnnealedMCMC(0), "steps must be a positive integer"),
        (lambda: AnnealedMCMC(4, moves=0), "AnnealedMCMC: moves must be a positive integer"),
        (lambda: AnnealedMCMC.for_nfe(100), "depend on the field, not on a budget"),
    ):
        with pytest.raises(ValueError, match=match):
            wrong()
    with pytest.raises(ValueError, match="draws 'momentum' noise"):
        AnnealedMCMC(4).step(PLANE, torch.zeros(2, 2), 1.0, None)

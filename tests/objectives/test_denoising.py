import math

import pytest
import torch
from scipy import stats

from scorefield import (
    EDM,
    VE,
    VP,
    Cosine,
    DenoisingScoreMatching,
    DiscreteVP,
    Gaussian,
    GaussianMixture,
    LogNormal,
    LogUniform,
    UniformTime,
)
from scorefield.noise import Noise
from scorefield.objectives.denoising import Batch, TableLaw
from tests.planted import Drifting, Function

LAWS = [LogNormal(-1.2, 1.2), LogNormal(3.0, 2.0), LogUniform(), UniformTime()]


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("sde", [EDM(0.01, 40.0), VP(), Cosine()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("upper", [None, 0.5])
def test_times_follow_the_law_restricted_to_its_range(law, sde, upper):
    """Kolmogorov-Smirnov with 20,000 draws; p below 1e-6 fails."""
    t = law.times(sde, Noise(0), torch.arange(20_000), upper=upper)
    high = sde.sigma_max if upper is None else upper
    level = sde.noise_level(t).numpy()
    assert level.min() >= sde.level_range[0] * (1 - 1e-9)
    assert level.max() <= high * (1 + 1e-9)
    if isinstance(law, LogNormal):
        ends = [(math.log(e) - law.mean) / law.std for e in (sde.level_range[0], high)]
        reference = stats.truncnorm(*ends, loc=law.mean, scale=law.std)
        p = stats.kstest(torch.from_numpy(level).log().numpy(), reference.cdf).pvalue
    elif isinstance(law, LogUniform):
        low = math.log(sde.level_range[0])
        uniform = stats.uniform(low, math.log(high) - low)
        p = stats.kstest(torch.from_numpy(level).log().numpy(), uniform.cdf).pvalue
    else:
        last = float(sde.time(torch.tensor(high, dtype=torch.float64)))
        p = stats.kstest(t.numpy(), stats.uniform(sde.t_min, last - sde.t_min).cdf).pvalue
    assert p > 1e-6


def test_the_ends_of_the_range_hold_no_atoms():
    t = LogNormal(0.0, 3.0).times(EDM(0.1, 10.0), Noise(0), torch.arange(5000))
    assert len(t.unique()) == 5000


@pytest.mark.parametrize("weighting", ["edm", "score", "likelihood", "velocity"])
@pytest.mark.parametrize("sde", [EDM(0.01, 40.0), VP()], ids=["edm", "vp"])
def test_the_excess_loss_is_the_weighted_squared_error(weighting, sde):
    """Vincent (2011): L(s) - L(truth) = E w |eps - eps_true|^2 / D. The cross term has mean
    zero, so the difference over common draws is compared within six standard errors."""
    truth = GaussianMixture.ring(sde=sde)
    loss = DenoisingScoreMatching(weighting, LogNormal(0.0, 1.0), truth.std)
    index = torch.arange(60_000)
    noise = Noise(0)
    t, z = loss.draw(truth, noise, index, 0)
    batch = Batch(truth.draw(noise, index, dtype=torch.float64), t.double(), z.double())
    excess = loss(Drifting(truth, 0.3), batch) - loss(truth, batch)
    expected = 0.09 * loss.weight(sde, batch.t)
    difference = excess - expected
    assert abs(difference.mean()) < 6 * difference.std() / math.sqrt(len(index))
    assert float(difference.std()) > 0


def test_the_weights_in_their_customary_forms():
    sde = VP()
    truth = Gaussian(torch.zeros(3), 0.7, sde=sde)
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    x = truth.sample(7, seed=0, dtype=torch.float64)
    z = Noise(1).normal("z", (3,), torch.arange(7), dtype=torch.float64)
    x_t = sde.perturb(x, t, z)
    level, sigma, g2 = sde.noise_level(t), sde.sigma(t), sde.diffusion_squared(t)
    denoiser = (truth.denoise(x_t, t) - x).square().mean(dim=1)
    score = (truth.score(x_t, t) + z / sigma.unsqueeze(1)).square().mean(dim=1)
    velocity = sde.alpha_dot(t)[:, None] * x + sde.sigma_dot(t)[:, None] * z
    expected = {
        "edm": (level**2 + 0.49) / (level * 0.7) ** 2 * denoiser,
        "score": sigma**2 * score,
        "likelihood": g2 * score,
        "velocity": (truth.velocity(x_t, t) - velocity).square().mean(dim=1),
    }
    for weighting, value in expected.items():
        loss = DenoisingScoreMatching(weighting, sigma_data=0.7)(truth, Batch(x, t, z))
        torch.testing.assert_close(loss, value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 3)], ids=str)
def test_predicting_no_noise_costs_the_variance_of_the_noise(shape):
    field = Function(lambda x, t: torch.zeros_like(x), shape)
    z = Noise(0).normal("z", shape, torch.arange(10), dtype=torch.float64)
    loss = DenoisingScoreMatching("score")(
        field, Batch(torch.ones_like(z), torch.ones(10, dtype=torch.float64), z)
    )
    torch.testing.assert_close(loss, z.square().reshape(10, -1).mean(dim=1))


@pytest.mark.parametrize(
    "sde", [VE(0.01, 50.0), DiscreteVP(levels=20, beta_max=10.0)], ids=lambda s: type(s).__name__
)
def test_the_times_of_a_table_come_equally_often(sde):
    """Chi-squared over 20 levels with 20,000 draws; p below 1e-6 fails."""
    t = TableLaw(20).times(sde, Noise(0), torch.arange(20_000))
    place = (t * 19).round()
    torch.testing.assert_close(t, place / 19, rtol=1e-15, atol=0)
    counts = place.long().bincount(minlength=20)
    assert len(counts) == 20
    assert stats.chisquare(counts.numpy()).pvalue > 1e-6


def test_the_times_of_a_table_between_noise_levels():
    sde = VE(0.01, 100.0)
    ends = (sde.noise_level(torch.tensor([3, 7], dtype=torch.float64) / 9)).tolist()
    t = TableLaw(10).times(sde, Noise(0), torch.arange(1000), lower=ends[0], upper=ends[1])
    assert (t * 9).round().unique().tolist() == [3, 4, 5, 6, 7]
    with pytest.raises(ValueError, match="none of the 10 levels lies between"):
        TableLaw(10).times(sde, Noise(0), torch.arange(9), lower=1.01 * ends[0], upper=0.3)
    # Also where twelve digits of the ends are written.
    low, high = ends[0] * (1 + 5e-13), ends[1] * (1 - 5e-13)
    t = TableLaw(10).times(sde, Noise(0), torch.arange(1000), lower=low, upper=high)
    assert (t * 9).round().unique().tolist() == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_times_begin_where_the_process_does(law):
    for sde in (VE(t_min=0.25), VP(t_min=0.25)):
        t = law.times(sde, Noise(0), torch.arange(20_000))
        assert float(t.min()) >= 0.25 * (1 - 1e-9)
    if isinstance(law, UniformTime):
        assert stats.kstest(t.numpy(), stats.uniform(0.25, 0.75).cdf).pvalue > 1e-6


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 3)], ids=str)
@pytest.mark.parametrize("weighting", ["edm", "score", "likelihood"])
def test_half_the_sum_is_half_the_dimension_times_the_mean(shape, weighting):
    truth = Gaussian(torch.zeros(shape), 0.7, sde=VP())
    noise, index = Noise(0), torch.arange(6)
    means = DenoisingScoreMatching(weighting, UniformTime(), 0.7)
    sums = DenoisingScoreMatching(weighting, UniformTime(), 0.7, reduction="half_sum")
    t, z = means.draw(truth, noise, index, 0)
    batch = Batch(truth.draw(noise, index), t, z)
    dim = math.prod(shape)
    torch.testing.assert_close(sums(truth, batch), dim / 2 * means(truth, batch))


def test_draws_of_many_steps_are_those_of_each_step():
    loss = DenoisingScoreMatching("score")
    field = Gaussian(torch.zeros(2), 1.0)
    index, noise = torch.arange(5), Noise(3)
    together = loss.draw(field, noise, index, torch.arange(7).unsqueeze(1))
    for step in range(7):
        t, z = loss.draw(field, noise, index, step)
        assert torch.equal(together[1][step], z)
        torch.testing.assert_close(together[0][step], t, rtol=1e-6, atol=0)


def test_score_matching_names_the_setting_that_it_refuses(unchecked):
    with pytest.raises(ValueError, match="'dsm'"):
        DenoisingScoreMatching("dsm")
    with pytest.raises(ValueError, match="sigma_data"):
        DenoisingScoreMatching("edm")
    with pytest.raises(ValueError, match="reduction is mean or half_sum, not 'sum'"):
        DenoisingScoreMatching("score", reduction="sum")
    with pytest.raises(ValueError, match=r"likelihood.* discrete .*TableLaw"):
        DenoisingScoreMatching("likelihood", TableLaw(10))
    with pytest.raises(ValueError, match="levels must be an integer of at least 2"):
        TableLaw(1)
    u = torch.tensor([0.5])
    with pytest.raises(ValueError, match="t_min=1e-05 of VP"):
        TableLaw(30).quantile(VP(), u, 0.1, 1.0)
    with pytest.raises(ValueError, match="levels=30, but the process has 40"):
        TableLaw(30).quantile(DiscreteVP(levels=40), u, 0.1, 1.0)
    with pytest.raises(ValueError, match="std"):
        LogNormal(0.0, 0.0)

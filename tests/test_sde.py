"""Closed forms of the single processes; what all of them share is in laws/test_sdes.py."""

import math

import pytest
import torch

from scorefield import EDM, SDE, VE, VP, Cosine, DiscreteVP, SubVP
from scorefield.domain import Euclidean
from scorefield.noise import Noise

TIMES = torch.linspace(0.001, 0.999, 200, dtype=torch.float64)


def test_vp_diffuses_at_the_rate_beta():
    sde = VP(0.2, 15.0)
    torch.testing.assert_close(sde.diffusion_squared(TIMES), sde.beta(TIMES), rtol=1e-12, atol=0)
    torch.testing.assert_close(sde.drift(TIMES), -sde.beta(TIMES) / 2, rtol=1e-13, atol=0)
    one = sde.alpha(TIMES) ** 2 + sde.sigma(TIMES) ** 2
    torch.testing.assert_close(one, torch.ones_like(one), rtol=1e-14, atol=0)


def test_sub_vp_diffuses_less_than_vp():
    """g² = β (1 − e^{−2B}), Song et al. (2021), equation 12."""
    sub, vp = SubVP(0.2, 15.0), VP(0.2, 15.0)
    expected = sub.beta(TIMES) * -torch.expm1(-2 * sub.beta_integral(TIMES))
    torch.testing.assert_close(sub.diffusion_squared(TIMES), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(sub.sigma(TIMES), vp.sigma(TIMES) ** 2, rtol=1e-13, atol=0)
    assert (sub.diffusion_squared(TIMES) < vp.diffusion_squared(TIMES)).all()


def test_the_integral_of_beta_is_its_integral():
    sde, t = VP(0.2, 15.0), TIMES.clone().requires_grad_()
    (rate,) = torch.autograd.grad(sde.beta_integral(t).sum(), t)
    torch.testing.assert_close(rate, sde.beta(TIMES))
    assert float(sde.beta_integral(torch.zeros(()))) == 0


def test_ve_grows_geometrically():
    """g = σ √(2 ln(σ_max/σ_min)), Song et al. (2021), equation 9."""
    sde = VE(0.02, 30.0)
    expected = sde.sigma(TIMES) * math.sqrt(2 * math.log(30.0 / 0.02))
    torch.testing.assert_close(sde.diffusion(TIMES), expected)
    assert (sde.sigma_min, sde.sigma_max) == (0.02, 30.0)
    assert torch.equal(sde.drift(TIMES), torch.zeros_like(TIMES))


def test_edm_has_time_equal_to_noise_level():
    sde, t = EDM(0.01, 9.0), TIMES
    assert torch.equal(sde.noise_level(t), t)
    assert torch.equal(sde.time(t), t)
    torch.testing.assert_close(sde.diffusion_squared(t), 2 * t)


def test_cosine_is_the_schedule_of_nichol_and_dhariwal():
    """ᾱ(t) = f(t)/f(0) with f(t) = cos²((t + s)/(1 + s) π/2), equation 17."""
    sde = Cosine()
    f = [math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2 for t in TIMES.tolist()]
    f0 = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    expected = torch.tensor(f, dtype=torch.float64) / f0
    torch.testing.assert_close(sde.alpha(TIMES) ** 2, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(sde.sigma(TIMES) ** 2, 1 - expected, rtol=1e-10, atol=0)


def test_cosine_with_a_margin_and_no_offset_ends_at_time_one():
    """1 - cos²(π t / 2 (1 + m)), and so no noise at time 0."""
    sde = Cosine(offset=0.0, margin=0.008, t_min=1e-3, t_max=1.0)
    t = torch.linspace(0, 1, 50, dtype=torch.float64)
    angle = 0.5 * math.pi * t / 1.008
    torch.testing.assert_close(sde.sigma(t) ** 2, 1 - angle.cos() ** 2, rtol=0, atol=1e-15)
    torch.testing.assert_close(sde.alpha(t), angle.cos(), rtol=1e-13, atol=0)
    torch.testing.assert_close(sde.time(sde.noise_level(t)), t, rtol=1e-14, atol=0)
    assert Cosine(margin=0.008).sigma_max == Cosine().sigma_max


@pytest.mark.parametrize(
    "sde",
    [VP(), SubVP(), Cosine(), Cosine(offset=0.0, margin=0.008)],
    ids=["VP", "SubVP", "Cosine", "Cosine-margin"],
)
def test_small_times_keep_their_digits_in_float32(sde):
    """1 − e^{−B} and 1 − cos² lose every digit at small times unless they are rewritten."""
    t = torch.logspace(-7, -2, 60, dtype=torch.float64)
    for f in (sde.sigma, sde.noise_level, sde.sigma_dot, sde.diffusion_squared):
        torch.testing.assert_close(f(t.float()).double(), f(t), rtol=3e-6, atol=0)
    levels = sde.noise_level(t)
    torch.testing.assert_close(sde.time(levels.float()).double(), t, rtol=3e-6, atol=0)


def test_the_prior_has_its_mean_everywhere():
    sde = EDM(0.002, 20.0, prior_mean=0.5)
    prior = sde.prior(Euclidean((2, 3)))
    x = prior.sample(Noise(0), torch.arange(20_000), torch.float64)
    assert x.shape == (20_000, 2, 3)
    assert abs(float(x.mean()) - 0.5) < 5.5 * 20 / math.sqrt(x.numel())
    assert float(x.std()) == pytest.approx(20, rel=5.5 / math.sqrt(2 * x.numel()))
    law = torch.distributions.Normal(0.5, 20.0)
    torch.testing.assert_close(prior.log_prob(x), law.log_prob(x).flatten(1).sum(dim=1))


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 2, 2), (3, 2, 1, 2)], ids=str)
def test_a_prior_with_several_means_has_one_for_each_place_of_the_first_axis(shape):
    means = (-1.0, 0.5, 2.0)
    prior = VE(0.01, 0.7, prior_mean=means).prior(Euclidean(shape))
    x = prior.sample(Noise(0), torch.arange(20_000), torch.float64)
    assert x.shape == (20_000, *shape)
    column = torch.tensor(means, dtype=torch.float64).reshape(3, *(1,) * (len(shape) - 1))
    found = x.transpose(0, 1).reshape(3, -1)
    tolerance = 5.5 * 0.7 / math.sqrt(found.shape[1])
    assert (found.mean(dim=1) - torch.tensor(means)).abs().max() < tolerance
    law = torch.distributions.Normal(column.expand(shape), 0.7)
    torch.testing.assert_close(prior.log_prob(x), law.log_prob(x).flatten(1).sum(dim=1))
    # What is sampled and what is priced differ by the noise alone.
    plain = VE(0.01, 0.7).prior(Euclidean(shape)).sample(Noise(0), torch.arange(9), torch.float64)
    torch.testing.assert_close(x[:9] - plain, column.expand(9, *shape))


@pytest.mark.parametrize("shape", [(), (2,), (4, 3)], ids=str)
def test_means_that_do_not_fit_the_first_axis_are_an_error(shape):
    with pytest.raises(ValueError, match="prior_mean has 3 values"):
        VP(prior_mean=(0.0, 1.0, 2.0)).prior(Euclidean(shape))


@pytest.mark.parametrize("mean", [float("nan"), (0.0, float("inf"), 0.0)])
def test_a_mean_is_finite(mean):
    with pytest.raises(ValueError, match="prior_mean must be finite"):
        VE(prior_mean=mean).prior(Euclidean((3,)))


@pytest.mark.parametrize(
    ("sde", "std"),
    [(VE(0.01, 50.0), 50.0), (EDM(0.1, 9.0), 9.0)]
    + [(make(), 1.0) for make in (VP, SubVP, Cosine, DiscreteVP)],
    ids=str,
)
def test_the_prior_is_where_data_of_unit_variance_go(sde, std):
    """Song et al. (2021), appendix C: N(0, σ_max²) where the mean is kept, N(0, 1) where the
    variance is."""
    assert sde.prior(Euclidean((2,))).std == pytest.approx(std, rel=1e-14)
    end = torch.tensor(sde.t_max, dtype=torch.float64)
    assert float((sde.alpha(end) ** 2 + sde.sigma(end) ** 2).sqrt()) == pytest.approx(std, rel=0.01)


def test_prior_sample_is_the_same_in_any_batch():
    prior = VE().prior(Euclidean((2,)))
    everything = prior.sample(Noise(1), torch.arange(100))
    assert torch.equal(prior.sample(Noise(1), torch.tensor([17]))[0], everything[17])


@pytest.mark.parametrize(
    "make",
    [
        lambda: EDM(sigma_min=-1.0),
        lambda: EDM(sigma_min=0.0),
        lambda: EDM(sigma_min=2.0, sigma_max=1.0),
        lambda: EDM(sigma_max=math.inf),
        lambda: EDM(sigma_min=math.nan),
        lambda: VE(sigma_min=-0.1),
        lambda: VP(beta_min=0.0),
        lambda: VP(beta_min=2.0, beta_max=1.0),
        lambda: VP(t_min=0.0),
        lambda: VP(t_min=1.0),
        lambda: SubVP(beta_max=-1.0),
        lambda: Cosine(t_max=1.0),
        lambda: Cosine(t_min=-0.1),
        lambda: Cosine(offset=-0.1),
        lambda: Cosine(offset=0.0, t_max=1.0),
        lambda: Cosine(offset=0.0, margin=-0.1),
        lambda: Cosine(margin=0.0, t_max=0.995),
        lambda: Cosine(margin=math.nan),
    ],
)
def test_a_parameter_out_of_range_is_an_error_that_names_it(make):
    with pytest.raises(
        ValueError, match=r"(EDM|VE|VP|SubVP|Cosine): .*(sigma|beta|t_m|offset|margin)"
    ):
        make()


def test_a_process_is_abstract_without_its_schedule():
    with pytest.raises(TypeError):
        SDE()

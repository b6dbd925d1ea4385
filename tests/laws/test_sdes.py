"""What every forward process must obey."""

import dataclasses

import pytest
import torch

import scorefield.sde
from scorefield import SDE
from scorefield.domain import Euclidean
from tests.laws.cases import SDES, normal, public_classes, times


@pytest.fixture(params=SDES.values(), ids=SDES.keys())
def sde(request):
    return request.param


def close(actual, expected, rtol=1e-12):
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=0)


def test_every_public_process_is_here():
    public = {c.__name__ for c in public_classes(scorefield.sde, SDE)}
    assert public == {type(sde).__name__ for sde in SDES.values()}


def test_derivatives_are_derivatives(sde):
    t = times(sde, 100).requires_grad_()
    for f, f_dot in ((sde.alpha, sde.alpha_dot), (sde.sigma, sde.sigma_dot)):
        value = f(t)
        if not value.requires_grad:  # a constant
            assert torch.equal(f_dot(t), torch.zeros_like(t))
            continue
        (derivative,) = torch.autograd.grad(value.sum(), t)
        close(f_dot(t).detach(), derivative, rtol=1e-10)


def test_diffusion_raises_the_squared_noise_level(sde):
    """g² = α² d(λ²)/dt, from the moment equations."""
    t = times(sde, 100).requires_grad_()
    (growth,) = torch.autograd.grad((sde.noise_level(t) ** 2).sum(), t)
    expected = (sde.alpha(t) ** 2 * growth).detach()
    close(sde.diffusion_squared(t).detach(), expected, rtol=1e-9)
    close(sde.diffusion(t).detach() ** 2, expected, rtol=1e-9)
    assert (expected > 0).all()


def test_moment_equations(sde):
    """d(σ²)/dt = 2 f σ² + g², the variance equation of the linear SDE."""
    t = times(sde, 100)
    sigma = sde.sigma(t)
    expected = 2 * sigma * sde.sigma_dot(t)
    damping = 2 * sde.drift(t) * sigma**2
    off = (damping + sde.diffusion_squared(t) - expected).abs()
    # Near the end of some, two numbers of order 1e5 cancel.
    assert (off <= 1e-12 + 1e-9 * expected.abs() + 1e-15 * damping.abs()).all()


def test_time_inverts_the_noise_level(sde):
    t = times(sde, 400)
    level = sde.noise_level(t)
    assert (level.diff() > 0).all()
    close(sde.noise_level(sde.time(level)), level, rtol=1e-10)
    # VE has t = 0, where only the absolute error means something
    torch.testing.assert_close(sde.time(level), t, rtol=1e-10, atol=1e-15)


def test_the_range_of_noise_levels_is_that_of_times(sde):
    ends = torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)
    assert sde.noise_level(ends).tolist() == pytest.approx(sde.level_range)
    assert 0 < sde.level_range[0] < sde.level_range[1] == sde.sigma_max


def test_transitions_compose(sde):
    s, u = times(sde, 40)[:, None], times(sde, 40)[None, :]
    s, u = torch.minimum(s, u), torch.maximum(s, u)
    t = sde.time((sde.noise_level(s) * sde.noise_level(u)).sqrt()).clamp(s, u)
    mean_st, std_st = sde.transition(s, t)
    mean_tu, std_tu = sde.transition(t, u)
    mean, std = sde.transition(s, u)
    close(mean_st * mean_tu, mean, rtol=1e-11)
    variance = (mean_tu * std_st) ** 2 + std_tu**2
    torch.testing.assert_close(variance, std**2, rtol=1e-8, atol=1e-14)


def test_a_transition_carries_marginals_to_marginals(sde):
    s, t = times(sde, 50)[:-1], times(sde, 50)[1:]
    mean, std = sde.transition(s, t)
    close(mean * sde.alpha(s), sde.alpha(t))
    close((mean * sde.sigma(s)) ** 2 + std**2, sde.sigma(t) ** 2, rtol=1e-10)


def test_a_transition_over_no_time_does_nothing(sde):
    t = times(sde, 10)
    mean, std = sde.transition(t, t)
    assert torch.equal(mean, torch.ones_like(t))
    assert torch.equal(std, torch.zeros_like(t))


def test_a_transition_goes_forward(sde):
    t = times(sde, 3).cpu()  # numbers on a GPU are not waited for
    with pytest.raises(ValueError, match="forward"):
        sde.transition(t[1:], t[:-1])


@pytest.mark.parametrize("shape", [(), (5,), (3, 4, 4)], ids=str)
def test_perturbed_data_has_the_moments_of_the_marginal(sde, shape):
    n = 4000
    z, t = normal((n, *shape), "z"), times(sde, 5)
    x = 2 * torch.ones_like(z)
    for level in t:
        x_t = sde.perturb(x, level.reshape(1), z, Euclidean(shape))
        residual = (x_t - 2 * sde.alpha(level)) / sde.sigma(level)
        assert abs(float(residual.mean())) * residual.numel() ** 0.5 < 5.5
        assert abs(float((residual**2).mean()) - 1) * (residual.numel() / 2) ** 0.5 < 5.5


def test_perturb_takes_a_time_for_each_point(sde):
    x, z, t = normal((6, 2, 3), "x"), normal((6, 2, 3), "z"), times(sde, 6)
    together = sde.perturb(x, t, z)
    for i in range(6):
        alone = sde.perturb(x[i : i + 1], t[i : i + 1], z[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_have_the_shape_and_dtype_of_the_times(sde, dtype):
    for t in (
        times(sde, 6).to(dtype),
        times(sde, 6).reshape(2, 3).to(dtype),
        times(sde, 6)[3].to(dtype),
    ):
        for f in (
            sde.alpha, sde.sigma, sde.alpha_dot, sde.sigma_dot, sde.noise_level, sde.time,
            sde.drift, sde.diffusion, sde.diffusion_squared,
        ):  # fmt: skip
            assert f(t).shape == t.shape
            assert f(t).dtype == dtype
            assert f(t).isfinite().all()


def test_processes_are_values(sde):
    assert sde == dataclasses.replace(sde)
    assert hash(sde) == hash(dataclasses.replace(sde))
    assert sde != dataclasses.replace(sde, prior_mean=1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        sde.prior_mean = 1.0

"""What every field of a known distribution must obey."""

import pytest
import torch

from scorefield import EDM, VP, Empirical
from scorefield.noise import Noise
from tests.laws.cases import PERIODIC, SDES, TARGETS, normal, targets, times


@pytest.fixture(params=SDES.values(), ids=SDES.keys())
def sde(request):
    return request.param


@pytest.fixture(params=TARGETS)
def target(request, sde):
    return targets(sde)[request.param]


@pytest.fixture(params=TARGETS)
def edm_target(request):
    return targets(EDM())[request.param]


@pytest.fixture(params=[name for name in TARGETS if name not in PERIODIC])
def flat_target(request):
    return targets(EDM())[request.param]


def noisy(target, n=16):
    """Points that the diffused law produces, at levels over the whole range."""
    t = times(target.sde, n)
    clean = target.sample(n, seed=3, dtype=torch.float64)
    return target.sde.perturb(clean, t, normal(tuple(clean.shape), "z")), t


def test_the_score_is_the_gradient_of_the_log_density(target):
    x, t = noisy(target)
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_density(y, t).sum(), y)
    torch.testing.assert_close(target.score(x, t), gradient, rtol=1e-7, atol=1e-9)


def test_the_jacobian_is_the_derivative_of_the_score(target):
    x, t = noisy(target)
    y = x.clone().requires_grad_()
    score = target.score(y, t).reshape(len(x), -1)
    rows = [torch.autograd.grad(s.sum(), y, retain_graph=True)[0] for s in score.unbind(1)]
    expected = torch.stack([row.reshape(len(x), -1) for row in rows], dim=1)
    jacobian = target.jacobian(x, t)
    assert jacobian.shape == (len(x), target.domain.dim, target.domain.dim)
    scale = 1 / target.sde.sigma(t).reshape(-1, 1, 1) ** 2
    # The derivative of a weight is a difference of numbers as large as the score, which a point
    # multiplies: with little noise it cancels.
    size = score.detach().norm(dim=1) * x.reshape(len(x), -1).norm(dim=1)
    limit = (
        1e-9 + 4 * torch.finfo(x.dtype).eps * size.reshape(-1, 1, 1) + 1e-7 * expected.abs() / scale
    )
    assert ((jacobian - expected).abs() / scale <= limit).all()
    torch.testing.assert_close(jacobian, jacobian.mT, rtol=1e-12, atol=1e-12 * float(scale.max()))


def test_tweedies_formula_joins_denoiser_and_score(target):
    """α E[x₀ | x] = x + σ² s, to the digits that the sum leaves."""
    x, t = noisy(target)
    column = t.reshape(-1, *(1,) * (x.dim() - 1))
    alpha, sigma = target.sde.alpha(column), target.sde.sigma(column)
    left, right = alpha * target.denoise(x, t), x + sigma**2 * target.score(x, t)
    rounding = 1e-12 * (1 + x.abs() + alpha * target.std)
    assert ((left - right).abs() <= rounding).all()


def test_float32_is_the_rounded_truth_at_every_noise_level(target):
    """The points are taken as they are: no digit is lost on the way from x to the result."""
    x, t = (v.float() for v in noisy(target, 40))
    for f in (target.score, target.denoise, target.log_density, target.jacobian):
        single, double = f(x, t), f(x.double(), t.double())
        assert single.dtype == torch.float32
        assert torch.equal(single, double.float())


def test_a_process_is_only_a_scale_and_a_clock(target):
    """With x̂ = x/α every process is the one with α = 1 at the same noise level."""
    x, t = noisy(target)
    edm = target.under(EDM(sigma_max=1e6))
    level, alpha = target.sde.noise_level(t), target.sde.alpha(t)
    column = alpha.reshape(-1, *(1,) * (x.dim() - 1))
    score = edm.score(x / column, level) / column
    scale = float(score.abs().max())
    torch.testing.assert_close(target.score(x, t), score, rtol=1e-8, atol=1e-12 * scale)
    torch.testing.assert_close(
        target.denoise(x, t), edm.denoise(x / column, level), rtol=1e-8, atol=1e-9
    )
    log_density = edm.log_density(x / column, level) - target.domain.dim * alpha.log()
    limit = 1e-7 + 1e-8 * log_density.abs()
    if isinstance(target, Empirical):  # whose docstring names the rounding of its log-weights
        limit = limit + 1e-15 * x.reshape(len(x), -1).square().sum(dim=1) / target.sde.sigma(t) ** 2
    assert ((target.log_density(x, t) - log_density).abs() <= limit).all()


def test_another_process_shares_the_law_and_leaves_the_first_alone(flat_target):
    twin = flat_target.under(VP())
    assert (twin.sde, flat_target.sde) == (VP(), EDM())
    assert type(twin) is type(flat_target)
    assert torch.equal(twin.sample(5, seed=0), flat_target.sample(5, seed=0))
    for a, b in zip(twin.buffers(), flat_target.buffers(), strict=True):
        assert a.data_ptr() == b.data_ptr()


def test_samples_have_the_moments_they_are_said_to_have(flat_target):
    n = 40_000
    x = flat_target.sample(n, seed=1, dtype=torch.float64).reshape(n, -1)
    deviation = x - flat_target.mean.reshape(-1)
    spread = x.std(dim=0)
    assert (deviation.mean(dim=0).abs() < 6 * spread / n**0.5).all()
    square = deviation.square().mean(dim=1)
    assert abs(float(square.mean()) - flat_target.std**2) < 5.5 * float(square.std()) / n**0.5
    assert flat_target.mean.shape == flat_target.domain.shape
    assert flat_target.mean.dtype == torch.float64


def test_samples_at_a_noise_level_have_the_score_of_that_level(flat_target):
    """E[s] = 0 and E[⟨x, s⟩] = −D under p_t (integration by parts)."""
    n, dim = 20_000, flat_target.domain.dim
    for t in (0.3, 2.0):
        x = flat_target.sample(n, seed=2, dtype=torch.float64, t=t)
        s = flat_target.score(x, t).reshape(n, -1)
        assert (s.mean(dim=0).abs() < 6 * s.std(dim=0) / n**0.5).all()
        stein = (s * x.reshape(n, -1)).sum(dim=1)
        assert abs(float(stein.mean()) + dim) < 5.5 * float(stein.std()) / n**0.5


def test_a_draw_is_bit_equal_in_any_batch(edm_target):
    noise = Noise(4)
    everything = edm_target.draw(noise, torch.arange(300))
    for index in (*map(torch.arange, range(1, 20)), torch.arange(5, 300, 7), torch.tensor([17])):
        assert torch.equal(edm_target.draw(noise, index), everything[index])
    steps = torch.arange(3).reshape(3, 1)
    together = edm_target.draw(noise, torch.arange(50), steps)
    assert together.shape == (3, 50, *edm_target.domain.shape)
    for k in range(3):
        assert torch.equal(together[k], edm_target.draw(noise, torch.arange(50), k))


def test_other_steps_and_samples_draw_other_points(edm_target):
    """Of a finite set no more often the same than its size allows."""
    noise = Noise(4)
    points = edm_target.draw(noise, torch.arange(50), torch.arange(2).reshape(2, 1)).reshape(
        2, 50, -1
    )
    assert (points[0] != points[1]).any(dim=1).double().mean() > 0.5
    assert (points[0] != points[0].roll(1, 0)).any(dim=1).double().mean() > 0.5
    seed = edm_target.draw(Noise(5), torch.arange(50)).reshape(50, -1)
    assert (points[0] != seed).any(dim=1).double().mean() > 0.5


def test_a_batch_may_be_empty(edm_target):
    shape, dim = edm_target.domain.shape, edm_target.domain.dim
    x = torch.zeros(0, *shape)
    assert edm_target.score(x, 1.0).shape == (0, *shape)
    assert edm_target.denoise(x, 1.0).shape == (0, *shape)
    assert edm_target.log_density(x, 1.0).shape == (0,)
    assert edm_target.jacobian(x, 1.0).shape == (0, dim, dim)


def test_points_of_another_shape_are_an_error(edm_target):
    shape = (*edm_target.domain.shape, 2)
    for f in (edm_target.score, edm_target.log_density, edm_target.jacobian):
        with pytest.raises(ValueError, match="points of shape"):
            f(torch.zeros(3, *shape), 1.0)


def test_a_target_has_no_parameters_and_float64_buffers(edm_target):
    assert not list(edm_target.parameters())
    assert {b.dtype for b in edm_target.buffers()} <= {torch.float64, torch.int64}

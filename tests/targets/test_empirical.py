"""Truths about the ideal score of a finite data set."""

import math

import pytest
import torch

from scorefield import EDM, Empirical, GaussianMixture
from scorefield.noise import Noise
from scorefield.targets import empirical
from tests.laws.cases import SDES, normal, times

POINTS = 0.5 + normal((23, 3), "points")


@pytest.fixture(params=SDES.values(), ids=SDES.keys())
def sde(request):
    return request.param


def brute_force(points, x, alpha, sigma):
    """Density, score and denoiser from all centred differences at once."""
    difference = alpha[:, None, None] * points - x[:, None]
    logits = -0.5 * difference.square().sum(dim=2) / sigma[:, None] ** 2
    r = logits.softmax(dim=1)
    n, dim = points.shape
    norm = math.log(n) + dim * (sigma.log() + 0.5 * math.log(math.tau))
    score = (r[:, :, None] * difference).sum(dim=1) / sigma[:, None] ** 2
    return logits.logsumexp(dim=1) - norm, score, r @ points


def test_it_is_the_softmax_over_all_points(sde):
    truth, t = Empirical(POINTS, sde=sde), times(sde, 30)
    x = sde.perturb(POINTS[torch.arange(30) % 23], t, normal((30, 3), "z"))
    log_density, score, mean = brute_force(POINTS, x, sde.alpha(t), sde.sigma(t))
    # the one loss that is documented: the rounding of a squared distance, in units of σ²
    rounding = (
        1e-15 * (x.square().sum(dim=1) + POINTS.square().sum(dim=1).max()) / sde.sigma(t) ** 2
    )
    assert ((truth.log_density(x, t) - log_density).abs() <= 1e-9 + rounding).all()
    torch.testing.assert_close(truth.score(x, t), score, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(truth.denoise(x, t), mean, rtol=1e-7, atol=1e-9)


def test_it_is_a_mixture_at_a_lower_noise_level():
    """A component of standard deviation ε at level λ is a point at level √(λ² + ε²)."""
    truth, mixture = Empirical(POINTS), GaussianMixture(POINTS, stds=0.3)
    level = torch.logspace(-3, 1.5, 23, dtype=torch.float64)
    total = (level**2 + 0.09).sqrt()
    x = POINTS + total.unsqueeze(1) * normal((23, 3), "z")
    for name in ("log_density", "score", "jacobian"):
        a, b = getattr(truth, name)(x, total), getattr(mixture, name)(x, level)
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_it_is_the_limit_of_narrow_components(sde):
    t = times(sde, 20)
    t = t[sde.noise_level(t) > 1e-3]
    truth, narrow = Empirical(POINTS, sde=sde), GaussianMixture(POINTS, stds=1e-8, sde=sde)
    x = sde.perturb(POINTS[: len(t)], t, normal((len(t), 3), "z"))
    for name in ("log_density", "score", "denoise", "jacobian"):
        a, b = getattr(truth, name)(x, t), getattr(narrow, name)(x, t)
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_blocks_change_nothing(monkeypatch):
    x, t = normal((50, 3), "x"), times(SDES["EDM"], 50)
    truth = Empirical(POINTS)
    names = ("log_density", "score", "denoise", "jacobian")
    whole = {name: getattr(truth, name)(x, t) for name in names}
    for workspace in (1, 50, 77, 450):
        monkeypatch.setattr(empirical, "WORKSPACE", workspace)
        for name in names:
            torch.testing.assert_close(
                getattr(truth, name)(x, t), whole[name], rtol=1e-8, atol=1e-8
            )


def test_derivatives_pass_through_the_blocks(monkeypatch):
    x, v, t = normal((6, 3), "x"), normal((6, 3), "v"), times(SDES["EDM"], 6) + 0.1
    truth = Empirical(POINTS)
    expected = torch.einsum("bij,bj->bi", truth.jacobian(x, t), v)
    monkeypatch.setattr(empirical, "WORKSPACE", 30)
    _, jv = torch.func.jvp(lambda y: truth.score(y, t), (x,), (v,))
    torch.testing.assert_close(jv, expected, rtol=1e-8, atol=1e-8)


def test_memory_does_not_grow_with_the_number_of_points(monkeypatch):
    """No temporary is larger than the workspace, however many the points."""
    monkeypatch.setattr(empirical, "WORKSPACE", 4096)
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for value in out if isinstance(out, tuple | list) else (out,):
                if isinstance(value, torch.Tensor) and func.namespace == "aten":
                    fresh = value.untyped_storage().data_ptr() != truth.data.data_ptr()
                    seen.append(value.untyped_storage().nbytes() // 8 if fresh else 0)
            return out

    x = normal((16, 3), "x")
    truth = Empirical(normal((20_000, 3), "points"))
    with Watch():
        for f in (truth.score, truth.denoise, truth.log_density, truth.jacobian):
            f(x, 0.5)
    assert len(seen) > 100
    assert max(seen) <= 4096


def test_without_noise_the_nearest_point_is_the_denoised_one():
    truth, x = Empirical(POINTS), POINTS + 1e-3 * normal((23, 3), "x")
    torch.testing.assert_close(truth.denoise(x, 1e-3), POINTS, rtol=1e-12, atol=1e-12)


def test_under_much_noise_the_mean_is_the_denoised_point():
    truth, x = Empirical(POINTS, EDM(sigma_max=1e7)), normal((5, 3), "x")
    expected = POINTS.mean(dim=0).expand(5, 3)
    torch.testing.assert_close(truth.denoise(x, 1e7), expected, rtol=1e-9, atol=1e-9)


def test_far_data_loses_no_digits():
    """Distances are taken about the mean of the data, so that an offset is harmless."""
    x, t = normal((10, 3), "x"), 0.01
    near, far = Empirical(POINTS), Empirical(POINTS + 1e5)
    torch.testing.assert_close(far.score(x + 1e5, t), near.score(x, t), rtol=1e-4, atol=1e-4)


def test_draws_are_the_points_themselves():
    truth = Empirical(POINTS)
    x = truth.draw(Noise(0), torch.arange(2000), dtype=torch.float64)
    hits = (x.unsqueeze(1) == POINTS).all(dim=2)
    assert (hits.sum(dim=1) == 1).all()
    assert hits.any(dim=0).all()
    assert torch.equal(truth.points, POINTS)


def test_moments_are_those_of_the_points():
    images = normal((11, 1, 2, 2), "images")
    truth = Empirical(images)
    torch.testing.assert_close(truth.mean, images.mean(dim=0))
    assert truth.std == pytest.approx(float(images.var(dim=0, correction=0).mean().sqrt()))


@pytest.mark.parametrize("name", ["log_density", "score", "denoise", "jacobian"])
def test_there_is_no_density_without_noise(name):
    with pytest.raises(ValueError, match=r"t must be positive|has times above 0"):
        getattr(Empirical(POINTS), name)(POINTS, 0.0)


@pytest.mark.parametrize("points", [torch.zeros(0, 3), torch.full((2, 3), float("nan"))])
def test_points_are_some_and_finite(points):
    with pytest.raises(ValueError, match="points"):
        Empirical(points)

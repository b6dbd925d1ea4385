"""Truths about mixtures."""

import math

import pytest
import torch
from scipy import stats
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from scorefield import Gaussian, GaussianMixture
from scorefield.noise import Noise
from tests.laws.cases import SDES, covariance, normal, times

MODES, DIM = 4, 3
MEANS = 1.5 * normal((MODES, DIM), "means")
WEIGHTS = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
FULL = torch.stack([covariance(DIM, f"covariance {k}") for k in range(MODES)])


@pytest.fixture(params=SDES.values(), ids=SDES.keys())
def sde(request):
    return request.param


def test_density_and_score_are_those_of_a_library(sde):
    truth = GaussianMixture(MEANS, covariances=FULL, weights=WEIGHTS, sde=sde)
    for t in times(sde, 5):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        components = MultivariateNormal(
            alpha * MEANS, alpha**2 * FULL + sigma**2 * torch.eye(DIM, dtype=torch.float64)
        )
        law = MixtureSameFamily(Categorical(WEIGHTS), components)
        x = (alpha * MEANS + sigma * normal((MODES, DIM), "x")).requires_grad_()
        log_prob = law.log_prob(x)
        (score,) = torch.autograd.grad(log_prob.sum(), x)
        x = x.detach()
        torch.testing.assert_close(truth.log_density(x, t), log_prob.detach())
        torch.testing.assert_close(truth.score(x, t), score, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(
            truth.responsibilities(x, t),
            (WEIGHTS.log() + components.log_prob(x.unsqueeze(1))).softmax(dim=1),
            rtol=1e-9,
            atol=1e-12,
        )


def test_one_component_is_a_gaussian(sde):
    x, t = normal((8, DIM), "x"), times(sde, 8)
    for one, normal_law in (
        (GaussianMixture(MEANS[:1], 0.3, sde=sde), Gaussian(MEANS[0], 0.3, sde=sde)),
        (
            GaussianMixture(MEANS[:1], covariances=FULL[:1], sde=sde),
            Gaussian(MEANS[0], covariance=FULL[0], sde=sde),
        ),
    ):
        for name in ("log_density", "score", "denoise", "jacobian", "velocity"):
            a, b = getattr(one, name)(x, t), getattr(normal_law, name)(x, t)
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        assert one.std == pytest.approx(normal_law.std)
        assert torch.equal(one.sample(5, seed=0), normal_law.sample(5, seed=0))


@pytest.mark.parametrize("shape", [(), (MODES,), (MODES, DIM)], ids=str)
def test_standard_deviations_are_diagonal_covariances(sde, shape):
    stds = 0.3 + normal((1, *shape), "stds")[0].abs()
    full = stds if len(shape) != 1 else stds.unsqueeze(1)
    diagonal = full.expand(MODES, DIM).square().diag_embed()
    a = GaussianMixture(MEANS, stds, weights=WEIGHTS, sde=sde)
    b = GaussianMixture(MEANS, covariances=diagonal, weights=WEIGHTS, sde=sde)
    x, t = normal((8, DIM), "x"), times(sde, 8)
    for name in ("log_density", "score", "denoise", "jacobian"):
        torch.testing.assert_close(
            getattr(a, name)(x, t), getattr(b, name)(x, t), rtol=1e-10, atol=1e-10
        )
    torch.testing.assert_close(a.covariances, diagonal)


def test_splitting_a_component_changes_nothing():
    x = normal((8, DIM), "x")
    whole = GaussianMixture(MEANS, covariances=FULL, weights=WEIGHTS)
    split = GaussianMixture(
        torch.cat((MEANS, MEANS[1:2])),
        covariances=torch.cat((FULL, FULL[1:2])),
        weights=torch.tensor([0.1, 0.15, 0.3, 0.2, 0.25]) * 7,
    )
    for name in ("log_density", "score", "denoise", "jacobian"):
        for t in (0.01, 0.5, 5.0):
            a, b = getattr(whole, name)(x, t), getattr(split, name)(x, t)
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    assert split.std == pytest.approx(whole.std)


@pytest.mark.parametrize("t", [0.0, 0.5, 3.0])
def test_the_density_integrates_to_one(t):
    ring = GaussianMixture.ring()
    edge = torch.linspace(-25, 25, 701, dtype=torch.float64)
    grid = torch.cartesian_prod(edge, edge)
    density = ring.log_density(grid, t).exp()
    assert float(density.sum()) * float(edge[1] - edge[0]) ** 2 == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("t", [None, 0.4])
def test_samples_have_the_diffused_law_along_any_direction(t):
    truth = GaussianMixture(MEANS, covariances=FULL, weights=WEIGHTS)
    x = truth.sample(20_000, seed=8, dtype=torch.float64, t=t)
    for direction in torch.nn.functional.normalize(normal((5, DIM), "direction")):
        centre = (MEANS @ direction).numpy()
        scale = torch.einsum("kij,i,j->k", FULL, direction, direction) + (t or 0.0) ** 2
        scale = scale.sqrt().numpy()

        def cdf(u, centre=centre, scale=scale):
            return (WEIGHTS.numpy() * stats.norm.cdf((u[..., None] - centre) / scale)).sum(-1)

        assert stats.kstest((x @ direction).numpy(), cdf).pvalue > 1e-8


def test_components_are_drawn_by_their_weights():
    truth = GaussianMixture(100 * MEANS, stds=0.1, weights=WEIGHTS)
    x = truth.sample(20_000, seed=9, dtype=torch.float64)
    counts = truth.responsibilities(x, 0.0).argmax(dim=1).bincount(minlength=MODES)
    assert stats.chisquare(counts, 20_000 * WEIGHTS).pvalue > 1e-7


def test_the_ring_is_a_ring():
    ring = GaussianMixture.ring(modes=8, radius=4.0, std=0.35)
    assert torch.allclose(ring.means.norm(dim=1), torch.full((8,), 4.0, dtype=torch.float64))
    angles = torch.atan2(ring.means[:, 1], ring.means[:, 0]) % math.tau
    assert torch.allclose(angles.sort().values.diff(), angles.new_tensor(math.tau / 8))
    torch.testing.assert_close(ring.mean, torch.zeros(2, dtype=torch.float64))
    assert ring.std == pytest.approx(math.sqrt(4.0**2 / 2 + 0.35**2))


def test_the_field_turns_with_the_ring():
    ring, x = GaussianMixture.ring(), 3 * normal((10, 2), "x")
    c = math.cos(math.tau / 8)
    turn = torch.tensor([[c, -c], [c, c]], dtype=torch.float64)
    for t in (0.01, 0.5, 5.0):
        torch.testing.assert_close(ring.score(x @ turn.T, t), ring.score(x, t) @ turn.T)


def test_far_from_every_mode_the_nearest_decides():
    """Log-weights of −10⁶ do not turn into nan, in float32 either."""
    ring = GaussianMixture.ring(std=1e-3)
    x = torch.tensor([[4.0, 0.5], [300.0, 0.0]])
    score = ring.score(x, 1e-3)
    expected = -(x.double() - torch.tensor([4.0, 0.0])) / 2e-6
    torch.testing.assert_close(score.double(), expected, rtol=1e-6, atol=1e-2)
    assert ring.jacobian(x, 1e-3).isfinite().all()


def test_weights_are_normalised():
    truth = GaussianMixture(MEANS, stds=1.0, weights=[1.0, 1.0, 2.0, 4.0])
    assert truth.weights.tolist() == [0.125, 0.125, 0.25, 0.5]
    assert GaussianMixture(MEANS, stds=1.0).weights.tolist() == [0.25] * 4


def test_the_normals_of_a_sample_do_not_depend_on_its_component():
    index = torch.arange(20)
    wide = GaussianMixture(MEANS, stds=1.0).draw(Noise(0), index, dtype=torch.float64)
    k = torch.cdist(wide - Noise(0).normal("data", (DIM,), index, dtype=torch.float64), MEANS)
    assert (k.min(dim=1).values < 1e-12).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stds": 0.0}, "positive"),
        ({"stds": torch.ones(2)}, "stds of 4 components"),
        ({"covariances": FULL[:2]}, r"\(4, 3, 3\)"),
        ({"covariances": -FULL}, "positive definite"),
        ({"stds": 1.0, "weights": torch.ones(3)}, "4 positive weights"),
        ({"stds": 1.0, "weights": torch.tensor([1.0, 1.0, 0.0, 1.0])}, "4 positive weights"),
        ({"stds": 1.0, "weights": torch.tensor([1.0, 1.0, math.inf, 1.0])}, "4 positive weights"),
    ],
)
def test_an_impossible_mixture_is_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(MEANS, **settings)


def test_means_are_a_table():
    with pytest.raises(ValueError, match=r"\(K, D\)"):
        GaussianMixture(torch.zeros(3), stds=1.0)
    with pytest.raises(TypeError, match="either"):
        GaussianMixture(MEANS)

"""Dual score matching: its targets, its minimum, and where it cannot be used."""

import pytest
import torch

from scorefield import (
    EDM,
    MLP,
    VE,
    DualScoreMatching,
    EnergyScaling,
    GaussianMixture,
    LogUniform,
    PotentialField,
    PreconditionedField,
    PseudoAtoms,
    ScoreField,
    Torus,
    fit,
)
from scorefield.calculus.growth import growth
from scorefield.domain import Euclidean
from scorefield.noise import Noise
from tests.laws.cases import SDES, KnownWave, normal, times

LAW = LogUniform()


@pytest.fixture(params=SDES.values(), ids=SDES.keys())
def sde(request):
    return request.param


def mixture(sde):
    means, stds = 1.5 * normal((4, 3), "means"), torch.tensor([0.2, 0.4, 0.6, 0.8])
    return GaussianMixture(means, stds=stds, weights=[0.1, 0.4, 0.3, 0.2], sde=sde)


class Shifted(ScoreField):
    """The exact potential plus multiples of the logarithm of the noise level and of its square."""

    def __init__(self, truth, linear=0.0, square=0.0):
        super().__init__(truth.sde, truth.domain)
        self.truth = truth
        self.linear, self.square = (torch.nn.Parameter(torch.tensor(v)) for v in (linear, square))

    has_potential = True

    def score(self, x, t, classes=None):
        return self.truth.score(x, t)

    def potential(self, x, t, classes=None):
        level = self.sde.noise_level(t).log()
        return self.truth.potential(x, t) + self.linear * level + self.square * level**2


def test_the_target_of_a_sample_has_the_growth_of_the_density_as_its_mean(sde):
    """E[|ε|² − D | x] of a mixture in closed form: the posterior of x₀ is a mixture of normals of
    means m + (α v / (α² v + σ²)) (x − α m) and variances v σ² / (α² v + σ²)."""
    truth, t = mixture(sde), times(sde, 12)
    hat = normal((12, 3), "x") * (1 + sde.noise_level(t).unsqueeze(1))
    alpha, sigma = sde.alpha(t)[:, None, None], sde.sigma(t)[:, None, None]
    x = alpha[:, 0] * hat
    v = truth.components.variances[:, :1]
    spread = alpha**2 * v + sigma**2
    # In units of the noise, so that nothing cancels at low noise.
    epsilon = sigma * (x.unsqueeze(1) - alpha * truth.means) / spread
    squares = epsilon.square().sum(dim=2) + (3 * alpha**2 * v / spread).squeeze(2)
    expected = (truth.responsibilities(x, t) * squares).sum(dim=1) - 3
    torch.testing.assert_close(growth(truth, hat, t), expected, rtol=1e-6, atol=1e-8)


def test_the_target_of_a_sample_in_time_is_that_of_its_kernel(sde):
    """∂ₜ ln p(xₜ | x₀) by automatic differentiation, from the target in the noise level."""
    t = times(sde, 12)[:-1].requires_grad_()
    x0, epsilon = normal((11, 3), "x0"), normal((11, 3), "epsilon")
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    x = (alpha.unsqueeze(1) * x0 + sigma.unsqueeze(1) * epsilon).detach()
    kernel = Euclidean((3,)).kernel_log_prob(x - alpha.unsqueeze(1) * x0, sigma)
    (slope,) = torch.autograd.grad(kernel.sum(), t)
    with torch.no_grad():
        target = epsilon.square().sum(dim=1) - 3
        direct = sde.sigma_dot(t) / sde.sigma(t) * target
        direct = direct + sde.alpha_dot(t) / sde.sigma(t) * (x0 * epsilon).sum(dim=1)
        move = 3 - (x * epsilon).sum(dim=1) / sde.sigma(t)
        rate = sde.diffusion_squared(t) / (2 * sde.sigma(t) ** 2)
    torch.testing.assert_close(direct, slope, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rate * target - sde.drift(t) * move, slope, rtol=1e-6, atol=1e-6)


def test_growth_in_noise_and_in_time_are_one(sde):
    """∂ₜ ln p at a given x by difference quotients, from the growth at a given x / α."""
    truth, t = mixture(sde), times(sde, 14)[1:-1]
    hat = normal((12, 3), "x") * (1 + sde.noise_level(t).unsqueeze(1))
    x = sde.alpha(t).unsqueeze(1) * hat
    h = 1e-5 * torch.minimum(t, 1 - t if sde.t_max <= 1 else t)
    quotient = (truth.log_density(x, t + h) - truth.log_density(x, t - h)) / (2 * h)
    rate = sde.diffusion_squared(t) / (2 * sde.sigma(t) ** 2)
    move = sde.drift(t) * ((x * truth.score(x, t)).sum(dim=1) + 3)
    scale = (rate * growth(truth, hat, t)).abs() + move.abs() + rate
    error = (rate * growth(truth, hat, t) - move - quotient).abs()
    # The tables of discrete processes have kinks in time, which a quotient may span.
    assert (error <= 1e-4 * scale).all()


@pytest.mark.parametrize("domain", [Euclidean((2, 2)), Torus((2, 2), (1.0, 2.5))], ids=str)
def test_the_kernel_grows_as_its_log_density_does(domain):
    z = normal((9, 2, 2), "z")
    log_sigma = torch.linspace(-4, 1, 9, dtype=torch.float64).requires_grad_()
    sigma = log_sigma.exp()
    delta = (sigma.reshape(-1, 1, 1) * z).detach()
    (slope,) = torch.autograd.grad(domain.kernel_log_prob(delta, sigma).sum(), log_sigma)
    torch.testing.assert_close(domain.kernel_growth(z, sigma.detach()), slope, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("periodic", [False, True], ids=["plane", "torus"])
def test_the_truth_is_at_the_minimum(periodic):
    """The gradient in two directions is zero on average over 60 steps, within six standard errors
    of its scatter; away from the truth it points back."""
    if periodic:
        truth = PseudoAtoms([[0.25], [0.75]], std=0.05, sde=VE(0.01, 0.5))
    else:
        truth = GaussianMixture.ring(sde=EDM(0.05, 20.0))
    dual = DualScoreMatching(weight=1.0, rows=256, sigma_data=truth.std)
    x = truth.draw(Noise(1), torch.arange(256), dtype=torch.float64)

    def slopes(field, steps):
        found = []
        for step in range(steps):
            loss = dual(field, LAW, x, Noise(0), step)
            found.append(torch.stack(torch.autograd.grad(loss, [field.linear, field.square])))
        return torch.stack(found)

    exact = slopes(Shifted(truth), 60)
    error = exact.std(dim=0) / 60**0.5
    assert (exact.mean(dim=0).abs() < 6 * error).all()
    away = slopes(Shifted(truth, linear=1.0), 60)[:, 0]
    assert away.mean() > 6 * away.std() / 60**0.5


def test_the_weight_makes_the_scatter_of_normal_data_one_at_every_level():
    """The loss of the exact potential is 1 + r / 15 within six standard errors, at each of three
    levels: of 8 coordinates the square of the error has a variance of 4 at most."""
    sde = EDM(0.05, 40.0)
    truth = GaussianMixture(torch.zeros(1, 8), stds=1.5, sde=sde)
    x = truth.draw(Noise(1), torch.arange(4000), dtype=torch.float64)
    for low in (0.05, 1.0, 30.0):
        dual = DualScoreMatching(
            weight=1.0, rows=4000, sigma_data=1.5, sigma_min=low, sigma_max=1.3 * low
        )
        with torch.no_grad():
            loss = float(dual(truth, LAW, x, Noise(0), 0))
        r = 1 - (1 - 1.5**2 / (1.5**2 + low**2)) ** 2
        assert loss == pytest.approx(1 + r / 15, abs=6 * (4 / 4000) ** 0.5)


@pytest.mark.parametrize("level", [0.05, 1.5])
@pytest.mark.parametrize("rows", [48, 15])
def test_what_rows_have_in_common_is_taken_without_bias(level, rows):
    """Of ρ²(2 − ρ²) = r the mean of a group's targets varies by (1 − r)² of what it did, and the
    product of a target with its own |ε|² − D keeps its mean of 2 D within six standard errors.
    Fewer rows than a group stay as they are."""
    truth = GaussianMixture(torch.zeros(1, 4), stds=1.5, sde=EDM(0.01, 40.0))
    dual = DualScoreMatching(
        weight=1.0, rows=rows, sigma_data=1.5, sigma_min=level, sigma_max=1.001 * level
    )
    steps = torch.arange(8000).unsqueeze(1)
    _, z, target = (d.double() for d in dual.draw(truth, LAW, Noise(2), rows, steps))
    plain = z.square().sum(dim=2) - 4
    product = (target * plain).flatten()
    error = float(product.std()) / (8000 * rows) ** 0.5
    assert float(product.mean()) == pytest.approx(8, abs=6 * error)
    r = 1 - (1 - 1.5**2 / (1.5**2 + level**2)) ** 2
    expected = (1 - r) ** 2 if rows == 48 else 1.0
    found = float(target.mean(dim=1).var() / plain.mean(dim=1).var())
    assert found == pytest.approx(expected, rel=0.02, abs=1e-4)


def test_groups_are_of_neighbouring_levels():
    """Each of 50 rows of levels that differ loses r times the mean of the others of its sixteen;
    the two of the highest levels lose nothing."""
    truth = GaussianMixture(torch.zeros(1, 4), stds=1.5, sde=EDM(0.01, 40.0))
    dual = DualScoreMatching(weight=1.0, rows=50, sigma_data=1.5)
    t, z, target = dual.draw(truth, LAW, Noise(2), 50, torch.arange(3).unsqueeze(1))
    plain = z.square().sum(dim=2) - 4
    for row in range(3):
        places = sorted(range(50), key=lambda k, row=row: float(t[row, k]))
        for rank, k in enumerate(places):
            group = [j for j in places[rank // 16 * 16 : rank // 16 * 16 + 16] if j != k]
            share = 1.5**2 / (1.5**2 + float(t[row, k]) ** 2)
            taken = float(plain[row, group].mean()) * share * (2 - share) if rank < 48 else 0.0
            assert float(target[row, k]) == pytest.approx(float(plain[row, k]) - taken, abs=1e-4)


def test_a_field_without_a_potential_or_with_classes_is_refused():
    field = PreconditionedField(MLP(2, 8, 1), EDM(), sigma_data=1.0)
    dual = DualScoreMatching(weight=1.0, sigma_data=1.0)
    with pytest.raises(TypeError, match="needs a potential, and PreconditionedField has none"):
        dual(field, LAW, torch.zeros(4, 2), Noise(0), 0)
    known = PotentialField(KnownWave((2,)), EDM(), sigma_data=1.0)
    with pytest.raises(TypeError, match="does not see classes, and PotentialField has 3"):
        dual(known, LAW, torch.zeros(4, 2), Noise(0), 0)
    with pytest.raises(ValueError, match="dual: sigma_data"):
        DualScoreMatching(weight=1.0, sigma_data=0.0)


def test_a_training_learns_the_constants_of_all_levels():
    """Of normal data the potential is right up to a function of the noise at first; a
    short training makes its error, up to a constant, three times smaller."""
    sde = EDM(0.2, 10.0)
    truth = GaussianMixture(torch.tensor([[1.0, -0.5]]), stds=0.5, sde=sde)
    net = MLP(2, 32, 2, outputs=1, seed=1)
    field = PotentialField(net, sde, parametrization=EnergyScaling(truth.std))
    t = times(sde, 20)
    x = truth.mean + (0.25 + t.unsqueeze(1) ** 2).sqrt() * normal((20, 2), "x")

    def error():
        difference = (field.potential(x, t) - truth.log_density(x, t)).detach()
        return float(difference.std())

    before = error()
    dual = DualScoreMatching(weight=0.1, rows=128, sigma_data=truth.std)
    fit(field, truth, steps=300, batch_size=128, seed=0, regularizers=[dual], quiet=True)
    assert error() < before / 3

"""What every sampler declares, measured on fields whose samples are known."""

import math
from functools import cache, partial

import pytest
import torch

from scorefield import (
    DDIM,
    EDM,
    HMC,
    MALA,
    ULA,
    VE,
    VP,
    Ancestral,
    AnnealedLangevin,
    AnnealedMCMC,
    Cosine,
    DPMSolverPlusPlus2M,
    Empirical,
    Euler,
    EulerMaruyama,
    Gaussian,
    GaussianMixture,
    Heun,
    HybridField,
    Langevin,
    PotentialField,
    PreconditionedField,
    PredictorCorrector,
    ReverseDiffusion,
    SubVP,
)
from scorefield.noise import Noise
from tests.planted import Watched

PROCESSES = [EDM(), VE(), VP(), SubVP(), Cosine()]
SAMPLERS = [Euler, Heun]
CHURNED = [Euler(6, churn=3.0), Heun(6, churn=3.0)]
DETERMINISTIC = [
    *SAMPLERS,
    DDIM,
    partial(DDIM, spacing="time"),
    DPMSolverPlusPlus2M,
    partial(DPMSolverPlusPlus2M, spacing="logsnr"),
]
# To the posterior mean at the end, whatever came before.
EXACT_ON_POINTS = [
    Euler(6),
    Heun(6),
    *CHURNED,
    DDIM(6),
    DDIM(6, eta=1.0, spacing="logsnr"),
    DPMSolverPlusPlus2M(6),
    PredictorCorrector(6, Ancestral()),
    PredictorCorrector(6, None, AnnealedLangevin(0.1, 2)),
]
COUNTED = [
    *EXACT_ON_POINTS,
    PredictorCorrector(6, ReverseDiffusion(), Langevin(0.1, 2), first="predictor"),
    PredictorCorrector(6, EulerMaruyama(), denoise=False, spacing="logsnr"),
    PredictorCorrector(6, ReverseDiffusion(probability_flow=True)),
]
ALL = [
    *COUNTED,
    AnnealedMCMC(6, ULA(0.3), moves=2),
    AnnealedMCMC(6, MALA(0.7), moves=2),
    AnnealedMCMC(6, HMC(0.5, 0.1, leaps=2), moves=2, spacing="logsnr"),
]


class Linear(torch.nn.Module):
    """A small backbone of any event shape."""

    def __init__(self, shape=(2,), dtype=torch.float32) -> None:
        super().__init__()
        self.event_shape = shape
        dim = math.prod(shape)
        generator = torch.Generator().manual_seed(3)
        weight = torch.randn(dim, dim, generator=generator, dtype=torch.float64) / dim**0.5
        self.weight = torch.nn.Parameter(weight.to(dtype))

    def forward(self, u, label):
        flat = u.reshape(len(u), -1)
        value = torch.tanh(flat @ self.weight) * (1 + 0.1 * torch.tanh(label)[:, None])
        return value.reshape(u.shape)


def starts(field):
    return field.sde.prior(field.domain).sample(Noise(1), torch.arange(32), torch.float64)


@cache
def fine_solution(law, sde):
    """A field, starting points, and where a grid much finer than those under test takes them."""
    field = law(sde)
    start = starts(field)
    return field, start, Heun(900).sample(field, start=start, dtype=torch.float64)


def smooth_mixture(sde):
    """Overlapping, unequal modes: a truth with nothing symmetric about it."""
    means = [[1.0, 0.5], [-1.5, 0.2], [0.3, -1.2]]
    return GaussianMixture(means, stds=[0.7, 0.9, 0.6], weights=[0.5, 0.3, 0.2], sde=sde)


def measured_order(field, sampler, reference, start, counts):
    errors = []
    for steps in counts:
        x = sampler(steps).sample(field, start=start, dtype=torch.float64)
        errors.append(float((x - reference).square().mean().sqrt()))
    logs = torch.tensor([counts, errors], dtype=torch.float64).log()
    slope = torch.linalg.lstsq(
        torch.stack((logs[0], torch.ones_like(logs[0])), dim=1), logs[1]
    ).solution[0]
    return -float(slope)


@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("sampler", DETERMINISTIC)
class TestOrder:
    def test_on_a_gaussian_against_its_exact_flow(self, sampler, sde):
        truth = Gaussian([0.4, -0.3], covariance=[[1.0, 0.5], [0.5, 0.6]], sde=sde)
        start = starts(truth)
        # The last step goes from the lowest noise level to the posterior mean, for any grid.
        end = truth.denoise(truth.flow(start, sde.t_max, sde.t_min), sde.t_min)
        order = measured_order(truth, sampler, end, start, (64, 96, 144, 216))
        assert order == pytest.approx(sampler(1).order, abs=0.2)

    def test_on_a_mixture_against_a_fine_solution(self, sampler, sde):
        truth, start, end = fine_solution(smooth_mixture, sde)
        order = measured_order(truth, sampler, end, start, (64, 96, 144))
        assert order == pytest.approx(sampler(1).order, abs=0.2)


def ring(sde):
    return GaussianMixture.ring(sde=sde)


def test_order_on_the_ring_of_eight():
    truth, start, end = fine_solution(ring, EDM(sigma_max=40.0))
    for sampler in SAMPLERS:
        order = measured_order(truth, sampler, end, start, (96, 128, 192))
        assert order == pytest.approx(sampler.order, abs=0.2)


@pytest.mark.parametrize("sampler", ALL)
class TestAddresses:
    def field(self):
        return PreconditionedField(Linear(dtype=torch.float64), VP(), sigma_data=1.0)

    def test_a_sample_does_not_depend_on_its_batch(self, sampler):
        field = self.field()
        whole = sampler.sample(field, n=70, seed=4, dtype=torch.float64)
        split = sampler.sample(field, n=70, seed=4, batch_size=9, dtype=torch.float64)
        some = torch.tensor([69, 17, 3])
        alone = sampler.sample(field, index=some, seed=4, dtype=torch.float64)
        assert torch.allclose(whole, split, rtol=0, atol=1e-12)
        assert torch.allclose(whole[some], alone, rtol=0, atol=1e-12)

    def test_the_start_is_bit_equal_in_any_batch(self, sampler):
        starts = []
        for index in (torch.arange(64), torch.tensor([17])):
            watched = Watched(Gaussian([0.0, 0.0], std=1.0))
            # Churn would come between; it is one more draw at an address of its own.
            calm = type(sampler)(steps=sampler.steps)
            calm.sample(watched, index=index, seed=4)
            starts.append(watched.points[0])
        assert torch.equal(starts[0][17], starts[1][0])

    def test_noise_is_bit_equal_in_any_batch(self, sampler):
        def first_states(index):
            watched = Watched(Gaussian([0.0, 0.0], std=1.0))
            sampler.sample(watched, index=index, seed=4)
            return watched.points[0]

        assert torch.equal(first_states(torch.arange(64))[17], first_states(torch.tensor([17]))[0])

    def test_a_seed_gives_the_same_samples_again_and_another_seed_others(self, sampler):
        field = self.field()
        x = sampler.sample(field, n=8, seed=4)
        state = torch.get_rng_state()
        assert torch.equal(x, sampler.sample(field, n=8, seed=4))
        assert not torch.isclose(x, sampler.sample(field, n=8, seed=5)).any()
        assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("sampler", ALL)
@pytest.mark.parametrize("shape", [(), (3,), (2, 4, 4)])
def test_any_event_shape(sampler, shape):
    x = sampler.sample(Gaussian(torch.zeros(shape), std=1.0), n=5, seed=0)
    assert x.shape == (5, *shape)
    assert x.isfinite().all()


@pytest.mark.parametrize("sampler", ALL)
@pytest.mark.parametrize("state", [torch.float32, torch.float64])
@pytest.mark.parametrize("network", [torch.float32, torch.float64, torch.bfloat16])
def test_states_have_the_dtype_asked_for_and_the_network_keeps_its_own(sampler, state, network):
    backbone = Linear(dtype=network)
    seen = set()
    backbone.register_forward_hook(lambda module, args, output: seen.add(output.dtype))
    field = PreconditionedField(backbone, EDM(), sigma_data=1.0)
    assert sampler.sample(field, n=3, dtype=state).dtype == state
    assert seen == {network}
    assert backbone.weight.dtype == network


@pytest.mark.parametrize("sampler", [*COUNTED, Euler(1), Heun(1), Heun(2), PredictorCorrector(1)])
def test_nfe_is_the_true_number_of_network_calls(sampler):
    watched = Watched(Gaussian([0.0], std=1.0))
    told = []
    sampler.sample(watched, n=10, batch_size=4, callback=lambda state: told.append(state.nfe))
    assert len(watched.points) == 3 * sampler.nfe
    assert sum(map(len, watched.points)) == 10 * sampler.nfe
    assert told[-1] == sampler.nfe


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("budget", [1, 2, 7, 8, 35, 64])
def test_a_budget_is_used_up_and_kept(sampler, budget):
    chosen = sampler.for_nfe(budget, churn=2.0)
    assert chosen.churn == 2.0
    assert chosen.nfe <= budget < sampler(chosen.steps + 1).nfe


@pytest.mark.parametrize("sampler", ALL)
def test_noise_is_drawn_after_the_start_only_where_it_is_declared(sampler):
    watched = Gaussian([0.0, 0.0], std=1.0)
    start = watched.sde.prior(watched.domain).sample(Noise(0), torch.arange(4))
    x, y = (sampler.sample(watched, seed=seed, start=start) for seed in (1, 2))
    assert torch.equal(x, y) != sampler.stochastic


@pytest.mark.parametrize("sampler", [Euler(256, churn=2.0), Heun(128, churn=20.0)])
@pytest.mark.parametrize("sde", [EDM(prior_mean=0.5), VP()], ids=["EDM", "VP"])
def test_churn_leaves_the_law_of_a_gaussian_as_it_is(sampler, sde):
    n, std = 4000, 0.6
    truth = Gaussian([0.5], std=std, sde=sde)
    x = sampler.sample(truth, n=n, dtype=torch.float64).squeeze(1)
    # Six standard errors, a false alarm in 5e8 each, and 2 % for the method's own error.
    assert abs(float(x.mean()) - 0.5) < (6 / n**0.5 + 0.02) * std
    assert abs(float(x.std()) - std) < (6 / (2 * n) ** 0.5 + 0.02) * std
    kurtosis = float((x - x.mean()).pow(4).mean() / x.var() ** 2)
    assert abs(kurtosis - 3) < 6 * (24 / n) ** 0.5


def test_inflated_churn_noise_widens_the_law():
    truth = Gaussian([0.0], std=0.6)
    settings = {"steps": 48, "churn": 12.0, "churn_max": 5.0}
    plain = Heun(**settings).sample(truth, n=4000, dtype=torch.float64)
    wide = Heun(**settings, churn_noise=1.05).sample(truth, n=4000, dtype=torch.float64)
    # The same noise, inflated: the two differ without sampling error to speak of.
    assert float(wide.std() / plain.std()) > 1.01


@pytest.mark.parametrize("sampler", [Euler(200), Heun(40), Heun(40, churn=8.0)])
def test_a_mixture_comes_out_with_its_weights(sampler):
    truth = GaussianMixture(
        [[4.0, 0.0], [-4.0, 0.0], [0.0, 4.0]],
        stds=0.3,
        weights=[0.5, 0.3, 0.2],
        sde=EDM(sigma_max=200.0),
    )
    n = 6000
    x = sampler.sample(truth, n=n, dtype=torch.float64)
    nearest = torch.cdist(x, truth.means)
    counts = torch.bincount(nearest.argmin(dim=1), minlength=3)
    assert float(nearest.min(dim=1).values.max()) < 6.5 * 0.3
    expected = n * truth.weights
    # Two degrees of freedom: P(chi² > 2 ln 1e7) = 1e-7.
    assert float(((counts - expected) ** 2 / expected).sum()) < 2 * math.log(1e7)


@pytest.mark.parametrize("sampler", EXACT_ON_POINTS)
def test_samples_of_an_affine_flow_are_where_the_flow_puts_them(sampler):
    """With the posterior mean constant, every one-step method without churn is exact."""
    for sde in PROCESSES:
        point = Empirical(torch.full((1, 2), 2.0), sde)
        x = sampler.sample(point, n=4, dtype=torch.float64)
        assert torch.allclose(x, torch.full_like(x, 2.0), atol=1e-9)


@pytest.mark.parametrize("sampler", ALL)
@pytest.mark.parametrize("head", ["inner", "denoising"])
def test_potentials_and_hybrids_sample_without_recording_gradients(sampler, head):
    network = PreconditionedField(Linear(), EDM(), sigma_data=1.0)
    potential = PotentialField(Linear(), EDM(), sigma_data=1.0, head=head)
    for field in (potential, HybridField(potential, network, sigma_c=1.0)):
        x = sampler.sample(field, n=6)
        assert not x.requires_grad
        assert x.isfinite().all()
        assert all(p.grad is None for p in field.parameters())


@pytest.mark.parametrize("sampler", ALL)
def test_the_field_is_in_evaluation_mode_meanwhile_and_as_before_afterwards(sampler):
    backbone = torch.nn.Sequential(Linear(), torch.nn.Dropout(0.5))
    modes = set()

    class Backbone(torch.nn.Module):
        event_shape = (2,)

        def __init__(self) -> None:
            super().__init__()
            self.linear, self.dropout = backbone[0], backbone[1]

        def forward(self, u, label):
            modes.add(self.dropout.training)
            return self.dropout(self.linear(u, label))

    field = PreconditionedField(Backbone(), EDM(), sigma_data=1.0).train()
    field.backbone.linear.eval()
    sampler.sample(field, n=2)
    assert modes == {False}
    assert field.training
    assert field.backbone.dropout.training
    assert not field.backbone.linear.training

import dataclasses
from itertools import pairwise

import pytest
import torch

from scorefield import (
    DDIM,
    VP,
    Ancestral,
    AnnealedLangevin,
    DPMSolverPlusPlus2M,
    Euler,
    Gaussian,
    Heun,
    Langevin,
    PredictorCorrector,
)
from scorefield.noise import Noise
from scorefield.samplers.step import SamplerState
from tests.planted import Function

TRUTH = Gaussian([0.0, 1.0], std=1.0)


def breaking(value):
    """A field that is not finite to the right of a point, below a noise level."""

    def score(x, t):
        t = torch.as_tensor(t).to(x)
        return torch.where((x[:, :1] > 0) & (t < 1.0), value, -x / (t**2 + 1))

    return Function(score)


class TestCallback:
    def states(self, sampler, **arguments):
        seen: list[SamplerState] = []
        x = sampler.sample(TRUTH, callback=seen.append, **arguments)
        return x, seen

    @pytest.mark.parametrize(
        "sampler",
        [
            Euler(5),
            Heun(5),
            Heun(5, churn=2.0),
            DDIM(5, eta=0.5),
            DPMSolverPlusPlus2M(5),
            PredictorCorrector(5, Ancestral(), AnnealedLangevin(0.1)),
            PredictorCorrector(6, Ancestral(), AnnealedLangevin(0.1, 2), first="predictor"),
            PredictorCorrector(5, None, AnnealedLangevin(0.1)),
        ],
    )
    def test_it_sees_every_step_of_every_block(self, sampler):
        x, seen = self.states(sampler, n=7, batch_size=4)
        assert [(s.block, s.step) for s in seen] == [(b, i) for b in (0, 1) for i in range(5)]
        assert {(s.steps, s.blocks) for s in seen} == {(5, 2)}
        assert [s.index.tolist() for s in seen[::5]] == [[0, 1, 2, 3], [4, 5, 6]]
        for before, after in pairwise(seen[:5]):
            assert before.sigma_next == after.sigma
            assert before.nfe < after.nfe
        assert seen[4].sigma_next == 0
        assert torch.equal(torch.cat((seen[4].x, seen[9].x)), x)

    @pytest.mark.parametrize(
        "sampler",
        [Euler(6), DDIM(6), DPMSolverPlusPlus2M(6), PredictorCorrector(6, Ancestral())],
    )
    def test_the_denoised_points_are_the_posterior_means(self, sampler):
        _, seen = self.states(sampler, n=3, dtype=torch.float64)
        for before, after in pairwise(seen):
            mean = TRUTH.denoise(before.x, before.sigma_next)
            assert torch.allclose(after.denoised, mean, atol=1e-10)
        assert torch.allclose(seen[-1].denoised, seen[-1].x, atol=1e-10)

    def test_its_state_cannot_be_assigned_to(self):
        _, seen = self.states(Euler(1), n=1)
        with pytest.raises(dataclasses.FrozenInstanceError):
            seen[0].step = 3

    @pytest.mark.parametrize(
        "sampler",
        [
            Heun(4, churn=1.0),
            DPMSolverPlusPlus2M(4),
            PredictorCorrector(4, corrector=Langevin(0.1)),
        ],
    )
    def test_watching_changes_nothing(self, sampler):
        x, _ = self.states(sampler, n=5)
        assert torch.equal(x, sampler.sample(TRUTH, n=5))


class TestStart:
    def test_starting_points_take_the_place_of_the_prior(self):
        truth = TRUTH.under(VP())
        index = torch.arange(5, 12)
        prior = truth.sde.prior(truth.domain).sample(Noise(3), index)
        drawn = Heun(4).sample(truth, index=index, seed=3)
        given = Heun(4).sample(truth, start=prior, batch_size=3)
        torch.testing.assert_close(drawn, given)

    def test_they_may_have_addresses_for_the_churn(self):
        start = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)) * 80
        churned = Heun(4, churn=2.0)
        both = churned.sample(TRUTH, start=start, index=torch.tensor([0, 1, 2]))
        last = churned.sample(TRUTH, start=start[2:], index=torch.tensor([2]))
        assert torch.allclose(both[2:], last, rtol=0, atol=1e-5)


class TestMistakes:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_state_that_is_not_finite_names_step_level_and_samples(self, value):
        with pytest.raises(FloatingPointError) as caught:
            Euler(10).sample(breaking(value), index=torch.arange(100, 140), batch_size=16)
        message = str(caught.value)
        assert "step" in message
        assert "of 10, from noise level 0." in message
        assert "sample indices 1" in message
        assert message.count(",") <= 10

    def test_an_overflowing_sum_of_finite_states_is_no_mistake(self):
        start = torch.full((4, 2), 3e38)
        state = Euler(1).sample(Gaussian([0.0, 0.0], std=1e3), start=start)
        assert state.isfinite().all()

    @pytest.mark.parametrize("n", [0, -1, True])
    def test_the_number_of_samples_is_positive(self, n):
        with pytest.raises(ValueError, match="number of samples must be a positive integer"):
            Euler(2).sample(TRUTH, n=n)

    def test_the_number_of_samples_is_required(self):
        with pytest.raises(ValueError, match="number of samples is missing"):
            Euler(2).sample(TRUTH)
        with pytest.raises(ValueError, match="either n or index"):
            Euler(2).sample(TRUTH, n=3, index=torch.arange(3))

    @pytest.mark.parametrize("batch_size", [0, -4])
    def test_the_batch_size_is_positive(self, batch_size):
        with pytest.raises(ValueError, match="batch_size"):
            Euler(2).sample(TRUTH, n=3, batch_size=batch_size)

    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize(
        "index", [torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64), torch.arange(0)]
    )
    def test_indices_are_one_row_of_integers(self, index):
        with pytest.raises(ValueError, match="sample indices"):
            Euler(2).sample(TRUTH, index=index)

    def test_indices_are_not_negative(self):
        with pytest.raises(ValueError, match="negative"):
            Euler(2).sample(TRUTH, index=torch.tensor([-1]))

    def test_start_has_the_event_shape_of_the_field(self):
        with pytest.raises(ValueError, match=r"event shape \(3,\) .* on event shape \(2,\)"):
            Euler(2).sample(TRUTH, start=torch.zeros(4, 3))

    @pytest.mark.usefixtures("unchecked")
    def test_start_has_as_many_points_as_samples_are_wanted(self):
        with pytest.raises(ValueError, match="5 samples cannot start from 4 points"):
            Euler(2).sample(TRUTH, n=5, start=torch.zeros(4, 2))
        with pytest.raises(ValueError, match="5 samples cannot start from 4 points"):
            Euler(2).sample(TRUTH, index=torch.arange(5), start=torch.zeros(4, 2))

    def test_the_dtype_is_a_floating_one(self):
        with pytest.raises(ValueError, match="floating dtype"):
            Euler(2).sample(TRUTH, n=2, dtype=torch.int64)

    @pytest.mark.usefixtures("unchecked")
    def test_the_seed_is_an_integer(self):
        with pytest.raises(TypeError, match="seed"):
            Euler(2).sample(TRUTH, n=2, seed=0.5)


@pytest.mark.parametrize("sampler", [Euler, Heun])
class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "name"),
        [
            ({"steps": 0}, "steps must be a positive integer"),
            ({"steps": 4, "rho": 0.0}, "rho"),
            ({"steps": 4, "churn": -1.0}, "churn"),
            ({"steps": 4, "churn": float("inf")}, "churn"),
            ({"steps": 4, "churn_min": 2.0, "churn_max": 1.0}, "churn_min <= churn_max"),
            ({"steps": 4, "churn_min": -1.0}, "churn_min"),
            ({"steps": 4, "churn_noise": 0.0}, "churn_noise"),
        ],
    )
    def test_a_setting_out_of_range_is_named(self, sampler, settings, name):
        with pytest.raises(ValueError, match=name):
            sampler(**settings)

    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize("steps", [2.5, "4"])
    def test_steps_are_an_integer(self, sampler, steps):
        with pytest.raises(ValueError, match="steps must be a positive integer"):
            sampler(steps)

    @pytest.mark.parametrize("budget", [0, -5])
    def test_a_budget_is_positive(self, sampler, budget):
        with pytest.raises(ValueError, match="network calls must be a positive integer"):
            sampler.for_nfe(budget)

    def test_samplers_are_values(self, sampler):
        assert sampler(5) == sampler(5)
        assert hash(sampler(5)) == hash(sampler(5))
        with pytest.raises(dataclasses.FrozenInstanceError):
            sampler(5).steps = 6

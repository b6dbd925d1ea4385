"""What predictor–corrector sampling is made of, and the mistakes that can be made with it."""

import pytest
import torch

from scorefield import (
    DDIM,
    EDM,
    VE,
    VP,
    Ancestral,
    AnnealedLangevin,
    Cosine,
    DiscreteVP,
    DPMSolverPlusPlus2M,
    EulerMaruyama,
    Gaussian,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
    SubVP,
)
from scorefield.noise import Noise
from scorefield.samplers.predictor_corrector import _default_end
from scorefield.sde.discrete import DDPMSteps, EulerForward, Exact, SMLDSteps

T = torch.tensor([0.9, 0.5], dtype=torch.float64)
S = torch.tensor([0.8, 0.3], dtype=torch.float64)


def truth(sde, shape=(2,)):
    return Gaussian(torch.zeros(shape), std=0.5, sde=sde)


class TestPredictors:
    @pytest.mark.parametrize("sde", [VE(), VP(), SubVP(), Cosine()], ids=lambda s: type(s).__name__)
    def test_ancestral_with_the_posterior_is_the_step_of_bayes_for_a_point(self, sde):
        """With all data at one point, the law of x_s given x_t is had by conditioning."""
        point = 1.3
        step = Ancestral("posterior").reverse(sde, T, S, Exact())
        x = torch.tensor([0.4, -0.2], dtype=torch.float64)
        score = -(x - sde.alpha(T) * point) / sde.sigma(T) ** 2
        factor, std = sde.transition(S, T)
        precision = 1 / sde.sigma(S) ** 2 + (factor / std) ** 2
        mean = (sde.alpha(S) * point / sde.sigma(S) ** 2 + factor * x / std**2) / precision
        assert torch.allclose(step.mean(x, score), mean, rtol=1e-9)
        assert torch.allclose(step.spread, precision.rsqrt(), rtol=1e-9)

    @pytest.mark.parametrize("predictor", [EulerMaruyama, ReverseDiffusion])
    def test_the_probability_flow_takes_half_of_the_score_and_no_noise(self, predictor):
        for sde in (VE(), VP(), SubVP()):
            full = predictor().reverse(sde, T, S, Exact())
            half = predictor(probability_flow=True).reverse(sde, T, S, Exact())
            assert torch.equal(half.keep, full.keep)
            assert torch.equal(2 * half.gain, full.gain)
            assert not half.spread.any()

    def test_euler_and_maruyama_take_drift_and_diffusion_times_the_step(self):
        for sde in (VP(), SubVP(), EDM()):
            step = EulerMaruyama().reverse(sde, T, S, Exact())
            h = T - S
            assert torch.allclose(step.keep, 1 - sde.drift(T) * h)
            assert torch.allclose(step.gain, sde.diffusion_squared(T) * h)
            assert torch.allclose(step.spread, sde.diffusion(T) * h.sqrt())

    def test_with_levels_its_step_is_theirs(self):
        one = EulerMaruyama().reverse(VP(), T, S, DDPMSteps(100))
        other = ReverseDiffusion().reverse(VP(), T, S, EulerForward(100))
        assert all(map(torch.equal, one, other))

    def test_the_variance_is_the_upper_one_where_the_mean_shrinks(self):
        for sde, name in ((VP(), "upper"), (SubVP(), "upper"), (VE(), "posterior")):
            steps = (
                Ancestral().reverse(sde, T, S, Exact()),
                Ancestral(name).reverse(sde, T, S, Exact()),
            )
            assert all(map(torch.equal, *steps))


class TestCorrectors:
    @pytest.mark.parametrize("sde", [VE(), VP(), SubVP(), EDM()], ids=lambda s: type(s).__name__)
    def test_their_steps_shrink_as_the_data_do(self, sde):
        forward = Exact().step(sde, T, S)
        assert torch.allclose(Langevin(0.1).scale(sde, T, forward), 0.02 * forward.factor**2)
        expected = 0.02 * (forward.factor * sde.sigma(T)) ** 2
        assert torch.allclose(AnnealedLangevin(0.1).scale(sde, T, forward), expected)

    def test_the_noise_at_a_time_does_not_depend_on_the_order(self):
        class Watched(Langevin):
            def correct(self, field, x, t, scale, draw, classes=None):
                seen[float(t)] = torch.stack([draw(k) for k in range(self.steps)])
                return super().correct(field, x, t, scale, draw, classes)

        found = []
        for first in ("predictor", "corrector"):
            seen = {}
            sampler = PredictorCorrector(5, corrector=Watched(0.1, 2), first=first)
            sampler.sample(truth(VP()), n=3, dtype=torch.float64)
            found.append(seen)
        common = found[0].keys() & found[1].keys()
        assert len(common) >= 3
        for t in common:
            assert torch.equal(found[0][t], found[1][t])

    def test_inner_steps_have_noise_of_their_own(self):
        asked = []

        class Listening(Noise):
            def normal(self, purpose, shape, index, step=0, dtype=torch.float32):
                asked.append((purpose, step))
                return super().normal(purpose, shape, index, step, dtype)

        sampler = PredictorCorrector(3, corrector=Langevin(0.1, 2))
        sampler.sample(truth(VE()), n=2, seed=Listening(0))
        corrector = [("corrector", k) for k in range(6)]
        predictor = [("predictor", k) for k in range(2)]
        assert sorted(asked) == sorted([("prior", 0), *corrector, *predictor])


@pytest.mark.parametrize("first", ["corrector", "predictor"])
def test_the_order_of_the_updates(first):
    levels = []

    class Watched(Gaussian):
        def score(self, x, t, classes=None):
            levels.append(float(t))
            return super().score(x, t)

        def denoise(self, x, t, classes=None):
            levels.append(float(t))
            return super().denoise(x, t)

    field = Watched(torch.zeros(2), std=0.5, sde=VE())
    sampler = PredictorCorrector(3, corrector=AnnealedLangevin(0.1), first=first, t_end=0.5)
    sampler.sample(field, n=1, dtype=torch.float64)
    expected = {
        "corrector": [1.0, 1.0, 0.75, 0.75, 0.5, 0.5],
        "predictor": [1.0, 0.75, 0.75, 0.5, 0.5],
    }
    assert levels == expected[first]


def test_the_last_time_is_that_of_the_published_samplers():
    ends = {VE(): 1e-5, VP(): 1e-3, SubVP(): 1e-3, EDM(): 0.002, Cosine(): 1e-4}
    ends |= {VE(t_min=0.1): 0.1, VP(t_min=0.01): 0.01, DiscreteVP(levels=100): 0.0}
    assert {sde: _default_end(sde) for sde in ends} == ends


def test_a_discrete_process_is_sampled_along_its_own_levels():
    """Its exact transitions between neighbouring levels are the steps of its table."""
    field = truth(DiscreteVP(levels=50, beta_max=20.0))
    settings = {"n": 4, "seed": 2, "dtype": torch.float64}
    exact = PredictorCorrector(50, Ancestral()).sample(field, **settings)
    table = PredictorCorrector(50, Ancestral(), discretization=DDPMSteps(50)).sample(
        field, **settings
    )
    assert torch.allclose(exact, table, rtol=0, atol=1e-8)


def test_without_noise_removal_the_last_noise_stays():
    field = truth(VE())
    settings = {"n": 3, "seed": 1, "dtype": torch.float64}
    clean, noisy = (
        PredictorCorrector(8, denoise=denoise).sample(field, **settings)
        for denoise in (True, False)
    )
    z = Noise(1).normal("predictor", (2,), torch.arange(3), 7, torch.float64)
    t = torch.tensor(1e-5, dtype=torch.float64)
    assert torch.allclose(noisy - clean, float(VE().sigma(t)) * z, rtol=0, atol=1e-12)


class TestBudget:
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"corrector": Langevin(0.1, 3)},
            {"corrector": Langevin(0.1, 3), "first": "predictor"},
            {"predictor": None, "corrector": Langevin(0.1, 2)},
            {"predictor": None, "corrector": Langevin(0.1, 2), "denoise": False},
        ],
    )
    @pytest.mark.parametrize("budget", [5, 8, 33, 64])
    def test_it_is_used_up_and_kept(self, settings, budget):
        sampler = PredictorCorrector.for_nfe(budget, **settings)
        assert sampler.nfe <= budget < PredictorCorrector(sampler.steps + 1, **settings).nfe

    @pytest.mark.parametrize("sampler", [DDIM, DPMSolverPlusPlus2M])
    def test_one_call_a_step(self, sampler):
        assert sampler.for_nfe(17).nfe == 17

    def test_one_that_is_too_small_is_an_error(self):
        with pytest.raises(ValueError, match="4 network calls, more than a budget of 3"):
            PredictorCorrector.for_nfe(3, corrector=Langevin(0.1, 3))
        with pytest.raises(ValueError, match="network calls must be a positive integer"):
            PredictorCorrector.for_nfe(0)


@pytest.mark.usefixtures("unchecked")
class TestMistakes:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: PredictorCorrector(0), "steps must be a positive integer"),
            (lambda: PredictorCorrector(5, None), "give a predictor or a corrector"),
            (lambda: PredictorCorrector(5, first="both"), "first is corrector or predictor"),
            (lambda: PredictorCorrector(1, first="predictor"), "steps are at least 2"),
            (lambda: PredictorCorrector(5, spacing="even"), "spacing is one of"),
            (lambda: PredictorCorrector(5, rho=0.0), "rho"),
            (
                lambda: PredictorCorrector(5, discretization=SMLDSteps(10)),
                "discretization has 10 levels, .* steps=5",
            ),
            (lambda: Ancestral("lower"), "variance is one of upper, posterior, not 'lower'"),
            (lambda: Langevin(0.0), "snr must be positive"),
            (lambda: Langevin(float("nan")), "snr must be positive"),
            (lambda: AnnealedLangevin(0.1, 0), "steps must be a positive integer"),
            (lambda: Langevin(0.1, 2.5), "steps must be a positive integer"),
            (lambda: Langevin(0.1, 1, "rows"), "norm is one of sample, batch, not 'rows'"),
            (lambda: DDIM(5, eta=1.5), "eta must lie in"),
            (lambda: DDIM(0), "steps must be a positive integer"),
            (lambda: DPMSolverPlusPlus2M(4, spacing="even"), "spacing is one of"),
        ],
    )
    def test_a_setting_out_of_range_is_named(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    @pytest.mark.parametrize(
        ("sde", "settings", "message"),
        [
            (VE(), {"discretization": DDPMSteps(5)}, "sde: DDPM discretises VP, not VE"),
            (VP(), {"discretization": SMLDSteps(5)}, "sde: SMLD discretises VE, not VP"),
            (VP(), {"discretization": DDPMSteps(5)}, "levels=5 are too few for beta_max=20"),
            (VP(), {"discretization": EulerForward(5)}, "levels=5 are too few for the drift"),
            (VP(), {"t_end": 1.0}, "t_end must lie in"),
            (VP(), {"t_end": -0.5}, "t_end must lie in"),
        ],
    )
    def test_what_does_not_fit_the_process_is_named(self, sde, settings, message):
        sampler = PredictorCorrector(5, **settings)
        with pytest.raises(ValueError, match=message):
            sampler.sample(truth(sde), n=2)

    def test_a_start_of_another_shape_is_named(self):
        with pytest.raises(ValueError, match=r"event shape \(3,\)"):
            PredictorCorrector(2).sample(truth(VE()), start=torch.zeros(4, 3))

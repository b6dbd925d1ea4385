"""The law of what samplers return, on normal data, where it is known.

With an exact normal field most updates are affine in the state and in the noise, so that a run is
an affine function of all its noise. The law of the result is then had exactly, and not by drawing:
one sample sees no noise, and each of the others a single coordinate of a single draw.
"""

import math
from dataclasses import dataclass

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
    Euler,
    EulerMaruyama,
    Gaussian,
    GaussianMixture,
    Heun,
    Inpainting,
    Langevin,
    LinearMeasurement,
    PredictorCorrector,
    ReverseDiffusion,
    SubVP,
)
from scorefield.noise import Noise

PROCESSES = [EDM(), VE(), VP(), SubVP(), Cosine()]
COVARIANCE = [[1.0, 0.5], [0.5, 0.6]]


@dataclass(frozen=True)
class Listening(Noise):
    """No noise at all; remembers what was asked for."""

    asked: list

    def normal(self, purpose, shape, index, step=0, dtype=torch.float32):
        self.asked.append((purpose, step))
        return torch.zeros(*index.shape, *shape, dtype=dtype)


@dataclass(frozen=True)
class Unit(Noise):
    """Draw k is zero but for the samples that are its own, each of which has a 1 somewhere."""

    first: dict

    def normal(self, purpose, shape, index, step=0, dtype=torch.float32):
        z = torch.zeros(*index.shape, math.prod(shape), dtype=dtype)
        place = index - self.first[purpose, step]
        own = (place >= 0) & (place < z.shape[1])
        z[own, place[own]] = 1
        return z.reshape(*index.shape, *shape)


def law(sampler, field, measurement=None):
    """The exact mean and covariance of the flattened samples, before the last step and after it,
    for starting points that have the diffused law.
    """
    sde, dim = field.sde, field.domain.dim
    t = torch.tensor(sde.t_max, dtype=torch.float64)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    root = torch.linalg.cholesky(alpha**2 * field.covariance + sigma**2 * torch.eye(dim))
    mean = (alpha * field.mean).reshape(1, dim)
    listening = Listening(0, [])
    settings = {"dtype": torch.float64, "measurement": measurement}
    sampler.sample(field, start=mean.reshape(1, *field.domain.shape), seed=listening, **settings)
    first = {address: 1 + dim * (k + 1) for k, address in enumerate(listening.asked)}
    start = mean.repeat(1 + dim * (1 + len(first)), 1)
    start[1 : 1 + dim] += root.T
    states = []
    sampler.sample(
        field,
        start=start.reshape(-1, *field.domain.shape),
        seed=Unit(0, first),
        batch_size=len(start),
        callback=lambda state: states.append(state.x.flatten(1)),
        **settings,
    )
    return [(x[0], (x[1:] - x[0]).T @ (x[1:] - x[0])) for x in states[-2:]]


def normal(sde):
    return Gaussian([0.4, -0.3], covariance=COVARIANCE, sde=sde)


def distance(found, mean, covariance):
    """How far a normal law is off, in units of the true standard deviation."""
    off = torch.linalg.vector_norm(found[0] - mean) ** 2 / covariance.trace()
    return float(off.sqrt() + torch.linalg.matrix_norm(found[1] - covariance) / covariance.trace())


def slope(counts, errors):
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (counts, errors))
    return -float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


PREDICTORS = [
    ReverseDiffusion(),
    ReverseDiffusion(probability_flow=True),
    EulerMaruyama(),
    EulerMaruyama(probability_flow=True),
    Ancestral("upper"),
    Ancestral("posterior"),
]


@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: type(sde).__name__)
class TestWeakOrder:
    """Laws at the last time of the grid converge to the diffused law at the declared order."""

    def rate(self, sde, make, counts, t_end):
        truth = normal(sde)
        level = float(sde.noise_level(torch.tensor(t_end, dtype=torch.float64)))
        covariance = truth.covariance + level**2 * torch.eye(2)
        errors = [distance(law(make(n), truth)[0], truth.mean, covariance) for n in counts]
        assert errors[-1] < 0.1
        return slope(counts, errors)

    @pytest.mark.parametrize("predictor", PREDICTORS)
    def test_predictors_have_order_one(self, sde, predictor):
        t_end = float(sde.time(torch.tensor(0.05, dtype=torch.float64)))
        # In their own time, EDM and Cosine are uneven.
        spacing = "logsnr" if isinstance(sde, EDM | Cosine) else "time"

        def make(steps):
            return PredictorCorrector(steps, predictor, spacing=spacing, t_end=t_end)

        rate, order = self.rate(sde, make, (160, 320), t_end), PredictorCorrector.order
        if isinstance(sde, VE) and predictor == EulerMaruyama():
            # On a grid of equal ratios the first terms of its error cancel.
            assert rate > order
        else:
            assert rate == pytest.approx(order, abs=0.1)

    @pytest.mark.parametrize("eta", [0.5, 1.0])
    def test_ddim_has_order_one_with_noise_too(self, sde, eta):
        rate = self.rate(sde, lambda n: DDIM(n, eta=eta), (120, 240), sde.t_min)
        assert rate == pytest.approx(DDIM.order, abs=0.1)


def test_steps_need_not_be_those_of_the_table():
    """A process of 1000 levels, in a tenth of the steps: no step leaves less than nothing."""
    truth = normal(DiscreteVP(levels=1000))
    errors = [
        distance(law(PredictorCorrector(n, Ancestral()), truth)[1], truth.mean, truth.covariance)
        for n in (50, 100, 200)
    ]
    assert slope((50, 100, 200), errors) == pytest.approx(1, abs=0.25)


class TestWhatACorrectorKeeps:
    """At one noise level, a corrector of finite step has a stationary law near the diffused one."""

    sde, snr, std = VE(sigma_max=2.0), 0.2, 1.5

    def chain(self, corrector):
        """Steps at the highest level alone."""
        return PredictorCorrector(1, None, corrector, denoise=False)

    def test_annealed_langevin_widens_as_langevin_steps_do(self):
        truth = Gaussian([0.4], std=self.std, sde=self.sde)
        mean, covariance = law(self.chain(AnnealedLangevin(self.snr, 200)), truth)[-1]
        variance = self.std**2 + 2.0**2
        step = 2 * (self.snr * 2.0) ** 2
        assert float(mean) == pytest.approx(0.4, abs=1e-9)
        assert float(covariance) == pytest.approx(variance / (1 - step / (2 * variance)), rel=1e-9)

    @pytest.mark.parametrize("norm", ["sample", "batch"])
    def test_langevin_widens_by_its_ratio_and_by_the_fewness_of_coordinates(self, norm):
        n, shape, dim, ratio = 600, (3, 4, 4), 48, 0.4
        truth = Gaussian(torch.zeros(shape), std=self.std, sde=self.sde)
        variance = self.std**2 + 2.0**2
        start = truth.sample(n, seed=1, t=self.sde.t_max, dtype=torch.float64)
        sampler = self.chain(Langevin(ratio, 40, norm))
        x = sampler.sample(truth, start=start, dtype=torch.float64)
        square = x.flatten(1).square().sum(dim=1) / variance
        if norm == "sample":
            # The mean of |x|^2 stays as it is if E 1/|x|^2 = 1 / (v (D + 2) (1 + r^2)).
            inverse = 1 / square
            found, expected = float(inverse.mean()), 1 / ((dim + 2) * (1 + ratio**2))
            error = float(inverse.std()) / math.sqrt(n)
        else:
            found, expected = float(square.mean()) / dim, 1 + ratio**2
            error = float(square.std()) / dim / math.sqrt(n)
        assert abs(found - expected) < 6 * error

    def test_a_whole_run_keeps_the_law_up_to_the_square_of_the_ratio(self):
        truth = normal(VE())
        sampler = PredictorCorrector(200, Ancestral(), AnnealedLangevin(0.16))
        assert distance(law(sampler, truth)[1], truth.mean, truth.covariance) < 0.05


class TestLangevin:
    def test_a_sample_does_not_depend_on_its_batch_but_by_name(self):
        truth = Gaussian(torch.zeros(3, 2, 2), std=0.5, sde=VE())

        def samples(norm, batch_size):
            sampler = PredictorCorrector(5, corrector=Langevin(0.16, 2, norm))
            return sampler.sample(truth, n=64, batch_size=batch_size, dtype=torch.float64)

        own = samples("sample", 64)
        for batch_size in (1, 7):
            assert torch.allclose(samples("sample", batch_size), own, rtol=0, atol=1e-10)
            assert not torch.allclose(samples("batch", batch_size), samples("batch", 64), atol=1e-4)

    def test_in_a_batch_of_one_the_two_are_one(self):
        truth = Gaussian(torch.zeros(3, 2, 2), std=0.5, sde=VP())
        results = [
            PredictorCorrector(12, corrector=Langevin(0.16, 2, norm)).sample(
                truth, n=1, dtype=torch.float64
            )
            for norm in ("sample", "batch")
        ]
        assert torch.allclose(*results, rtol=0, atol=1e-10)


@dataclass(frozen=True)
class Path(Noise):
    """One Brownian path, seen at intervals of any length: coarse increments are sums of fine."""

    fine: int
    intervals: int

    def normal(self, purpose, shape, index, step=0, dtype=torch.float32):
        assert purpose == "predictor"
        ratio = self.fine // self.intervals
        steps = torch.arange(step * ratio, (step + 1) * ratio).unsqueeze(1)
        z = super().normal("path", shape, index, steps, torch.float64)
        return (z.sum(dim=0) / math.sqrt(ratio)).to(dtype)


@pytest.mark.slow
@pytest.mark.parametrize("predictor", [EulerMaruyama(), ReverseDiffusion()])
@pytest.mark.parametrize("sde", [VE(0.05, 10.0), VP(t_min=0.02), SubVP(t_min=0.05)], ids=repr)
def test_strong_order_one_on_one_brownian_path(sde, predictor):
    """The noise is additive, so that the method of Euler and Maruyama is that of Milstein."""
    means = [[1.0, 0.5], [-1.5, 0.2], [0.3, -1.2]]
    truth = GaussianMixture(means, stds=[0.7, 0.9, 0.6], weights=[0.5, 0.3, 0.2], sde=sde)
    start = sde.prior(truth.domain).sample(Noise(1), torch.arange(24), torch.float64)
    fine, counts = 1024, (64, 128)

    def end(intervals):
        sampler = PredictorCorrector(intervals + 1, predictor)
        noise = Path(3, fine, intervals)
        return sampler.sample(truth, start=start, seed=noise, dtype=torch.float64)

    reference = end(fine)
    errors = [float((end(n) - reference).square().mean().sqrt()) for n in counts]
    # Of two errors of order one, the difference is in proportion to that of the steps.
    assert slope([1 / (1 / n - 1 / fine) for n in counts], errors) == pytest.approx(1, abs=0.1)


def test_another_path_ends_elsewhere():
    truth = normal(VP())
    sampler = PredictorCorrector(33, EulerMaruyama())
    start = torch.zeros(4, 2, dtype=torch.float64)
    x, y = (sampler.sample(truth, start=start, seed=Path(s, 64, 32)) for s in (1, 2))
    assert not torch.isclose(x, y).any()


def test_eta_zero_on_karras_grid_is_euler_and_eta_one_is_ancestral():
    truth = normal(VP())
    start = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    settings = {"start": start, "dtype": torch.float64}
    euler = Euler(9)
    assert torch.allclose(
        DDIM(9).sample(truth, **settings), euler.sample(truth, **settings), rtol=0, atol=1e-12
    )
    noise = Listening(0, [])
    chain = PredictorCorrector(9, Ancestral("posterior"), spacing="karras", t_end=truth.sde.t_min)
    ddim = DDIM(9, eta=1.0)
    assert torch.allclose(
        chain.sample(truth, seed=noise, **settings),
        ddim.sample(truth, seed=noise, **settings),
        rtol=0,
        atol=1e-9,
    )


MEASURING = [
    PredictorCorrector(60, Ancestral()),
    PredictorCorrector(60, ReverseDiffusion(), AnnealedLangevin(0.16, 2)),
    Heun(30),
    DDIM(60, eta=1.0),
    DPMSolverPlusPlus2M(40),
]


@pytest.mark.parametrize("sde", [VE(), VP()], ids=repr)
class TestMeasured:
    """The law of samples under a measurement, beside the conditional law."""

    def conditional(self, truth, axes, known):
        """Mean and covariance of the normal law given its coordinates along some axes."""
        cross = truth.covariance @ axes.T
        gain = cross @ torch.linalg.inv(axes @ cross)
        mean = truth.mean + gain @ (known - axes @ truth.mean)
        return mean, truth.covariance - gain @ cross.T

    def correlated(self, sampler, sde):
        """What is found of a coordinate whose correlation with the known one is 0.8: its mean,
        0.8 in truth, and its variance, 0.36 in truth.
        """
        covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
        truth = Gaussian([0.0, 0.0], covariance=covariance, sde=sde)
        known = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        mean, covariance = law(sampler, truth, Inpainting(torch.tensor([1, 0]), known))[1]
        assert float(mean[0]) == pytest.approx(1, abs=1e-12)
        assert float(covariance[0].abs().max()) < 1e-12
        return float(mean[1]), float(covariance[1, 1])

    @pytest.mark.parametrize("sampler", MEASURING)
    def test_what_is_independent_of_the_known_part_has_its_law_still(self, sde, sampler):
        """The law is that without the measurement, in any basis: to what the sampler errs."""
        angle = torch.tensor(0.6, dtype=torch.float64)
        axes = torch.stack([angle.cos(), angle.sin()]), torch.stack([-angle.sin(), angle.cos()])
        rotation = torch.stack(axes)
        covariance = rotation.T @ torch.tensor([[1.5, 0.0], [0.0, 0.4]]).double() @ rotation
        truth = Gaussian([0.4, -0.3], covariance=covariance, sde=sde)
        y = torch.tensor([[2.5]], dtype=torch.float64)
        mean, found = law(sampler, truth, LinearMeasurement(rotation[:1], y))[1]
        assert float(rotation[0] @ mean) == pytest.approx(2.5, abs=1e-9)
        assert float((rotation[0] @ found).abs().max()) < 1e-9
        free_mean, free = law(sampler, truth)[1]
        assert float(rotation[1] @ (mean - free_mean)) == pytest.approx(0, abs=1e-9)
        assert float(rotation[1] @ (found - free) @ rotation[1]) == pytest.approx(0, abs=1e-9)
        expected, variance = self.conditional(truth, rotation[:1], y[0])
        assert torch.allclose(mean, expected, atol=0.1)
        assert torch.allclose(found, variance, atol=0.1)

    def test_replacing_alone_goes_half_of_the_way_to_the_conditional_law(self, sde):
        """It is biased where the parts depend on each other: by no means exact."""
        mean, variance = self.correlated(PredictorCorrector(300, Ancestral()), sde)
        assert mean == pytest.approx(0.5, abs=0.03)
        assert 0.45 < variance < 0.55
        # Without fresh noise the known part has less to say.
        mean, variance = self.correlated(Heun(40), sde)
        assert 0.3 < mean < 0.4
        assert 0.55 < variance < 0.7

    def test_corrector_steps_bring_it_nearer(self, sde):
        def found(corrector):
            return self.correlated(PredictorCorrector(60, Ancestral(), corrector), sde)

        samplers = [None, AnnealedLangevin(0.16, 1), AnnealedLangevin(0.5, 1)]
        means, variances = zip(*map(found, [*samplers, AnnealedLangevin(0.5, 4)]), strict=True)
        assert list(means) == sorted(means)
        assert list(variances) == sorted(variances, reverse=True)
        assert 0.65 < means[-1] < 0.8
        assert 0.36 < variances[-1] < 0.46

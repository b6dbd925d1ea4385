"""Sampling along the flow to a tolerance: on normal laws the flow is known."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from scorefield import EDM, VE, VP, Gaussian, GaussianMixture, PreconditionedField, SubVP
from scorefield.noise import Noise
from scorefield.samplers.flow import Flow, StalledError
from scorefield.samplers.ode import ProbabilityFlow
from tests.planted import Affine

SDES = [EDM(), VE(), VP(t_min=1e-3), SubVP(t_min=1e-2)]


def gaussian(sde, shape=(3,)):
    mean = torch.full(shape, 0.3, dtype=torch.float64)
    std = 0.5 + 0.1 * torch.arange(mean.numel(), dtype=torch.float64).reshape(shape)
    return Gaussian(mean, std, sde=sde)


def alpha(sde, t):
    return float(sde.alpha(torch.tensor(t, dtype=torch.float64)))


@pytest.mark.parametrize("sde", SDES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 2)])
def test_on_a_normal_law_it_ends_where_the_flow_does(sde, shape):
    field = gaussian(sde, shape)
    start = sde.prior(field.domain).sample(Noise(0), torch.arange(5), torch.float64)
    exact = field.flow(start, sde.t_max, sde.t_min) / alpha(sde, sde.t_min)
    plain = ProbabilityFlow(1e-9, 1e-9, denoise=False)
    found = plain.sample(field, start=start, dtype=torch.float64)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-7)
    denoised = ProbabilityFlow(1e-9, 1e-9).sample(field, start=start, dtype=torch.float64)
    mean = field.denoise(alpha(sde, sde.t_min) * exact, sde.t_min)
    torch.testing.assert_close(denoised, mean, rtol=0, atol=1e-7)


def test_the_error_follows_the_tolerance():
    field = GaussianMixture.ring(sde=EDM())
    x = [
        ProbabilityFlow(tol, tol).sample(field, 32, dtype=torch.float64)
        for tol in (1e-4, 1e-6, 1e-8, 1e-11)
    ]
    errors = [float((one - x[-1]).square().mean().sqrt()) for one in x[:-1]]
    assert errors[0] < 2e-2
    assert errors[1] < 0.05 * errors[0]
    assert errors[2] < 0.05 * errors[1]


def test_it_ends_where_it_is_told_to():
    sde = VP()
    field = gaussian(sde)
    start = sde.prior(field.domain).sample(Noise(0), torch.arange(4), torch.float64)
    plain = ProbabilityFlow(1e-8, 1e-8, t_end=0.3, denoise=False)
    found = plain.sample(field, start=start, dtype=torch.float64)
    exact = field.flow(start, 1.0, 0.3) / alpha(sde, 0.3)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-6)


def test_a_sample_does_not_know_its_batch():
    field = GaussianMixture.ring(sde=VP(t_min=1e-3))
    method, told = ProbabilityFlow(1e-6, 1e-6), []
    whole = method.sample(field, 64, seed=3, dtype=torch.float64)
    for size in (1, 7):
        parts = method.sample(
            field, 64, seed=3, dtype=torch.float64, batch_size=size, callback=told.append
        )
        torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-13)
    alone = method.sample(field, index=torch.tensor([17]), seed=3, dtype=torch.float64)
    torch.testing.assert_close(alone[0], whole[17], rtol=1e-10, atol=1e-13)


def test_the_callback_tells_what_was_taken():
    rows, truth = [], GaussianMixture.ring(sde=EDM())

    class Watched(type(truth)):
        def predict(self, x, t, quantity, classes=None):
            rows.append(len(x))
            return super().predict(x, t, quantity)

    field = Watched.ring(sde=EDM())
    states = []
    ProbabilityFlow(1e-4, 1e-4).sample(field, 10, batch_size=4, callback=states.append)
    last = [s for s in states if s.step + 1 == s.steps]
    assert [s.block for s in last] == [0, 1, 2]
    assert all(bool(s.solution.arrived.all()) for s in last)
    assert sum(int(s.solution.calls.sum()) for s in last) == sum(rows)
    first = [s for s in states if s.block == 0]
    assert all(a.step < b.step and a.nfe < b.nfe for a, b in pairwise(first))
    assert all(a.sigma_next == b.sigma for a, b in pairwise(first))
    assert first[0].sigma == pytest.approx(80.0)
    assert last[0].sigma_next == pytest.approx(0.002)
    assert last[0].solution.rtol == 1e-4


def test_classes_stay_with_their_samples():
    class Backbone(nn.Module):
        event_shape, classes = (2,), 2

        def forward(self, x, label, classes):
            assert len(classes) == len(x)
            # The data of class k lie at ±2, with a spread of their own.
            return x * (0.5 + 0.3 * classes).unsqueeze(1).to(x) + (4.0 * classes - 2).unsqueeze(1)

    field = PreconditionedField(Backbone(), EDM(), 1.0)
    method = ProbabilityFlow(1e-4, 1e-4)
    classes = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
    mixed = method.sample(field, 8, dtype=torch.float64, classes=classes)
    for k in (0, 1):
        alone = method.sample(field, 8, dtype=torch.float64, classes=k)
        torch.testing.assert_close(mixed[classes == k], alone[classes == k], rtol=1e-10, atol=1e-12)


def test_a_stalled_sample_is_named_with_its_noise_level_and_kept():
    method = ProbabilityFlow(1e-8, 1e-8, max_calls=60)
    with pytest.raises(StalledError, match="noise level") as caught:
        method.sample(GaussianMixture.ring(sde=EDM()), 3, dtype=torch.float64)
    error = caught.value
    assert "sample 0" in str(error)
    assert "max_calls" in str(error)
    assert int(error.solution.calls.max()) <= 60
    assert error.x.shape == (3, 2)
    assert bool(error.x.isfinite().all())
    assert bool((error.sigma > 0.002).all())
    assert bool((error.sigma < 80).all())


def test_a_field_that_is_not_a_number_is_named_with_sample_and_noise_level():
    class Broken(Gaussian):
        def predict(self, x, t, quantity, classes=None):
            value = super().predict(x, t, quantity)
            return torch.where(
                (torch.as_tensor(t).reshape(-1, 1) < 3.0) & (x > 0), torch.nan, value
            )

    field = Broken(torch.zeros(1), 0.5, sde=EDM())
    start = torch.tensor([[-80.0], [80.0], [-40.0]], dtype=torch.float64)
    with pytest.raises(
        StalledError, match=r"1 of 3 samples .* sample 1 at noise level [23]"
    ) as got:
        ProbabilityFlow().sample(field, start=start, dtype=torch.float64)
    assert "not finite" in str(got.value)


def test_a_flow_that_explodes_is_an_error_and_no_endless_loop():
    away = Affine(-1e6 * torch.eye(2, dtype=torch.float64))
    with pytest.raises(StalledError, match="2 of 2 samples"):
        ProbabilityFlow(max_calls=300).sample(away, 2, dtype=torch.float64)


def test_single_precision_stays_and_suffices():
    field = gaussian(VE())
    found = ProbabilityFlow(1e-4, 1e-4).sample(field, 16)
    assert found.dtype == torch.float32
    exact = ProbabilityFlow(1e-8, 1e-8).sample(field, 16, dtype=torch.float64)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=5e-3)


def test_angles_and_points_are_each_others_inverse():
    field = gaussian(VP(t_min=1e-3))
    flow = Flow(field)
    angles = [flow.angle(t) for t in (0.001, 0.4, 1.0)]
    angle = torch.tensor(angles, dtype=torch.float64)
    place = flow.at(angle, torch.float64)
    torch.testing.assert_close(
        place.time, torch.tensor([0.001, 0.4, 1.0], dtype=torch.float64), rtol=1e-6, atol=0
    )
    y = torch.ones(3, 3, dtype=torch.float64)
    scale = torch.sqrt(field.sde.alpha(place.time) ** 2 + field.sde.sigma(place.time) ** 2)
    torch.testing.assert_close(flow.points(y, place), y * scale.unsqueeze(1))


def test_it_has_no_number_of_calls_of_its_own():
    method = ProbabilityFlow()
    assert method.nfe is None
    assert not method.stochastic
    with pytest.raises(ValueError, match="choose rtol and atol"):
        ProbabilityFlow.for_nfe(20)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rtol": 0.0}, "rtol must be positive"),
        ({"atol": math.inf}, "atol must be positive"),
        ({"max_calls": 0}, "max_calls must be a positive integer"),
    ],
)
def test_a_tolerance_and_a_number_of_calls_are_positive(settings, words):
    with pytest.raises(ValueError, match=words):
        ProbabilityFlow(**settings)


def test_an_end_outside_the_process_is_named():
    for end in (1.0, 1e-9):
        with pytest.raises(ValueError, match="t_end must lie in"):
            ProbabilityFlow(t_end=end).sample(gaussian(VP()), 2)

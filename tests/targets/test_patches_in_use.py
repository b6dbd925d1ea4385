"""The scores of patches in samplers, likelihoods and diagnostics, as fields like any other."""

import pytest
import torch

from scorefield import (
    DDIM,
    EDM,
    AnnealedLangevin,
    DPMSolverPlusPlus2M,
    EquivariantLocalScore,
    Euler,
    Heun,
    IdealScore,
    Langevin,
    LocalScore,
    PatchSizes,
    PredictorCorrector,
    ProbabilityFlow,
    Protocol,
    ReverseDiffusion,
    cycle_circulation,
    decode,
    encode,
    exterior_derivative,
    log_prob,
    loop_circulation,
    path_gap,
    relative_asymmetry,
    score_error,
)
from tests.laws.cases import normal
from tests.planted import Watched
from tests.targets.test_patches import MACHINES

IMAGES = normal((4, 1, 3, 4), "images")
SDE = EDM(0.05, 20.0)
SAMPLERS = [
    Euler(8, churn=2.0),
    Heun(8),
    DDIM(8, eta=0.5),
    DPMSolverPlusPlus2M(8),
    PredictorCorrector(8, ReverseDiffusion(), Langevin(0.1)),
    PredictorCorrector(8, None, AnnealedLangevin(0.1, 2)),
    ProbabilityFlow(1e-3, 1e-3),
]
PROTOCOL = Protocol((0.5, 1.0), n=4)


@pytest.fixture(params=MACHINES)
def kind(request):
    return request.param


@pytest.fixture
def field(kind):
    return MACHINES[kind](IMAGES, SDE, 3)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize("kind", ["local", "equivariant local"])
def test_samples_are_made_of_the_images(sampler, kind):
    """Where the last step is to the posterior mean, every pixel is one that the images have."""
    x = sampler.sample(MACHINES[kind](IMAGES, SDE, 3), n=5, dtype=torch.float64)
    nearest = (x.reshape(-1, 1) - IMAGES.reshape(1, -1)).abs().amin(dim=1)
    assert float(nearest.quantile(0.9)) < 0.02


def test_samples_of_whole_images_are_training_images_and_those_of_patches_are_new():
    ideal = Heun(18).sample(IdealScore(IMAGES, SDE), n=32, dtype=torch.float64)
    local = Heun(18).sample(LocalScore(IMAGES, SDE, 1), n=32, dtype=torch.float64)
    away = [torch.cdist(x.flatten(1), IMAGES.flatten(1)).amin(dim=1) for x in (ideal, local)]
    assert float(away[0].max()) < 1e-3
    assert float(away[1].min()) > 0.1


@pytest.mark.parametrize("kind", ["local", "equivariant local"])
def test_a_flow_goes_back_the_way_it_came(field):
    sde = EDM(0.5, 20.0)
    there = encode(field.under(sde), IMAGES, rtol=1e-4, atol=1e-4).x
    back = decode(field.under(sde), there, rtol=1e-4, atol=1e-4).x
    assert float((back - IMAGES).abs().max()) < 0.02


@pytest.mark.parametrize("quantity", ["score", "denoiser", "noise"])
def test_curl_is_the_same_by_jacobians_autograd_and_probes(quantity):
    field = EquivariantLocalScore(IMAGES, SDE, PatchSizes([0.5, 1.0], [1, 3]))
    for measure in (exterior_derivative, relative_asymmetry):
        closed = measure(field, IMAGES, PROTOCOL, quantity=quantity)
        autograd = measure(Watched(field), IMAGES, PROTOCOL, quantity=quantity)
        # At the same points they differ by the error of the probes: six times 5 %.
        precise = Protocol(PROTOCOL.sigmas, PROTOCOL.n, precision=0.05)
        probed = measure(field, IMAGES, precise, 8, quantity)
        for (sigma, a), (_, b), (_, c) in zip(closed, autograd, probed, strict=True):
            assert (a.value > 1e-6) == (sigma == 1.0)
            assert a.value == pytest.approx(b.value, rel=1e-9, abs=1e-12)
            assert a.value == pytest.approx(c.value, rel=0.3, abs=1e-12)


def test_loops_cycles_and_paths_find_the_curl_that_there_is(field, kind):
    """None in whole images, beyond the error that each tells, and some in patches."""
    protocol, data = Protocol((1.0,), n=16), normal((16, 1, 3, 4), "points")
    settings = {"lengths": (3,), "neighbours": 3, "cloud": 8, "cycles": 8}
    for profile in (
        loop_circulation(field, data, protocol, radius=1.0),
        cycle_circulation(field, data, protocol, **settings),
        path_gap(field, data, protocol),
    ):
        (found,) = profile.estimates
        if kind in ("ideal", "equivariant"):
            assert found.value <= found.numerical_error + 1e-9
        else:
            assert found.value > 3 * found.numerical_error


def test_a_score_of_patches_differs_from_the_ideal_one_by_what_patches_leave_out():
    truth = IdealScore(IMAGES, SDE)
    errors = [
        [e.value for _, e in score_error(field, truth, PROTOCOL)]
        for field in (LocalScore(IMAGES, SDE, 1), LocalScore(IMAGES, SDE, 3), truth)
    ]
    for one, three, none in zip(*errors, strict=True):
        assert one > three > none
        assert none < 1e-12


def test_the_likelihood_of_a_single_image_is_that_of_its_noise():
    """What flows to one image is a normal law around it, of the least noise level."""
    image = 0.5 * normal((1, 1, 3, 3), "image")
    x = image + 0.1 * normal((3, 1, 3, 3), "z")
    exact = torch.distributions.Normal(image, 0.1).log_prob(x).flatten(1).sum(dim=1)
    field = LocalScore(image, EDM(0.1, 2000.0), 3)
    found = log_prob(field, x, trace="exact", rtol=1e-7, atol=1e-7)
    # The prior knows nothing of the image, which is small beside its noise.
    torch.testing.assert_close(found.value, exact, rtol=0, atol=0.02)


def test_the_trace_of_a_likelihood_is_exact_or_probed():
    images = 0.5 * normal((4, 1, 3, 3), "images")
    field = EquivariantLocalScore(images, EDM(0.2, 20.0), 3)
    x = images[:2] + 0.2 * normal((2, 1, 3, 3), "z")
    exact = log_prob(field, x, trace="exact", rtol=1e-3, atol=1e-3)
    probed = log_prob(field, x, trace="probes", n_probes=16, rtol=1e-3, atol=1e-3)
    gap = (probed.value - exact.value).abs()
    assert (gap <= 6 * probed.standard_error + probed.solver_error + exact.solver_error).all()

import pytest
import torch

from scorefield import (
    EDM,
    VP,
    Empirical,
    Gaussian,
    GaussianMixture,
    Protocol,
    denoising_loss,
    distance_to_ideal,
)
from tests.planted import Affine, Drifting, skew

SIGMAS = (0.02, 0.5, 10.0)
TRAIN = GaussianMixture.ring().sample(60, seed=3)


@pytest.mark.parametrize("sde", [EDM(), VP()], ids=["edm", "vp"])
def test_what_is_learnt_by_heart_is_at_no_distance(sde):
    for _, e in distance_to_ideal(Empirical(TRAIN, sde), TRAIN, Protocol(SIGMAS, n=40)):
        assert e.value == 0


@pytest.mark.parametrize("sde", [EDM(), VP()], ids=["edm", "vp"])
def test_a_known_shift_is_the_distance(sde):
    field = Drifting(Empirical(TRAIN, sde), 0.25)
    for _, e in distance_to_ideal(field, TRAIN, Protocol(SIGMAS, n=40)):
        assert e.value == pytest.approx(0.25, rel=1e-9)


def test_the_truth_keeps_its_distance_from_two_points():
    """Between two points the ideal denoiser is a tanh: the distance by hand."""
    train = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    truth = Gaussian(torch.zeros(1), 1.0)
    protocol = Protocol((0.5, 2.0), n=2)
    profile = distance_to_ideal(truth, train, protocol)
    for points, (sigma, e) in zip(protocol.points(train, truth), profile, strict=True):
        x = points.noisy
        ideal = (x - (x / sigma**2).tanh()) / sigma
        own = sigma * x / (1 + sigma**2)
        expected = (own - ideal).square().mean().sqrt()
        assert e.value == pytest.approx(float(expected), rel=1e-9)


def test_the_truth_is_near_the_ideal_only_where_the_points_overlap():
    """At low noise the ideal predicts the noise itself, so that the distance is the loss."""
    truth = Gaussian(torch.zeros(2), 1.0)
    train = truth.sample(500, seed=1, dtype=torch.float64)
    protocol = Protocol((0.002, 20.0), n=500)
    low, high = (e.value for _, e in distance_to_ideal(truth, train, protocol))
    loss = denoising_loss(truth, train, protocol).estimates[0].value
    assert low**2 == pytest.approx(loss, rel=0.05)
    assert high < 0.01


def test_says_what_does_not_fit():
    field = Affine(skew(3))
    with pytest.raises(ValueError, match=r"shape \(3,\), the data of shape \(2,\)"):
        distance_to_ideal(field, TRAIN, Protocol((1.0,), n=4))
    with pytest.raises(ValueError, match=r"61 points.*has 60"):
        distance_to_ideal(Affine(skew(2)), TRAIN, Protocol((1.0,), n=61))

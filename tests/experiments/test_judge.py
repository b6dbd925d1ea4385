"""What is judged is known: the exact field, a planted rotation, and fields that share points."""

import pytest
import torch

from scorefield.data import TargetSource, digits
from scorefield.experiments.judge import (
    Terms,
    diagnose,
    measure_floors,
    quality,
    real_samples,
    validate,
)
from scorefield.fields import ScoreField
from scorefield.targets import Empirical, GaussianMixture

RING = GaussianMixture.ring()
SOURCE = TargetSource(RING, "ring")
TERMS = Terms(nfes=(7, 40), samples=1024, pairs=8, sigmas=(0.1, 1.0, 5.0), points=64)


class Turned(ScoreField):
    """The exact field plus a rotation of the denoiser: its curl is known."""

    def __init__(self, rate: float) -> None:
        super().__init__(RING.sde, RING.domain)
        self.rate = rate
        self.seen: list[torch.Tensor] = []

    def score(self, x, t):
        self.seen.append(x.detach().clone())
        sigma = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1)
        turned = torch.stack((-x[:, 1], x[:, 0]), dim=1)
        return RING.score(x, t) + self.rate * turned / sigma**2


@pytest.fixture(scope="module")
def floors():
    return measure_floors(SOURCE, TERMS)


def test_the_exact_field_has_no_curl_and_no_error():
    found = {(v.metric, v.sigma): v.estimate for v in diagnose(RING, SOURCE, TERMS)}
    assert {metric for metric, _ in found} == {
        "denoising_loss",
        "score_error",
        "relative_asymmetry",
        "exterior_derivative",
        "loop_circulation",
    }
    for sigma in TERMS.sigmas:
        assert found["score_error", sigma].value == 0
        assert found["relative_asymmetry", sigma].value < 1e-14
        assert found["exterior_derivative", sigma].value < 1e-13
        # The quadrature's own error, on a field that bends within a loop.
        assert found["loop_circulation", sigma].value < 1e-3


def test_a_planted_rotation_is_found_at_every_level():
    rate = 0.03
    found = {(v.metric, v.sigma): v.estimate for v in diagnose(Turned(rate), SOURCE, TERMS)}
    for sigma in TERMS.sigmas:
        # The denoiser's Jacobian has the antisymmetric part rate * [[0, -1], [1, 0]].
        curl = 2 * rate * 2**0.5
        assert found["exterior_derivative", sigma].value == pytest.approx(curl, rel=1e-9)
        assert found["loop_circulation", sigma].value == pytest.approx(curl, rel=1e-2)


def test_samples_of_the_exact_field_lie_at_the_noise_floor(floors):
    found = {(d.metric, d.budget): d for d in quality(RING, SOURCE, TERMS, floors)}
    fine = found["sliced_wasserstein", 40]
    assert fine.nfe == 39
    assert fine.ratio is not None
    assert abs(fine.ratio.value - 1) < 6 * fine.floor.sd / fine.floor.mean
    assert abs(found["mmd", 40].excess) < 6
    assert found["mmd", 40].ratio is None  # an unbiased distance has no floor to divide by
    assert found["mode_coverage", 40].estimate.value == 8
    assert found["mode_weight_tv", 40].ratio.value < 3
    assert found["sliced_wasserstein", 7].ratio.value > 5  # three steps are too few


def test_two_models_are_asked_at_identical_points():
    one, other = Turned(0.0), Turned(0.1)
    for field in (one, other):
        diagnose(field, SOURCE, TERMS)
        validate(field, SOURCE, TERMS)
    assert len(one.seen) == len(other.seen) > 0
    assert all(torch.equal(a, b) for a, b in zip(one.seen, other.seen, strict=True))


def test_no_field_has_a_lower_validation_loss_than_the_exact_one():
    exact, turned = (validate(field, SOURCE, TERMS) for field in (RING, Turned(0.2)))
    assert exact.value < turned.value
    assert exact.standard_error > 0


def test_a_floor_is_a_distance_between_disjoint_real_sets(floors):
    assert floors["sliced_wasserstein"].mean > 0
    assert abs(floors["mmd"].mean) < 6 * floors["mmd"].mean_error
    assert "mode_coverage" not in floors
    terms = Terms(nfes=(8,), samples=360, pairs=2)
    assert measure_floors(digits(), terms)["frechet_distance"].pairs == 2


def test_a_finite_data_set_has_so_many_samples_and_no_more():
    with pytest.raises(ValueError, match="digits has 360 test points, 500 were asked for"):
        real_samples(digits(), Terms(samples=500))


def test_images_have_pixels_for_features_and_no_score_error():
    source = digits()
    terms = Terms(nfes=(3,), samples=32, pairs=2, sigmas=(1.0,), points=2, draws=1)
    field = Empirical(source.reference(64, 0, "train"))
    found = quality(field, source, terms, measure_floors(source, terms))
    assert {d.features for d in found} == {"pixels"}
    assert {d.metric for d in found} == {"sliced_wasserstein", "mmd", "frechet_distance"}
    metrics = {v.metric: v.estimate for v in diagnose(field, source, terms)}
    assert "score_error" not in metrics
    assert metrics["relative_asymmetry"].value < 1e-10


def test_terms_survive_being_written():
    record = {**TERMS.record(), "weights": "ema"}
    assert Terms.read(record) == TERMS

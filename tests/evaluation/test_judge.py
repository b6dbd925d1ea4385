"""What is judged is known: the exact field, a planted rotation, and fields that share points."""

from dataclasses import replace

import pytest
import torch

from scorefield.data import TargetSource, digits
from scorefield.diagnostics import Protocol, denoising_loss
from scorefield.evaluation import profiles
from scorefield.evaluation.judge import (
    Terms,
    checkpoint_quality,
    measure_floors,
    metrics_of,
    plain_features,
    quality,
    real_samples,
    validate,
)
from scorefield.evaluation.profiles import RADII, diagnose
from scorefield.fields import ScoreField
from scorefield.networks import COORDINATES, PIXELS, Features
from scorefield.sde import VE
from scorefield.targets import Empirical, GaussianMixture, PseudoAtoms
from tests.planted import Drifting

RING = GaussianMixture.ring()
SOURCE = TargetSource(RING, "ring")
FEATURES = (COORDINATES,)
TERMS = Terms(nfes=(7, 40), samples=1024, pairs=8, sigmas=(0.1, 1.0, 5.0), points=32)


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
    return measure_floors(SOURCE, TERMS, FEATURES)


@pytest.fixture(scope="module")
def exact():
    return diagnose(RING, SOURCE, TERMS)


def test_the_exact_field_has_no_curl_and_no_error(exact):
    levels = exact
    found = {(v.metric, v.sigma): v.estimate for v in levels}
    assert {metric for metric, _ in found} == {
        "denoising_loss",
        "score_error",
        "relative_asymmetry",
        "exterior_derivative",
        "loop_circulation",
        "cycle_circulation",
        "hodge_rest",
        "path_gap",
        "potential_gap",
        "fokker_planck",
        "fokker_planck_component",
        "fokker_planck_gap",
        "consistency",
    }
    for v in levels:
        if v.metric in ("loop_circulation", "cycle_circulation", "path_gap", "potential_gap"):
            low, _ = v.estimate.interval()
            assert low <= 1e-10, (v.metric, v.sigma)
    for sigma in TERMS.sigmas:
        assert found["score_error", sigma].value == 0
        assert found["relative_asymmetry", sigma].value < 1e-14
        assert found["exterior_derivative", sigma].value < 1e-13
        assert found["hodge_rest", sigma].value < 1e-6
        assert found["fokker_planck", sigma].value < 1e-8
        assert found["fokker_planck_gap", sigma].value < 1e-8
        low, high = found["consistency", sigma].interval(1 - 1e-6)
        assert low <= 0 <= high


def test_a_planted_rotation_is_found_at_every_level():
    rate = 0.03
    levels = diagnose(Turned(rate), SOURCE, TERMS)
    found = {(v.metric, v.sigma, v.scale_delta): v.estimate for v in levels}
    for sigma in TERMS.sigmas:
        # The denoiser's Jacobian has the antisymmetric part rate * [[0, -1], [1, 0]].
        curl = 2 * rate * 2**0.5
        assert found["exterior_derivative", sigma, None].value == pytest.approx(curl, rel=1e-9)
        for radius in RADII:
            seen = found["loop_circulation", sigma, radius]
            assert abs(seen.value - curl) <= 6 * seen.standard_error + 1.01 * seen.numerical_error
        # The same curl everywhere does not grow.
        growth = found["circulation_growth", sigma, None]
        assert abs(growth.value) <= 6 * growth.standard_error + growth.numerical_error + 1e-9


def test_growth_is_measured_only_where_there_is_a_circulation(exact):
    assert not [v for v in exact if v.metric == "circulation_growth"]


def test_cycles_say_their_length_and_loops_their_radius(exact):
    levels = exact
    assert {v.cycle_len for v in levels if v.metric == "cycle_circulation"} == {3}
    assert {v.scale_delta for v in levels if v.metric == "loop_circulation"} == set(RADII)
    others = {v.metric for v in levels} - {"cycle_circulation", "loop_circulation"}
    assert {(v.scale_delta, v.cycle_len) for v in levels if v.metric in others} == {(None, None)}


def test_samples_of_the_exact_field_lie_at_the_noise_floor(floors):
    found = {(d.metric, d.budget): d for d in quality(RING, SOURCE, TERMS, floors, FEATURES)}
    fine = found["sliced_wasserstein", 40]
    assert fine.nfe == 39
    assert fine.ratio is not None
    assert abs(fine.ratio.value - 1) < 6 * fine.floor.sd / fine.floor.mean
    assert abs(found["mmd", 40].excess) < 6
    assert found["mmd", 40].ratio is None  # an unbiased distance has no floor to divide by
    assert found["mode_coverage", 40].estimate.value == 8
    assert found["mode_weight_tv", 40].ratio.value < 3
    assert found["sliced_wasserstein", 7].ratio.value > 5  # three steps are too few


def test_two_models_are_asked_at_identical_points(monkeypatch):
    # The quadrature along a path is refined as the field needs; its ends are the protocol's.
    monkeypatch.setattr(profiles, "path_gap", lambda *a, **k: denoising_loss(*a))
    # Trajectories begin at the protocol's points, and go where the field leads.
    monkeypatch.setattr(profiles, "consistency_error", lambda *a, **k: denoising_loss(*a))
    one, other = Turned(0.05), Turned(0.1)
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
    assert floors["sliced_wasserstein", "coordinates"].mean > 0
    mmd = floors["mmd", "coordinates"]
    assert abs(mmd.mean) < 6 * mmd.mean_error
    assert "mode_coverage" not in {metric for metric, _ in floors}
    terms = Terms(nfes=(8,), samples=360, pairs=2)
    assert measure_floors(digits(), terms, (PIXELS,))["frechet_distance", "pixels"].pairs == 2


def test_a_finite_data_set_has_so_many_samples_and_no_more():
    with pytest.raises(ValueError, match="digits has 360 test points, 500 were requested"):
        real_samples(digits(), Terms(samples=500))


def test_images_have_pixels_for_features_and_no_score_error():
    source = digits()
    terms = Terms(nfes=(3,), samples=32, pairs=2, sigmas=(1.0,), points=2, draws=1)
    field = Empirical(source.reference(64, 0, "train"))
    half = Features("left half", lambda x: x[..., :4])
    features = (PIXELS, half)
    found = quality(field, source, terms, measure_floors(source, terms, features), features)
    assert {(d.metric, d.features) for d in found} == {
        ("sliced_wasserstein", "pixels"),
        ("mmd", "pixels"),
        ("frechet_distance", "pixels"),
        ("frechet_distance", "left half"),
        ("trajectory_length", ""),
        ("curvature", ""),
    }
    metrics = {v.metric: v.estimate for v in diagnose(field, source, terms)}
    assert "score_error" not in metrics
    assert metrics["relative_asymmetry"].value < 1e-10


def test_a_training_set_learnt_by_heart_is_at_no_distance_from_the_ideal():
    source = digits()
    terms = Terms(samples=32, sigmas=(0.5, 2.0), points=2)
    field = Empirical(source.reference(source.size, 0, "train"))
    levels = [v for v in diagnose(field, source, terms) if v.metric == "distance_to_ideal"]
    assert [v.sigma for v in levels] == [0.5, 2.0]
    assert all(v.estimate.value < 1e-6 for v in levels)


def test_a_checkpoint_is_measured_at_one_budget_and_on_held_out_data(floors):
    terms = replace(TERMS, along=9, draws=2)
    found = checkpoint_quality(RING, SOURCE, terms, floors, FEATURES)
    assert {(d.budget, d.nfe) for d in found} == {(9, 9), (0, 0)}
    (loss,) = [d for d in found if d.metric == "validation_loss"]
    assert loss.estimate == validate(RING, SOURCE, terms)
    with pytest.raises(ValueError, match="leave the checkpoints along the training out"):
        checkpoint_quality(RING, SOURCE, TERMS, floors, FEATURES)


def test_terms_survive_being_written():
    record = {**TERMS.record(), "weights": "ema"}
    assert Terms.read(record) == TERMS


ATOMS = PseudoAtoms([[0.25], [0.75]], std=0.01, sde=VE(0.001, 0.5))
BOX = TargetSource(ATOMS, "atoms")
PERIODIC = replace(TERMS, nfes=(40,), sigmas=(0.02, 0.1, 0.4), samples=512, pairs=4)


@pytest.fixture(scope="module")
def drifting():
    return Drifting(ATOMS, [[0.03], [0.04]])


def test_on_a_torus_there_is_a_winding_and_no_hodge_split(drifting):
    found = {(v.metric, v.sigma): v.estimate for v in diagnose(drifting, BOX, PERIODIC)}
    metrics = {metric for metric, _ in found}
    assert {"winding", "harmonic_part", "loop_circulation", "path_gap", "consistency"} < metrics
    assert "hodge_rest" not in metrics
    for sigma in PERIODIC.sigmas:
        planted = 0.05 / 2**0.5 / sigma
        for metric in ("winding", "harmonic_part"):
            e = found[metric, sigma]
            assert abs(e.value - planted) < 6 * e.standard_error + e.numerical_error + 1e-12
        # A constant has no curl.
        assert found["relative_asymmetry", sigma].value < 1e-12
        assert found["fokker_planck_gap", sigma].value < 1e-8
        assert found["score_error", sigma].value == pytest.approx(0.05 / 2**0.5)


def test_the_exact_atoms_have_neither_curl_nor_winding():
    levels = diagnose(ATOMS, BOX, PERIODIC)
    assert "circulation_growth" not in {v.metric for v in levels}
    for v in levels:
        if v.metric != "denoising_loss":
            low, high = v.estimate.interval(1 - 1e-6)
            assert low <= 1e-8, (v.metric, v.sigma)
            assert high >= 0


def test_distances_on_a_torus_are_those_of_the_torus():
    """Turning all samples around it changes nothing, up to rounding."""
    plain = plain_features(BOX)
    floors = measure_floors(BOX, PERIODIC, (plain,))
    metrics = metrics_of(BOX, PERIODIC, (plain,))
    assert {(m.name, m.features) for m in metrics} == set(floors)
    assert {m.features for m in metrics} == {"circles", "cells", "first coordinate"}
    real, x = real_samples(BOX, PERIODIC), ATOMS.sample(512, 5, dtype=torch.float64)
    moved = x + 0.02
    for metric in metrics:
        same = metric.function(x, real)
        turned = metric.function(x + torch.tensor([[1.0], [-2.0]]), real)
        assert turned.value == pytest.approx(same.value, abs=1e-9)
        floor = floors[metric.name, metric.features]
        assert abs(same.value - floor.mean) < 12 * floor.sd
        if metric.name in ("total_variation", "ks"):
            assert metric.function(moved, real).value > floor.mean + 12 * floor.sd


def test_samples_of_the_exact_atoms_have_their_law():
    plain = plain_features(BOX)
    found = {d.metric: d for d in quality(ATOMS, BOX, PERIODIC, {}, (plain,))}
    for name in ("total_variation", "ks"):
        assert found[name].estimate.value < 3 * found[name].estimate.settings["null"]


def test_levels_at_the_end_of_the_process_have_no_lower_one_to_agree_with():
    ends = replace(PERIODIC, sigmas=(0.001, 0.1), points=8)
    found = {(v.metric, v.sigma) for v in diagnose(ATOMS, BOX, ends)}
    assert ("consistency", 0.1) in found
    assert ("consistency", 0.001) not in found
    assert ("fokker_planck", 0.001) in found


def test_one_dimension_has_the_equations_between_noise_levels_too():
    law = GaussianMixture([[-1.0], [1.0]], stds=0.3)
    terms = Terms(samples=32, sigmas=(0.5,), points=8)
    metrics = {v.metric for v in diagnose(law, TargetSource(law, "line"), terms)}
    assert metrics == {
        "denoising_loss",
        "score_error",
        "fokker_planck",
        "fokker_planck_component",
        "fokker_planck_gap",
        "consistency",
    }


def test_consistency_is_asked_above_the_level_of_the_first_time():
    """Of VE the least level is that at time 0, and trajectories end at its first time."""
    late = GaussianMixture.ring(sde=VE(0.01, 50.0, t_min=0.2))
    levels = profiles._consistency(late, late, Protocol((0.02, 0.5), n=8))
    assert [level.sigma for level in levels] == [0.5]

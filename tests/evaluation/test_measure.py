"""What is judged is known: the exact field, a planted rotation, and fields that share points."""

from dataclasses import replace

import pytest
import torch

from scorefield import (
    VE,
    Empirical,
    GaussianMixture,
    PseudoAtoms,
    TargetSource,
    denoising_loss,
    digits,
)
from scorefield.evaluation.catalogue import OF_SAMPLES, curl, find, score
from scorefield.evaluation.catalogue.curl import RADII
from scorefield.evaluation.measure import (
    measure_checkpoint,
    measure_floors,
    measure_levels,
    measure_samples,
    validate,
)
from scorefield.evaluation.protocol import Benchmark, Protocol
from scorefield.networks.features import Features
from tests.planted import Drifting, Turned, Watched

RING = GaussianMixture.ring()
SOURCE = TargetSource(RING, "ring")
PROTOCOL = Protocol(nfes=(7, 40), samples=1024, pairs=8, sigmas=(0.1, 1.0, 5.0), points=32)
BENCHMARK = Benchmark(SOURCE, PROTOCOL)


@pytest.fixture(scope="module")
def floors():
    return measure_floors(BENCHMARK)


@pytest.fixture(scope="module")
def exact():
    return measure_levels(RING, BENCHMARK)


def test_the_exact_field_has_no_curl_and_no_error(exact):
    levels = exact
    found = {(v.metric, v.sigma): v.estimate for v in levels}
    assert {metric for metric, _ in found} == {
        "denoising_loss",
        "score_error",
        "observable_error",
        "intrinsic_dimension",
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
    for sigma in PROTOCOL.sigmas:
        assert found["score_error", sigma].value == 0
        assert found["observable_error", sigma].value == 0
        assert found["relative_asymmetry", sigma].value < 1e-14
        assert found["exterior_derivative", sigma].value < 1e-13
        assert found["hodge_rest", sigma].value < 1e-6
        assert found["fokker_planck", sigma].value < 1e-8
        assert found["fokker_planck_gap", sigma].value < 1e-8
        low, high = found["consistency", sigma].interval(1 - 1e-6)
        assert low <= 0 <= high


def test_a_planted_rotation_is_found_at_every_level():
    rate = 0.03
    levels = measure_levels(Turned(RING, rate), BENCHMARK)
    found = {(v.metric, v.sigma, v.scale_delta): v.estimate for v in levels}
    for sigma in PROTOCOL.sigmas:
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
    found = {(d.metric, d.budget): d for d in measure_samples(RING, BENCHMARK, floors)}
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
    monkeypatch.setattr(curl, "path_gap", lambda *a, **k: denoising_loss(*a))
    # Trajectories begin at the protocol's points, and go where the field leads.
    monkeypatch.setattr(score, "consistency_error", lambda *a, **k: denoising_loss(*a))
    one, other = (Watched(Turned(RING, rate)) for rate in (0.05, 0.1))
    for field in (one, other):
        measure_levels(field, BENCHMARK)
        validate(field, BENCHMARK)
    assert len(one.points) == len(other.points) > 0
    assert all(torch.equal(a, b) for a, b in zip(one.points, other.points, strict=True))


def test_no_field_has_a_lower_validation_loss_than_the_exact_one():
    exact, turned = (validate(field, BENCHMARK) for field in (RING, Turned(RING, 0.2)))
    assert exact.value < turned.value
    assert exact.standard_error > 0


def test_a_floor_is_a_distance_between_disjoint_real_sets(floors):
    assert floors["sliced_wasserstein", "coordinates"].mean > 0
    mmd = floors["mmd", "coordinates"]
    assert abs(mmd.mean) < 6 * mmd.mean_error
    assert "mode_coverage" not in {metric for metric, _ in floors}
    benchmark = Benchmark(digits(), Protocol(nfes=(8,), samples=360, pairs=2))
    assert measure_floors(benchmark)["frechet_distance", "pixels"].pairs == 2


def test_a_finite_data_set_has_so_many_samples_and_no_more():
    with pytest.raises(ValueError, match="digits has 360 test points, 500 were requested"):
        _ = Benchmark(digits(), Protocol(samples=500)).real


def test_images_have_pixels_for_features_and_no_score_error():
    source = digits()
    protocol = Protocol(nfes=(3,), samples=32, pairs=2, sigmas=(1.0,), points=2, draws=1)
    field = Empirical(source.reference(64, 0, "train"))
    half = Features("left half", lambda x: x[..., :4])
    benchmark = Benchmark(source, protocol, (half,))
    found = measure_samples(field, benchmark, measure_floors(benchmark))
    assert {(d.metric, d.features) for d in found} == {
        ("sliced_wasserstein", "pixels"),
        ("mmd", "pixels"),
        ("frechet_distance", "pixels"),
        ("frechet_distance", "left half"),
        ("trajectory_length", ""),
        ("curvature", ""),
    }
    metrics = {v.metric: v.estimate for v in measure_levels(field, benchmark)}
    assert "score_error" not in metrics
    assert metrics["relative_asymmetry"].value < 1e-10


def test_a_training_set_learnt_by_heart_is_at_no_distance_from_the_ideal():
    source = digits()
    benchmark = Benchmark(source, Protocol(samples=32, sigmas=(0.5, 2.0), points=2))
    field = Empirical(source.reference(source.size, 0, "train"))
    levels = [v for v in measure_levels(field, benchmark) if v.metric == "distance_to_ideal"]
    assert [v.sigma for v in levels] == [0.5, 2.0]
    assert all(v.estimate.value < 1e-6 for v in levels)


def test_a_checkpoint_is_measured_at_one_budget_and_on_held_out_data(floors):
    benchmark = Benchmark(SOURCE, replace(PROTOCOL, along=9, draws=2))
    found = measure_checkpoint(RING, benchmark, floors)
    assert {(d.budget, d.nfe) for d in found} == {(9, 9), (0, 0)}
    (loss,) = [d for d in found if d.metric == "validation_loss"]
    assert loss.estimate == validate(RING, benchmark)
    with pytest.raises(ValueError, match="leaves the checkpoints along the training out"):
        measure_checkpoint(RING, BENCHMARK, floors)


def test_a_protocol_survives_being_written():
    record = {**PROTOCOL.record(), "weights": "ema"}
    assert Protocol.read(record) == PROTOCOL


ATOMS = PseudoAtoms([[0.25], [0.75]], std=0.01, sde=VE(0.001, 0.5))
PERIODIC = replace(PROTOCOL, nfes=(40,), sigmas=(0.02, 0.1, 0.4), samples=512, pairs=4)
BOX = Benchmark(TargetSource(ATOMS, "atoms"), PERIODIC)


@pytest.fixture(scope="module")
def drifting():
    return Drifting(ATOMS, [[0.03], [0.04]])


def test_on_a_torus_there_is_a_winding_and_no_hodge_split(drifting):
    found = {(v.metric, v.sigma): v.estimate for v in measure_levels(drifting, BOX)}
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
    levels = measure_levels(ATOMS, BOX)
    assert "circulation_growth" not in {v.metric for v in levels}
    for v in levels:
        if v.metric not in ("denoising_loss", "intrinsic_dimension"):
            low, high = v.estimate.interval(1 - 1e-6)
            assert low <= 1e-8, (v.metric, v.sigma)
            assert high >= 0


def test_distances_on_a_torus_are_those_of_the_torus():
    """Turning all samples around it changes nothing, up to rounding."""
    floors = measure_floors(BOX)
    distances = {(m.name, on): f for m in OF_SAMPLES for on, f in m.compare(BOX)}
    assert set(distances) == set(floors)
    assert {on for _, on in distances} == {"circles", "cells", "first coordinate"}
    real, x = BOX.real, ATOMS.sample(512, 5, dtype=torch.float64)
    moved = x + 0.02
    for (name, on), distance in distances.items():
        same = distance(x, real)
        turned = distance(x + torch.tensor([[1.0], [-2.0]]), real)
        assert turned.value == pytest.approx(same.value, abs=1e-9)
        floor = floors[name, on]
        assert abs(same.value - floor.mean) < 12 * floor.sd
        if name in ("total_variation", "marginal_ks"):
            assert distance(moved, real).value > floor.mean + 12 * floor.sd


def test_samples_of_the_exact_atoms_have_their_law():
    found = {d.metric: d for d in measure_samples(ATOMS, BOX, {})}
    for name in ("total_variation", "marginal_ks"):
        assert found[name].estimate.value < 3 * found[name].estimate.settings["null"]


def test_levels_at_the_end_of_the_process_have_no_lower_one_to_agree_with():
    ends = replace(PERIODIC, sigmas=(0.001, 0.1), points=8)
    found = {(v.metric, v.sigma) for v in measure_levels(ATOMS, replace(BOX, protocol=ends))}
    assert ("consistency", 0.1) in found
    assert ("consistency", 0.001) not in found
    assert ("fokker_planck", 0.001) in found


def test_one_dimension_has_the_equations_between_noise_levels_too():
    law = GaussianMixture([[-1.0], [1.0]], stds=0.3)
    protocol = Protocol(samples=32, sigmas=(0.5,), points=8)
    benchmark = Benchmark(TargetSource(law, "line"), protocol)
    metrics = {v.metric for v in measure_levels(law, benchmark)}
    assert metrics == {
        "denoising_loss",
        "score_error",
        "intrinsic_dimension",
        "fokker_planck",
        "fokker_planck_component",
        "fokker_planck_gap",
        "consistency",
    }


def test_consistency_is_asked_above_the_level_of_the_first_time():
    """Of VE the least level is that at time 0, and trajectories end at its first time."""
    late = GaussianMixture.ring(sde=VE(0.01, 50.0, t_min=0.2))
    benchmark = Benchmark(TargetSource(late, "late"), Protocol(sigmas=(0.02, 0.5), points=8))
    (profile,) = find("consistency").estimator.measure(late, benchmark)
    assert profile.protocol.sigmas == (0.5,)


@pytest.mark.parametrize("field", ["ring", "atoms"])
def test_the_catalogue_knows_the_unit_of_all_that_is_measured(field, exact, drifting):
    """And every entry is measured of one of these fields, or of a finite data set."""
    levels = exact if field == "ring" else measure_levels(drifting, BOX)
    benchmark = BENCHMARK if field == "ring" else BOX
    distances = measure_samples(benchmark.truth, benchmark, {})
    for record in (*levels, *distances):
        metric = find(record.metric)
        assert metric is not None, record.metric
        if "features" not in metric.unit:
            assert record.estimate.unit == metric.unit, record.metric

"""Tables over seeds: means, errors of their scatter, and what must not share a table."""

import csv
import json
import math
from dataclasses import replace

import pytest
from scipy import stats

from scorefield.comparison.groups import collect, groups, natural_order, over_levels
from scorefield.comparison.tables import compare_models, table_files, table_rows
from scorefield.errors import RunError
from scorefield.files import write_files
from tests.comparison.benchmark import evaluation, sliced, write

NAMES = [
    "fid_summary.csv",
    "integrability_summary.csv",
    "steps_to_target_fid.csv",
    "steps_to_target_fid_summary.csv",
    "compute_budget_by_dataset.csv",
    "compute_matched_fid.csv",
    "paired_differences.csv",
]


@pytest.fixture
def runs(tmp_path):
    for seed, value in enumerate((1.0, 2.0, 6.0)):
        write(tmp_path, evaluation("m0", seed, value))
    write(tmp_path, evaluation("m1", 0, 4.0))
    return tmp_path


def tables(root, out, **settings):
    write_files(out, table_files(compare_models(collect(root), root, **settings)))
    found = {}
    for name in NAMES:
        with (out / name).open() as file:
            found[name] = list(csv.DictReader(file))
    return found


def of(rows, **wanted):
    return [r for r in rows if all(r[name] == value for name, value in wanted.items())]


def test_every_table_of_the_benchmark_is_written_with_its_columns(runs, tmp_path):
    found = tables(runs, tmp_path / "out")
    assert all(found[name] for name in NAMES if name != "paired_differences.csv")
    published = {
        "fid_summary.csv": "dataset model_id sampler nfe num_seeds",
        "integrability_summary.csv": "dataset model_id sigma_bin metric_name scale_delta "
        "cycle_len value_mean value_std num_points",
        "steps_to_target_fid.csv": "dataset model_id seed sampler target_value steps_to_target "
        "value_at_target_step latency_sec_at_target_step",
        "steps_to_target_fid_summary.csv": "dataset model_id sampler target "
        "steps_to_target_mean steps_to_target_std num_success num_seeds",
        "compute_budget_by_dataset.csv": "dataset model_id model_mean_hours device "
        "shared_budget_hours",
        "compute_matched_fid.csv": "dataset model_id sampler nfe shared_budget_hours "
        "selection_mode selected_run_count selected_hours_mean value_mean value_std",
    }
    for name, columns in published.items():
        assert set(columns.split()) <= set(found[name][0]), name


def test_no_metric_is_called_fid(runs, tmp_path):
    for rows in tables(runs, tmp_path / "out").values():
        for row in rows:
            assert "fid" not in json.dumps(row).lower()


def test_a_mean_over_seeds_has_the_scatter_the_common_error_and_students_interval(runs, tmp_path):
    rows = tables(runs, tmp_path / "out")["fid_summary.csv"]
    row, _ = of(rows, model_id="m0", metric_name="sliced_wasserstein")
    assert (row["num_seeds"], row["error_from"], row["nfe"]) == ("3", "seeds", "7")
    assert float(row["value_mean"]) == 3
    assert float(row["value_std"]) == pytest.approx(math.sqrt(7))  # ddof 1
    assert float(row["value_standard_error"]) == pytest.approx(math.sqrt(7 / 3 + 0.1**2))
    half = stats.t.ppf(0.975, 2) * math.sqrt(7 / 3 + 0.1**2)
    assert float(row["value_low"]) == pytest.approx(3 - half)
    assert float(row["value_high"]) == pytest.approx(3 + half)
    assert float(row["ratio_to_floor"]) == 3


def test_a_single_seed_has_no_deviation_and_says_where_its_error_is_from(runs, tmp_path):
    rows = tables(runs, tmp_path / "out")["fid_summary.csv"]
    for row in of(rows, model_id="m1"):
        assert (row["num_seeds"], row["error_from"], row["value_std"]) == ("1", "samples", "")
        assert float(row["value_standard_error"]) == 0.1


def test_diagnostics_are_summed_up_by_level_and_radius(runs, tmp_path):
    rows = tables(runs, tmp_path / "out")["integrability_summary.csv"]
    (low,) = of(rows, model_id="m0", metric_name="relative_asymmetry", sigma_bin="0")
    assert (low["sigma"], float(low["value_mean"]), low["num_points"]) == ("0.5", 3.0, "50")
    (loop,) = of(rows, model_id="m1", metric_name="loop_circulation")
    assert (loop["scale_delta"], loop["cycle_len"]) == ("0.25", "")
    # The quadrature's error widens the interval on both sides.
    half = stats.t.ppf(0.975, 49) * 0.1 + 0.05
    assert float(loop["value_high"]) - float(loop["value_mean"]) == pytest.approx(half)


def test_the_fewest_calls_within_a_target_are_found(tmp_path):
    ladder = tuple(sliced(b, v) for b, v in ((8, 9.0), (18, 2.9), (32, 1.2), (64, 1.1)))
    write(tmp_path, *(evaluation("m0", s, 1.0, distances=ladder) for s in (0, 1)))
    found = tables(tmp_path, tmp_path / "out", targets=(1.3, 3.0, 5.0))
    rows = of(found["steps_to_target_fid.csv"], seed="0")
    assert [(r["target"], r["steps_to_target"]) for r in rows] == [
        ("1.3", "31"),
        ("3.0", "17"),
        ("5.0", "17"),
    ]
    # 2.9 ± 0.1 is below 3, but not beyond doubt; below 5 it is.
    assert [r["below_target_beyond_doubt"] for r in rows] == ["no", "no", "yes"]
    assert float(rows[1]["latency_sec_at_target_step"]) == pytest.approx(0.18)
    assert float(rows[1]["multiply_adds_at_target_step"]) == 17 * 50
    # Checkpoints are at 1.9, 1.8, ... 1.0: none within 1.3 before the step 70, all within 3.
    trained = ["steps", "images", "seconds", "multiply_adds", "calls"]
    assert [[float(r[f"train_{name}_to_target"]) for name in trained] for r in rows[:2]] == [
        pytest.approx([70, 280, 7, 70_000, 280]),
        pytest.approx([10, 40, 1, 10_000, 40]),
    ]
    (summary,) = of(found["steps_to_target_fid_summary.csv"], target="3.0")
    assert (summary["steps_to_target_mean"], summary["num_success"]) == ("17.0", "2")
    assert summary["num_beyond_doubt"] == "0"


def test_a_mean_of_calls_is_not_that_of_the_successful_seeds(tmp_path):
    good, bad = (sliced(8, 1.1),), (sliced(8, 4.0),)
    write(
        tmp_path,
        evaluation("m0", 0, 1.0, distances=good),
        evaluation("m0", 1, 1.0, distances=bad),
    )
    found = tables(tmp_path, tmp_path / "out", targets=(2.0,))
    assert [r["steps_to_target"] for r in found["steps_to_target_fid.csv"]] == ["7", ""]
    (summary,) = found["steps_to_target_fid_summary.csv"]
    assert (summary["num_success"], summary["num_seeds"]) == ("1", "2")
    assert summary["steps_to_target_mean"] == ""


def test_models_of_different_protocols_do_not_share_a_table(runs):
    other = evaluation("m2", 0, 1.0)
    write(runs, replace(other, protocol={**other.protocol, "samples": 200}))
    with pytest.raises(RunError, match=r"different protocols, .* samples is 100 and 200"):
        collect(runs)


def test_models_evaluated_by_different_estimators_do_not_share_a_table(runs):
    other = evaluation("m2", 0, 1.0)
    changed = {**other.protocol, "estimators": {"loops": {"sides": 4}}}
    write(runs, replace(other, protocol=changed))
    with pytest.raises(RunError, match=r"estimators\.loops\.sides is 8 and 4"):
        collect(runs)


def test_models_of_which_one_lacks_an_estimator_share_a_table(runs):
    other = evaluation("m2", 0, 1.0)
    more = {**other.protocol["estimators"], "younger": {"n": 8}}
    write(runs, replace(other, protocol={**other.protocol, "estimators": more}))
    assert other.model in {e.model for e in collect(runs)}


def test_models_of_different_data_do_not_share_a_table(runs):
    other = evaluation("m2", 0, 1.0)
    write(runs, replace(other, protocol={**other.protocol, "data": {"kind": "ring", "radius": 6}}))
    with pytest.raises(RunError, match=r"data\.radius is 4 and 6"):
        collect(runs)


def test_a_folder_without_evaluations_says_what_to_do(tmp_path):
    with pytest.raises(RunError, match="scorefield eval RUN"):
        collect(tmp_path)


def test_runs_of_another_root_below_are_left_alone(runs):
    write(runs / "demo", evaluation("m9", 0, 1.0))
    assert "m9" not in {e.model for e in collect(runs)}


def test_a_number_that_a_seed_lacks_is_left_out(runs):
    whole = evaluation("m0", 3, 1.0)
    write(runs, replace(whole, distances=whole.distances[:1], levels=whole.levels[1:]))
    m0, _ = groups(collect(runs))
    assert m0.distance("sliced_wasserstein", 8) is not None
    assert m0.distance("sliced_wasserstein", 18) is None
    assert [v.sigma for v in m0.profile("relative_asymmetry")] == [2.0]
    rows = table_rows(compare_models(collect(runs), runs))["integrability_summary.csv"]
    mine = [r for r in rows if r["model_id"] == "m0"]
    assert {r["sigma"] for r in mine if r["metric_name"] == "relative_asymmetry"} == {2.0}


def test_the_root_mean_square_over_levels_adds_errors_as_if_correlated():
    levels = [v for v in evaluation("m0", 0, 1.0).levels if v.metric == "relative_asymmetry"]
    found = over_levels(levels)
    assert found.value == pytest.approx(5.0)  # of 1 and 7
    assert found.standard_error == pytest.approx((1 * 0.1 + 7 * 0.1) / (2 * 5.0))
    assert over_levels([]) is None


def test_names_are_sorted_as_people_count():
    names = ["m0", "m0_hidden=8", "m0_hidden=08", "m0_hidden=10", "m1", "m1_hidden=9,lr=1"]
    order = ["m0", "m0_hidden=08", "m0_hidden=8", "m0_hidden=10", "m1", "m1_hidden=9,lr=1"]
    assert sorted(names, key=natural_order) == order

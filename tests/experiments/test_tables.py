"""Tables over seeds: means, errors of their scatter, and what must not share a table."""

import csv
import math
from dataclasses import replace

import pytest

from scorefield.estimate import Estimate
from scorefield.experiments.errors import RunError
from scorefield.experiments.records import Distance, Evaluation, Floor, Level
from scorefield.experiments.tables import collect, groups, write_tables

PROTOCOL = {"samples": 100, "seed": 0}


def evaluation(model, seed, value):
    estimate = Estimate(value, 0.1, 100, "units")
    floor = Floor(1.0, 0.05, 0.2, 8)
    return Evaluation(
        dataset="toy",
        model=model,
        seed=seed,
        step=10,
        distances=(
            Distance("heun", 8, 7, "sliced_wasserstein", "coordinates", estimate, floor),
            Distance("heun", 18, 17, "sliced_wasserstein", "coordinates", estimate, floor),
        ),
        levels=(Level("relative_asymmetry", 0.5, estimate),),
        validation=estimate,
        compute={"parameters": 7, "steps": 10, "images": 40, "wall_seconds": float(seed)},
        protocol=PROTOCOL,
    )


@pytest.fixture
def runs(tmp_path):
    for seed, value in enumerate((1.0, 2.0, 6.0)):
        evaluation("m0", seed, value).write(tmp_path / "toy" / "m0" / f"seed{seed}")
    evaluation("m1", 0, 4.0).write(tmp_path / "toy" / "m1" / "seed0")
    return tmp_path


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_mean_over_seeds_has_the_error_of_their_scatter(runs, tmp_path):
    write_tables(collect(runs), tmp_path / "out")
    rows = read(tmp_path / "out" / "fid_summary.csv")
    assert [(r["model"], r["seeds"], r["error_from"], r["nfe"]) for r in rows] == [
        ("m0", "3", "seeds", "7"),
        ("m0", "3", "seeds", "17"),
        ("m1", "1", "samples", "7"),
        ("m1", "1", "samples", "17"),
    ]
    assert float(rows[0]["value"]) == 3
    assert float(rows[0]["standard_error"]) == pytest.approx(math.sqrt(7 / 3))
    assert float(rows[0]["ratio_to_floor"]) == 3
    assert float(rows[2]["standard_error"]) == 0.1


def test_every_table_of_the_report_is_written(runs, tmp_path):
    written = write_tables(collect(runs), tmp_path / "out")
    assert [path.name for path in written] == [
        "fid_summary.csv",
        "integrability_summary.csv",
        "compute_budget_by_dataset.csv",
    ]
    levels = read(written[1])
    assert [(r["model"], float(r["sigma"]), float(r["value"])) for r in levels] == [
        ("m0", 0.5, 3.0),
        ("m1", 0.5, 4.0),
    ]
    compute = read(written[2])
    assert [(r["model"], float(r["wall_seconds"])) for r in compute] == [("m0", 1.0), ("m1", 0.0)]
    assert compute[0]["images_per_second"] == ""  # not known: an empty cell, not a number


def test_models_judged_on_different_terms_do_not_share_a_table(runs):
    other = replace(evaluation("m2", 0, 1.0), protocol={"samples": 200, "seed": 0})
    other.write(runs / "toy" / "m2" / "seed0")
    with pytest.raises(RunError, match=r"different terms, .* samples is 100 and 200"):
        collect(runs)


def test_a_folder_without_evaluations_says_what_to_do(tmp_path):
    with pytest.raises(RunError, match="scorefield eval RUN"):
        collect(tmp_path)


def test_runs_of_another_root_below_are_left_alone(runs):
    evaluation("m9", 0, 1.0).write(runs / "demo" / "toy" / "m9" / "seed0")
    assert "m9" not in {e.model for e in collect(runs)}


def test_a_number_that_a_seed_lacks_is_left_out(runs):
    whole = evaluation("m0", 3, 1.0)
    replace(whole, distances=whole.distances[:1]).write(runs / "toy" / "m0" / "seed3")
    (m0, _) = groups(collect(runs))
    assert m0.distance("sliced_wasserstein", 8) is not None
    assert m0.distance("sliced_wasserstein", 18) is None

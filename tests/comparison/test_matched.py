"""Equal training time: the newest checkpoint within the budget, and nothing in its place."""

import json
from dataclasses import replace

import pytest

from scorefield.comparison.groups import Group
from scorefield.comparison.matched import (
    BUDGET_COLUMNS,
    MATCHED,
    MATCHED_COLUMNS,
    budget_records,
    matched_pairs,
    matched_records,
    select,
    shared_budget,
)
from scorefield.comparison.resources import RESOURCES, TIME
from scorefield.comparison.timing import read_costs
from scorefield.errors import RunError
from tests.comparison.benchmark import evaluation


def group(model, values, **settings):
    runs = (evaluation(model, seed, v, **settings) for seed, v in values.items())
    return Group("toy", model, tuple(runs))


@pytest.fixture
def members():
    """The second model's steps take 1.7 times as long; the third's 30 times."""
    return [
        group("m0", {0: 1.0, 1: 2.0}, step_time=0.1),
        group("m1", {0: 1.5, 1: 2.5}, step_time=0.17),
        group("m2", {0: 1.0, 1: 1.0}, step_time=3.0),
    ]


def times(folder, rounds):
    folder.mkdir(exist_ok=True)
    record = {"rounds": rounds, "told": "side by side"}
    (folder / "step_times.json").write_text(json.dumps(record))


def test_the_newest_checkpoint_within_the_budget_is_taken(members, tmp_path):
    costs = read_costs(tmp_path, members)
    assert shared_budget(members, costs) == pytest.approx(10.0)
    found = {(s.group.model, s.fraction): s for s in select(members, costs, resources=[TIME])}
    assert found["m0", 1.0].steps == 100
    # 10 s / 0.17 s are 58 steps; checkpoints are at every tenth.
    assert found["m1", 1.0].steps == 50
    assert found["m1", 1.0].used == pytest.approx(0.85)
    assert found["m1", 0.5].steps == 20
    assert found["m0", 0.25].steps == 20
    (sliced, loss) = found["m1", 1.0].distances()
    assert sliced.estimate.value == pytest.approx(2.0 + 0.5)  # half of the training is missing
    assert loss.metric == "validation_loss"


def test_a_model_without_an_early_checkpoint_is_named_and_not_replaced(members, tmp_path):
    records = matched_records(select(members, read_costs(tmp_path, members), resources=[TIME]))
    rows = [MATCHED_COLUMNS.row(record) for record in records]
    (row,) = [r for r in rows if r["model_id"] == "m2" and r["budget_fraction"] == 1.0]
    assert row["selection_mode"] == "not matched: seed 0 has no checkpoint within the budget"
    assert row["selected_run_count"] == 0
    assert row["value_mean"] == ""
    others = [r for r in rows if r["selection_mode"] == MATCHED]
    assert {r["model_id"] for r in others} == {"m0", "m1"}


def test_runs_without_checkpoints_are_named(members, tmp_path):
    bare = replace(members[1].members[1], milestones=())
    broken = replace(members[1], members=(members[1].members[0], bare))
    (_, found, _) = select(
        [members[0], broken, members[2]], read_costs(tmp_path, members), [1.0], [TIME]
    )
    assert found.mode == "not matched: no checkpoints of seed 1 were measured along the training"


def test_without_the_time_of_every_model_there_is_no_budget(members, tmp_path):
    unknown = {"seconds_per_step": None, "seconds_per_step_error": None}
    blind = replace(
        members[1],
        members=tuple(replace(e, compute={**e.compute, **unknown}) for e in members[1].members),
    )
    costs = read_costs(tmp_path, [members[0], blind])
    assert {s.mode for s in select([members[0], blind], costs, resources=[TIME])} == {
        "not matched: the time of a training step is not known for every model"
    }


def test_times_measured_side_by_side_come_first(members, tmp_path):
    rounds = {"m0": [0.1, 0.3], "m1": [0.2, 0.6], "m2": [0.1, 0.3]}
    times(tmp_path / "toy", rounds)
    costs = read_costs(tmp_path / "toy", members)
    assert costs.apart
    assert costs.ratios["m1"].value == pytest.approx(2.0)
    assert costs.ratios["m1"].standard_error == pytest.approx(0.0, abs=1e-12)  # within rounds
    assert costs.training(members[0]).value == pytest.approx(20.0)


def test_times_of_some_models_only_are_not_mixed_with_others(members, tmp_path):
    times(tmp_path / "toy", {"m0": [0.1, 0.3], "m1": [0.2, 0.6]})
    costs = read_costs(tmp_path / "toy", members)
    assert not costs.apart
    assert "step_times.json lacks m2" in costs.summary
    assert costs.seconds["m1"].value == pytest.approx(0.17)


@pytest.mark.parametrize(
    "rounds", [{"m0": [0.1]}, {"m0": [0.1, 0.2], "m1": [1.0]}, {"m0": [0, 1]}, 3]
)
def test_a_spoilt_file_of_times_is_refused(members, tmp_path, rounds):
    times(tmp_path / "toy", rounds)
    with pytest.raises(RunError, match="does not hold step times: remove it"):
        read_costs(tmp_path / "toy", members)


def test_the_budget_is_that_of_the_cheapest(members, tmp_path):
    records = budget_records(members, read_costs(tmp_path, members))
    rows = [BUDGET_COLUMNS.row(record) for record in records]
    assert [r["model_mean_hours"] * 3600 for r in rows] == pytest.approx([10.0, 17.0, 300.0])
    assert {round(r["shared_budget_hours"] * 3600, 9) for r in rows} == {10.0}
    assert {r["device"] for r in rows} == {"cpu, 1 thread"}


def test_times_that_are_not_equal_are_not_compared(members, tmp_path):
    """At none of the budgets is the second model within a tenth of the first's time."""
    assert matched_pairs(select(members, read_costs(tmp_path, members), resources=[TIME])) == []


def test_differences_at_equal_time_are_paired(members, tmp_path):
    """Steps that take 1.9 times as long leave 5 % of the whole budget, and 24 % of its half."""
    members[1] = group("m1", {0: 1.5, 1: 2.5}, step_time=0.19)
    found = matched_pairs(select(members, read_costs(tmp_path, members), resources=[TIME]))
    assert {p.budget_fraction for p in found} == {1.0, 0.25}
    assert {p.model.model for p in found} == {"m1"}
    (whole,) = [
        p for p in found if p.budget_fraction == 1.0 and p.key.metric_name == "sliced_wasserstein"
    ]
    assert whole.difference.value == pytest.approx(0.5 + 0.5)
    assert whole.difference.standard_error == pytest.approx(0.0, abs=1e-12)


def test_each_resource_has_a_budget_of_its_own(tmp_path):
    """Steps of equal batches: of m1 each takes 2.5 times the multiply-adds, of which half the
    budget, 50 of m0's steps, is 20 of its own."""
    members = [group("m0", {0: 1.0, 1: 2.0}), group("m1", {0: 1.5, 1: 2.5}, adds=2500.0)]
    selections = select(members, read_costs(tmp_path, members))
    found = {(s.resource.name, s.group.model, s.fraction): s for s in selections}
    assert {name for name, *_ in found} == {r.name for r in RESOURCES}
    steps = {
        name: [found[name, model, 0.5].steps for model in ("m0", "m1")]
        for name in ("time", "images", "multiply_adds", "network_calls")
    }
    assert steps.pop("multiply_adds") == [50, 20]
    assert set(map(tuple, steps.values())) == {(50, 50)}
    one = found["multiply_adds", "m1", 0.5]
    assert (one.budget, one.amount.value) == (50_000, 50_000)
    row = MATCHED_COLUMNS.row(matched_records([one])[0])
    assert (row["matched_by"], row["shared_budget"], row["budget_unit"]) == (
        "multiply_adds",
        100_000,
        "multiply-adds",
    )
    assert (row["shared_budget_hours"], row["selected_hours_mean"]) == ("", "")
    by_pairs = {(p.matched_by, p.budget_fraction) for p in matched_pairs(selections)}
    assert ("multiply_adds", 0.5) in by_pairs


def test_multiply_adds_that_a_record_lacks_are_named(members, tmp_path):
    old = replace(members[1].members[0], compute={"batch_size": 4, "images": 40})
    some = [members[0], replace(members[1], members=(old,))]
    modes = {s.resource.name: s.mode for s in select(some, read_costs(tmp_path, some), [1.0])}
    assert modes["multiply_adds"] == (
        "not matched: the number of multiply-adds of a training step is not known for every model"
    )
    assert modes["images"] == MATCHED

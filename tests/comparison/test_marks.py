"""Marks of models: by the interval of the mean difference over common seeds, in every table."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from scorefield.cli.printing import print_table
from scorefield.cli.results import Results
from scorefield.comparison.marks import (
    BASE,
    BETTER,
    NONE,
    SAME,
    WORSE,
    compared_with_first,
    marks_of,
)
from scorefield.comparison.overview import notes, overview
from scorefield.comparison.processes import TaskResult
from scorefield.comparison.sweep import summary
from scorefield.evaluation.catalogue import TARGET
from scorefield.evaluation.records import Evaluation, Level
from tests.comparison.benchmark import evaluation, sliced

MODELS = {
    "m0": (1.0, 2.0, 4.0),
    "m1": (0.5, 1.6, 3.4),
    "m2": (2.0, 2.0, 4.1),
    "m3": (3.0, 4.1, 6.0),
}
"""The differences from m0 are -0.5, -0.4, -0.6; 1, 0, 0.1; 2, 2.1, 2: the second may be chance."""
MARKS = {"m0": BASE, "m1": BETTER, "m2": SAME, "m3": WORSE}


def evaluations(seeds=(0, 1, 2)):
    return [evaluation(m, s, values[s]) for m, values in MODELS.items() for s in seeds]


def test_a_model_is_marked_by_the_interval_of_its_difference():
    found = {model: mark for (_, model), mark in marks_of(TARGET, evaluations()).items()}
    assert found == MARKS


def test_single_trainings_and_different_protocols_are_not_marked():
    assert set(marks_of(TARGET, evaluations((1,))).values()) == {NONE}
    first, *others = evaluations()
    other = replace(first, protocol={**first.protocol, "samples": 7})
    assert marks_of(TARGET, [other, *others]) == {}


@pytest.fixture
def root(tmp_path):
    for e in evaluations():
        e.write(tmp_path / "toy" / e.model / f"seed{e.seed}")
    return tmp_path


def read(root, model, seed=0):
    return Evaluation.read(root / "toy" / model / f"seed{seed}")


@pytest.mark.parametrize("model", ["m1", "m2", "m3"])
def test_an_evaluation_is_compared_with_the_first_model_of_its_folder(root, model):
    """Each number by its own difference: at the small budget this model's is another."""
    own = read(root, model)
    pairs = compared_with_first(own)
    rows = {(row["quantity"], row["at"]): row["value"].mark for row in overview(own, pairs)}
    words = MARKS[model].words
    assert rows["sliced Wasserstein", "7 calls, heun"] == words
    assert rows["validation loss", "all noise levels"] == words
    assert rows["relative asymmetry", "2 noise levels"] == words
    assert "worse than m0" in notes(own, pairs)[0]


def test_each_number_has_its_own_mark(root):
    for seed in (0, 1, 2):
        e = read(root, "m1", seed)
        far = replace(e, distances=(sliced(8, 10.0 + seed), e.distances[1]))
        far.write(root / "toy" / "m1" / f"seed{seed}")
    own = read(root, "m1")
    rows = {row["at"]: row["value"].mark for row in overview(own, compared_with_first(own))}
    assert (rows["7 calls, heun"], rows["17 calls, heun"]) == ("worse", "better")


def test_what_cannot_be_compared_is_not(root, tmp_path, capsys):
    """The first model itself; a run of another protocol; one that is elsewhere; damaged ones."""
    assert compared_with_first(read(root, "m0")) == []
    own = read(root, "m1")
    other = replace(own, protocol={**own.protocol, "points": 51})
    assert compared_with_first(other) == []
    own.write(tmp_path / "moved" / "m1" / "seed0")
    assert compared_with_first(Evaluation.read(tmp_path / "moved" / "m1" / "seed0")) == []
    for seed in (0, 1):
        (root / "toy" / "m0" / f"seed{seed}" / "eval" / "fid_vs_nfe.csv").write_text("x\n")
    assert {p.baseline.model for p in compared_with_first(own)} == set()
    assert capsys.readouterr().err.count("warning: a run is left out") == 2


def test_a_gradient_is_marked_without_anything_to_compare():
    levels = (Level("relative_asymmetry", 0.5, sliced(8, 1e-9).estimate),)
    rows = overview(replace(evaluation("m0", 0, 1.0), levels=levels))
    assert {row["quantity"]: row["value"].mark for row in rows}[
        "relative asymmetry"
    ] == "a gradient"


def test_marks_stand_beside_intervals_and_are_there_for_machines(root, capsys):
    own = read(root, "m3")
    rows = overview(own, compared_with_first(own))
    print_table(rows)
    assert capsys.readouterr().out.count(" worse") == sum(r["value"].mark == "worse" for r in rows)
    document = json.loads(json.dumps(Results(rows=rows).document(), default=str))
    values = [row["value"] for row in document["results"]]
    assert [v.get("mark", "") for v in values] == [row["value"].mark for row in rows]
    assert all(v["low"] <= v["value"] <= v["high"] for v in values)


def test_a_sweep_marks_all_seeds_of_a_model_alike(root):
    jobs = [
        SimpleNamespace(config=SimpleNamespace(name=f"toy/{m}", seed=s), folder=f.parents[1])
        for m in reversed(MODELS)
        for s, f in enumerate(sorted((root / "toy" / m).glob("seed*/eval/compute_summary.json")))
    ]
    rows, notes = summary(jobs, [TaskResult("done")] * len(jobs))
    assert [r["run"] for r in rows] == [job.config.name for job in jobs]
    for row in rows:
        found = row["sliced Wasserstein, 17 calls"]
        assert found.mark == MARKS[row["run"].removeprefix("toy/")].words
    assert "than the reference" in notes[0]

"""Which runs a sweep is made of."""

from pathlib import Path

import pytest

from scorefield.comparison.processes import TaskResult
from scorefield.comparison.sweep import plan, remaining
from scorefield.config import presets
from scorefield.errors import ConfigError

ROOT = Path("runs")


def planned(*names, seeds=(0,), overrides=()):
    return [(job.name, job.config.seed) for job in plan(names, seeds, overrides, ROOT)]


def test_a_pattern_stands_for_the_presets_that_it_matches():
    atoms = [name for name in presets.names() if name.startswith("atoms/")]
    assert len(atoms) > 4
    assert planned("atoms/*") == [(name, 0) for name in atoms]
    assert planned("toy/m[02]", "atoms/cons*e") == [
        ("toy/m0", 0),
        ("toy/m2", 0),
        ("atoms/consistency_with_analytical_guide", 0),
    ]
    # Of what is only there to be extended, none is matched.
    assert not [name for name, _ in planned("toy/*") if name.endswith("base")]


def test_each_match_is_run_with_each_seed_and_with_all_changes():
    assert planned("toy/m?", seeds=(3, 1)) == [
        (f"toy/m{k}", seed) for seed in (3, 1) for k in range(5)
    ]
    jobs = plan(["toy/m?"], [0], ["train.steps=7"], ROOT)
    assert {job.config.train.steps for job in jobs} == {7}
    assert jobs[0].folder == ROOT / jobs[0].config.folder


def test_a_name_without_a_pattern_and_a_file_are_what_they_were(tmp_path):
    file = tmp_path / "a[0].yaml"
    file.write_text("extends: toy/m0\nname: toy/mine\n")
    assert planned("toy/m1", str(file)) == [("toy/m1", 0), (str(file), 0)]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("atom/*", r"^no preset matches 'atom/\*'; the nearest is 'atoms/\*'$"),
        ("toy/n?", r"^no preset matches 'toy/n\?'; the nearest is 'toy/"),
        ("~*", r"^no preset matches '~\*'; the families are atoms, bedroom, "),
        ("toy/mm", r"^there is no preset 'toy/mm'"),
    ],
)
def test_a_pattern_that_matches_nothing_is_told(name, told):
    with pytest.raises(ConfigError, match=told):
        planned("toy/m0", name)


def test_what_distills_a_teacher_is_left_out_of_a_pattern_and_refused_by_name(capsys):
    names = [name for name, _ in planned("toy/m2*", seeds=(0, 1))]
    assert "toy/m2" in names
    assert "toy/m2_distilled" not in names
    (line,) = capsys.readouterr().err.splitlines()
    assert "toy/m2_distilled is left out of 'toy/m2*': objective.teacher.run is not given" in line
    for name in ("toy/m2_distilled", "toy/m2_distil*"):
        with pytest.raises(ConfigError, match=r"^toy/m2_distilled: objective\.teacher\.run is not"):
            planned("toy/m0", name)


def test_a_preset_that_is_named_twice_is_told():
    with pytest.raises(ConfigError, match="toy/m0 with seed 0 is in the sweep twice"):
        planned("toy/m?", "toy/m0")


@pytest.mark.parametrize(
    ("seconds", "width", "words"),
    [
        ([60.0], 1, "1 of 7 runs ended, about 6:00 left"),
        ([60.0, 120.0, 90.0], 2, "3 of 7 runs ended, about 3:00 left"),
        ([60.0] * 5, 4, "5 of 7 runs ended, about 1:00 left"),
        ([60.0] * 7, 1, "7 of 7 runs ended"),
    ],
)
def test_the_time_left_is_that_of_the_runs_that_were_trained(seconds, width, words):
    ended = [TaskResult("done", True, seconds=s) for s in seconds]
    assert remaining(ended, 7, width) == words


def test_runs_that_were_there_or_failed_are_no_measure_of_the_time_left():
    ended = [TaskResult("done", False, seconds=1.0), TaskResult("failed", None, "x", 1.0)]
    assert remaining(ended, 4, 1) == "2 of 4 runs ended"
    assert remaining([*ended, TaskResult("done", True, seconds=30.0)], 4, 1).endswith("0:30 left")

"""Which runs a sweep is made of."""

from pathlib import Path

import pytest

from scorefield.comparison.sweep import plan
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


def test_a_preset_that_is_named_twice_is_told():
    with pytest.raises(ConfigError, match="toy/m0 with seed 0 is in the sweep twice"):
        planned("toy/m?", "toy/m0")

"""The demonstration, with trainings of a few steps."""

import json

import pytest

from scorefield.comparison.demo import MODELS, SHORTER, demo
from scorefield.comparison.groups import collect
from scorefield.comparison.timing import time_steps
from scorefield.config.resolve import load_config
from scorefield.errors import ConfigError
from scorefield.runs.run import Run

TINY = (
    "train.steps=4",
    "train.batch_size=128",
    "optim.warmup=1",
    "field.network.hidden=8",
    "field.network.depth=1",
    "eval.nfes=[3]",
    "eval.samples=32",
    "eval.pairs=2",
    "eval.points=4",
    "eval.sigmas=[0.5]",
)


@pytest.mark.slow
def test_five_models_are_trained_judged_and_timed_and_then_taken_up(tmp_path, capsys):
    folders = demo(tmp_path, ["toy"], TINY, jobs=1)
    assert [Run.open(f).model_id.partition("_")[0] for f in folders] == list(MODELS)
    assert all(Run.open(folder).finished for folder in folders)
    evaluations = collect(tmp_path)
    assert [e.about["label"] for e in evaluations] == ["M0", "M1", "M2", "M3", "M4"]
    assert len({json.dumps(dict(e.protocol)) for e in evaluations}) == 1
    times = json.loads((tmp_path / "toy" / "step_times.json").read_text())
    assert set(times["seconds"]) == {e.model for e in evaluations}
    assert set(times["ratios"]) == {e.model for e in evaluations if e.about["label"] != "M0"}
    said = capsys.readouterr().out
    assert said.count("trained") == said.count("evaluated") == 5

    written = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*") if f.is_file()}
    assert demo(tmp_path, ["toy"], TINY, jobs=1) == folders
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*") if f.is_file()} == written
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("family", SHORTER)
def test_what_the_demonstration_changes_is_known_to_its_presets(family):
    for model in MODELS:
        assert load_config(f"{family}/{model}", SHORTER[family]).train.steps <= 4000


def test_a_mistake_is_told_before_anything_is_trained(tmp_path):
    with pytest.raises(ConfigError, match="nearest is 'steps'"):
        demo(tmp_path, ["toy"], ["train.stepz=3"])
    assert not list(tmp_path.iterdir())


def test_a_model_costs_as_much_as_itself(tmp_path):
    """The ratio of equal models is one within its own error, widely taken."""
    config = load_config("toy/m0", TINY)
    twin = load_config("toy/m0", [*TINY, "optim.lr=1e-4"])
    (ratio,) = time_steps([config, twin], tmp_path, rounds=8, steps=24).values()
    assert 0.4 < ratio.value < 2.5
    assert ratio.standard_error > 0

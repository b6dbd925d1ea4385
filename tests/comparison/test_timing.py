"""Models timed side by side: by the sweep that trained them, for whole periods of their terms."""

import json

import pytest

from scorefield.cli.program import main
from scorefield.comparison.sweep import time_models
from scorefield.comparison.timing import ratio, time_steps
from scorefield.config.resolve import load_config

SMALL = """\
extends: toy/{model}
field: {{network: {{hidden: 8, depth: 1, embedding: 4}}}}
train: {{steps: 4, batch_size: 16, checkpoint_every: 2, log_every: 1}}
eval: {{nfes: [8], samples: 16, pairs: 2, sigmas: [1.0], points: 4}}
"""


@pytest.fixture
def files(tmp_path):
    for model in ("m0", "m1"):
        (tmp_path / f"{model}.yaml").write_text(SMALL.format(model=model))
    return [str(tmp_path / f"{model}.yaml") for model in ("m0", "m1")]


@pytest.mark.slow
def test_a_sweep_times_the_models_of_a_data_set_once(files, tmp_path, capsys):
    root = tmp_path / "runs"
    command = ["sweep", *files, "--eval", "--root", str(root)]
    assert main(command) == 0
    path = root / "toy" / "step_times.json"
    written = path.read_text()
    record = json.loads(written)
    assert set(record["rounds"]) == {"m0", "m1"}
    assert all(len(seconds) == 4 for seconds in record["rounds"].values())
    assert main(command) == 0
    assert path.read_text() == written
    capsys.readouterr()


def test_a_term_that_is_evaluated_now_and_then_is_timed_over_whole_periods(files, tmp_path):
    """The asymmetry of ``m1`` is evaluated at every eighth step."""
    configs = [load_config(file) for file in files]
    assert configs[1].objective.asymmetry.every == 8
    time_steps(configs, tmp_path, rounds=2)
    told = json.loads((tmp_path / "step_times.json").read_text())["told"]
    assert "2 rounds of 8 steps a model" in told  # no more than the training, in whole periods


def test_what_slows_a_round_does_not_change_the_ratio():
    found = ratio([2.0, 20.0, 6.0], [1.0, 10.0, 3.0])
    assert found.value == pytest.approx(2.0)
    assert found.standard_error == pytest.approx(0.0, abs=1e-12)


def test_of_several_tasks_of_a_job_the_first_times(files, tmp_path, monkeypatch):
    timed, given = [], {}
    for file in files:
        config = load_config(file)
        folder = tmp_path / "runs" / config.folder
        (folder / "eval").mkdir(parents=True)
        (folder / "eval/compute_summary.json").write_text("{}")
        given[folder] = config
    monkeypatch.setattr("scorefield.comparison.timing.time_steps", lambda *a: timed.append(a))
    data = next(iter(given)).parents[1]
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        time_models(data, given)
        assert len(timed) == (rank == "0")

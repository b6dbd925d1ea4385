"""A run with an average of another length, beside the run that it is of."""

import json

import pytest
import torch

from scorefield import load_config
from scorefield.cli import main
from scorefield.errors import CheckpointError, RunError
from scorefield.runs.averaged import averaged
from scorefield.runs.run import Run
from scorefield.runs.subject import open_subject
from scorefield.training.lengths import PowerAverage

torch.set_num_threads(1)
SMALL = [
    "field.network.hidden=8",
    "field.network.depth=1",
    "field.network.embedding=4",
    "train.steps=60",
    "train.batch_size=16",
    "train.checkpoint_every=30",
    "optim.warmup=5",
]


def trained(root, *changes):
    run = Run.create(load_config("toy/m0", [*SMALL, *changes]), root)
    run.train(quiet=True)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs"), "train.snapshot_every=10")


def test_is_a_run_like_every_other(run, capsys):
    assert main(["ema", str(run.folder), "--length", "0.07", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    folder = run.folder.parent.parent / f"{run.model_id},ema=0.07" / "seed0"
    assert found["files"] == [str(folder)]
    assert found["results"][0]["length"] == 0.07
    assert found["results"][0]["relative error"] == pytest.approx(0.0212, abs=5e-5)
    made = Run.open(folder)
    assert made.finished
    for of, same in (("raw", True), ("ema", False)):
        pairs = zip(run.field(of).parameters(), made.field(of).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == same
    assert main(["sample", str(folder), "--n", "4", "--steps", "2"]) == 0
    assert main(["inspect", str(folder)]) == 0
    assert open_subject(folder).config.name == made.config.name


def test_lengths_that_differ_in_any_digit_are_two_runs(run):
    folders = {averaged(run, length)[0].folder for length in (0.09, 0.09000001, 0.0900000100001)}
    assert len(folders) == 3
    assert {Run.open(folder).model_id for folder in folders} == {f.parent.name for f in folders}


def test_a_tracked_length_comes_back(run):
    made, found = averaged(run, 0.1, step=30)
    assert found.error < 1e-6
    assert made.steps() == [30]
    stored = open_subject(run.folder / "averages" / "step_00000030" / "0.10.safetensors").field
    for a, b in zip(made.field().parameters(), stored.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_is_what_an_average_tracked_all_along_would_be(tmp_path, monkeypatch):
    tracked = []
    take_in = PowerAverage.take_in

    def both(average, taken):
        if not tracked:
            tracked.append(PowerAverage(average._module, 0.08))
        if average.updates > tracked[0].updates:
            tracked[0].begin()
            take_in(tracked[0], taken)
        take_in(average, taken)

    monkeypatch.setattr(PowerAverage, "take_in", both)
    made, found = averaged(trained(tmp_path, "train.snapshot_every=5"), 0.08)
    expected = tracked[0].state_dict()
    assert found.error < 0.01
    raw = made.field("raw").state_dict()
    for name, tensor in made.field().state_dict().items():
        away = torch.linalg.vector_norm(raw[name] - expected[name])
        assert torch.linalg.vector_norm(tensor - expected[name]) <= 0.05 * away + 1e-6


def test_says_what_is_wrong(run, tmp_path):
    averaged(run, 0.06)
    with pytest.raises(RunError, match="is there already: give --overwrite"):
        averaged(run, 0.06)
    averaged(run, 0.06, overwrite=True)
    with pytest.raises(ValueError, match="lies between 0 and"):
        averaged(run, 0.5)
    with pytest.raises(RunError, match="no checkpoint of step 7"):
        averaged(run, 0.05, step=7)
    with pytest.raises(CheckpointError, match=r"no averages up to step 60: .*snapshot_every"):
        averaged(trained(tmp_path), 0.05)

"""Runs, checkpoints and evaluations of the first version open, and give the numbers they gave."""

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from scorefield import Heun
from scorefield.estimate import Estimate
from scorefield.evaluation.records import Evaluation
from scorefield.runs.run import Run
from tests import processes

STORED = Path(__file__).parent.parent / "data" / "first_version" / "runs"


@pytest.fixture
def old(tmp_path) -> Path:
    """A copy of the run on the ring, which a test may change."""
    return shutil.copytree(STORED / "toy/small/seed0", tmp_path / "runs/toy/small/seed0")


@pytest.mark.parametrize("name", ["toy/small", "atoms/small"])
def test_an_old_run_opens_with_its_checkpoints_and_its_evaluation(name):
    run = Run.open(STORED / name / "seed0")
    assert run.finished
    assert run.steps()[-1] == run.config.train.steps
    found = Evaluation.read(run.folder)
    assert f"{found.dataset}/{found.model}" == name
    assert found.step == run.config.train.steps
    with (run.folder / "eval/fid_vs_nfe.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [d.estimate.value for d in found.distances] == [float(row["value"]) for row in rows]


def test_an_old_field_gives_the_samples_it_gave():
    run = Run.open(STORED / "toy/small/seed0")
    (file,) = (run.folder / "samples").glob("*.npz")
    expected = torch.from_numpy(np.load(file)["samples"])
    x = Heun.for_nfe(8).sample(run.field(), n=16, seed=0)
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_an_old_run_resumes_from_a_middle_checkpoint_to_the_weights_it_had(old):
    last = old / "checkpoints/step_00000006"
    expected = {name: load_file(last / f"{name}.safetensors") for name in ("model", "ema")}
    shutil.rmtree(last)
    run = Run.open(old)
    run.train(quiet=True)
    for name, weights in expected.items():
        found = load_file(last / f"{name}.safetensors")
        assert found.keys() == weights.keys()
        for key, value in weights.items():
            # Three steps of Adam amplify the rounding of float32 at most a thousandfold.
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.slow
def test_an_old_run_evaluated_again_gives_the_numbers_it_gave(old):
    """Points, noise and protocol are those of the first version; only rounding may differ."""
    before = Evaluation.read(old)
    command = [sys.executable, "-m", "scorefield", "eval", old, "--nfe", "8,18"]
    assert processes.run(*command).returncode == 0
    after = Evaluation.read(old)
    measured = {(d.metric, d.budget): d.estimate for d in after.distances}
    for d in before.distances:
        _same(measured[d.metric, d.budget], d.estimate, f"{d.metric} at {d.budget} calls")
    levels = {(v.metric, v.sigma, v.scale_delta, v.cycle_len): v.estimate for v in after.levels}
    for v in before.levels:
        key = (v.metric, v.sigma, v.scale_delta, v.cycle_len)
        _same(levels[key], v.estimate, f"{v.metric} at sigma {v.sigma}")
    _same(after.validation, before.validation, "validation loss")


def _same(found: Estimate, expected: Estimate, name: str) -> None:
    """Equal to a hundredth of the statistical error and of the value."""
    close = 0.01 * (expected.standard_error + abs(expected.value)) + 1e-9
    assert abs(found.value - expected.value) <= close + expected.numerical_error, name
    assert found.n == expected.n, name

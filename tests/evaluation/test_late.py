"""A shared folder that shows what is new to some processes only: no numbers of both."""

import shutil
from dataclasses import replace

import pytest
import torch

from scorefield import ArraySource, Euler
from scorefield.engine import Engine
from scorefield.errors import RunError, UserError
from scorefield.evaluation.evaluate import evaluate
from scorefield.evaluation.likelihood import LikelihoodSettings, data_likelihood
from scorefield.evaluation.protocol import Benchmark, Protocol
from scorefield.evaluation.sampling import draw
from scorefield.runs.run import Run
from scorefield.runs.subject import open_model, open_subject
from scorefield.training import checkpoint
from tests.worlds import together

FEW = Protocol(nfes=(3,), along=3, samples=32, pairs=2, sigmas=(1.0,), points=4)


def likelihood(folder, engine):
    data_likelihood(open_subject(folder, "ema"), "test", 4, LikelihoodSettings(), engine)


@pytest.mark.parametrize("work", [
    lambda folder, engine: evaluate(Run.open(folder), overwrite=True, engine=engine),
    lambda folder, engine: draw(open_model(folder), 4, Euler(2), engine=engine),
    likelihood,
])  # fmt: skip
def test_a_process_that_sees_an_older_checkpoint_is_named(trained, tmp_path, work):
    for rank in range(2):
        shutil.copytree(trained, tmp_path / f"{rank}")
    newest = checkpoint.paths(tmp_path / "1/checkpoints")[-1]
    shutil.rmtree(newest)

    def refused(world):
        with pytest.raises(UserError) as error:
            work(tmp_path / f"{world.rank}", Engine("cpu", world=world))
        return str(error.value)

    (said,) = set(together(2, refused))
    assert said.startswith("process 1 differs from process 0 in checkpoint")


def test_an_evaluation_that_the_first_process_sees_is_there_for_all(trained, tmp_path):
    for rank in range(2):
        shutil.copytree(trained, tmp_path / f"{rank}")
    few = replace(FEW, along=None)
    whole = evaluate(Run.open(tmp_path / "0"), protocol=few)

    def again(world):
        run = Run.open(tmp_path / f"{world.rank}")
        return evaluate(run, protocol=few, engine=Engine("cpu", world=world))

    for found in together(2, again):
        assert found.validation == whole.validation


def test_a_checkpoint_along_the_training_that_a_process_does_not_see_is_named(trained, tmp_path):
    for rank in range(2):
        shutil.copytree(trained, tmp_path / f"{rank}")
    oldest, *_ = checkpoint.paths(tmp_path / "1/checkpoints")
    shutil.rmtree(oldest)

    def work(world):
        run = Run.open(tmp_path / f"{world.rank}")
        evaluate(run, protocol=FEW, engine=Engine("cpu", world=world))

    with pytest.raises(RunError, match=f"has no checkpoint of step {checkpoint.step_of(oldest)}"):
        together(2, work)


def test_processes_with_other_held_out_points_are_refused(trained, tmp_path, monkeypatch):
    held = torch.randn(64, 2)
    for rank in range(2):
        shutil.copytree(trained, tmp_path / f"{rank}")

    def benchmark_of(run, protocol, stages):
        points = held.roll(int(run.folder.name), 0)
        return Benchmark(ArraySource(held, points, "x"), protocol)

    def work(world):
        run = Run.open(tmp_path / f"{world.rank}")
        evaluate(run, protocol=FEW, engine=Engine("cpu", world=world))

    monkeypatch.setattr("scorefield.evaluation.evaluate.benchmark_of", benchmark_of)
    with pytest.raises(UserError, match="process 1 differs from process 0 in samples"):
        together(2, work)

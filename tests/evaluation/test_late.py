"""A shared folder that shows a new checkpoint to some processes only: no numbers of both."""

import shutil

import pytest

from scorefield import Euler
from scorefield.engine import Engine
from scorefield.errors import UserError
from scorefield.evaluation.evaluate import evaluate
from scorefield.evaluation.likelihood import LikelihoodSettings, data_likelihood
from scorefield.evaluation.sampling import draw
from scorefield.runs.run import Run
from scorefield.runs.subject import open_subject
from scorefield.training import checkpoint
from tests.worlds import together


def likelihood(folder, engine):
    data_likelihood(open_subject(folder, "ema"), "test", 4, LikelihoodSettings(), engine)


@pytest.mark.parametrize("work", [
    lambda folder, engine: evaluate(Run.open(folder), overwrite=True, engine=engine),
    lambda folder, engine: draw(Run.open(folder), 4, Euler(2), engine=engine),
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

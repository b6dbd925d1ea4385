"""The folder of an evaluation: replaced as a whole, or as it was."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from scorefield.estimate import Variance
from scorefield.evaluation.records import Evaluation
from tests.training.disk import Operations, in_a_child, limited

# The processes are forked while nothing else runs in this one.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

FIRST = Path(__file__).parents[1] / "data" / "first_version" / "runs" / "toy" / "small" / "seed0"
LIKELIHOOD = {"likelihood.csv": "point,log_prob\n0,1.5\n", "likelihood.json": "{}\n"}


@pytest.fixture
def old():
    return Evaluation.read(FIRST)


@pytest.fixture
def run(tmp_path, old):
    """A run with an evaluation and log-densities beside it."""
    old.write(tmp_path)
    for name, text in LIKELIHOOD.items():
        (tmp_path / "eval" / name).write_text(text)
    return tmp_path


def found(run):
    """The evaluation of a run, whose log-densities are as they were."""
    evaluation = Evaluation.read(run)
    assert {name: (run / "eval" / name).read_text() for name in LIKELIHOOD} == LIKELIHOOD
    assert [p.name for p in run.iterdir()] == ["eval"]
    assert len(list((run / "eval").iterdir())) == 4 + len(LIKELIHOOD)
    return replace(evaluation, folder=FIRST)


def test_a_second_evaluation_replaces_the_first_and_nothing_else(run, old):
    new = replace(old, step=old.step + 1)
    new.write(run)
    assert found(run) == new


def test_killed_at_any_operation_it_is_the_old_evaluation_or_the_new(run, old):
    new = replace(old, step=old.step + 1)
    at, status, steps = 0, -signal.SIGKILL, []
    while status == -signal.SIGKILL:
        at += 1
        old.write(run)

        def work(at=at):
            Operations("kill", at).watch()
            new.write(run)

        status = in_a_child(work)
        steps.append(found(run).step)
    assert status == 0
    assert at > 15
    assert steps == sorted(steps)
    assert {old.step, new.step} == set(steps)


def test_on_a_full_disk_it_is_the_old_evaluation(run, old):
    largest = max(p.stat().st_size for p in (run / "eval").iterdir())

    def work():
        with pytest.raises(OSError, match="File too large"):
            replace(old, step=old.step + 1).write(run)

    assert limited(largest - 1, work) == 0
    assert found(run) == old


def test_a_variance_that_depends_on_the_true_value_is_read_back(tmp_path, old):
    distance = old.distances[0]
    varying = replace(distance.estimate, variance=Variance(1e-6, 2.5e-4))
    new = replace(old, distances=(replace(distance, estimate=varying), *old.distances[1:]))
    new.write(tmp_path)
    read = Evaluation.read(tmp_path).distances
    assert read[0].estimate.interval() == varying.interval() != distance.estimate.interval()
    assert [d.estimate.variance for d in read[1:]] == [None] * (len(read) - 1)

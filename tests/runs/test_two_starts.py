"""Two processes start the same run at the same time: one trains, the other says so."""

import multiprocessing
import os
import signal

import pytest
import torch
import torch._dynamo  # the first optimiser of a process imports it: better once, before both

from scorefield.config.resolve import load_config
from scorefield.errors import Interrupted, UserError
from scorefield.runs import run as runs
from scorefield.runs.run import Run
from tests.processes import wait_for

# The processes are forked while nothing else runs in this one.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

SECONDS = 60


def start(config, root, place, barrier, told):
    """Makes and trains a run; both processes wait for each other at a place of the work."""
    torch.set_num_threads(1)
    environment = runs.environment

    def together():
        barrier.wait(SECONDS)
        return environment()

    if place == "made":
        runs.environment = together  # after the look for a run, before it is written
    try:
        run = Run.create(config, root)
        if place == "trained":
            barrier.wait(SECONDS)
        run.train(quiet=True)
    except Interrupted:
        told.put((os.getpid(), "trained"))
    except UserError as error:
        told.put((os.getpid(), str(error)))


@pytest.mark.parametrize("place", ["made", "trained"])
def test_of_two_starts_at_once_exactly_one_trains(small, tmp_path, place):
    config = load_config(small, ["train.steps=10000000", "train.log_every=1", "name=toy/small"])
    folder = tmp_path / config.folder
    if place == "trained":
        Run.create(config, tmp_path)
    fork = multiprocessing.get_context("fork")
    barrier, told = fork.Barrier(2), fork.Queue()
    both = [
        fork.Process(target=start, args=(config, tmp_path, place, barrier, told)) for _ in range(2)
    ]
    for process in both:
        process.start()
    try:
        loser, sentence = told.get(timeout=SECONDS)
        (winner,) = (process.pid for process in both if process.pid != loser)
        assert sentence == (
            f"{folder} is being {place} by another process: wait for its end or stop it"
        )
        wait_for((folder / "metrics.csv").exists)
        os.kill(winner, signal.SIGTERM)
        assert told.get(timeout=SECONDS) == (winner, "trained")
    finally:
        for process in both:
            process.kill()
            process.join()
    assert Run.open(folder).config == config
    assert list(folder.parent.iterdir()) == [folder]

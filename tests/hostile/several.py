"""Kills a random process of a run at random moments, on two processes, one, and then four."""

import random
import signal
import tempfile
from pathlib import Path

import torch

from tests.several import attempt, command, ended, processes, weights

STEPS, LONGEST = 60, 1.5  # seconds of training before the kill


def kill_processes(moments, seed=0, report=print):
    """What was wrong after each so many kills, each of them followed by the next size of a run."""
    draw, wrong = random.Random(seed), []
    with tempfile.TemporaryDirectory() as root:
        whole = Path(root) / "whole"
        whole.mkdir()
        with processes(1, *command(whole)) as members:
            assert [status for status, *_ in ended(members)] == [0]
        expected = weights(whole, STEPS)
        for moment in range(moments):
            hurt = Path(root) / f"{moment}"
            hurt.mkdir()
            for size in (2, 1):
                rank, seconds = draw.randrange(size), LONGEST * draw.random()
                statuses, said = attempt(size, hurt, seconds, rank)
                if statuses[rank] not in (0, -signal.SIGKILL) or len(said) > 1:
                    wrong.append(f"moment {moment}, {size} processes: {statuses}, {said}")
            with processes(4, *command(hurt)) as members:
                statuses = [status for status, *_ in ended(members)]
            if statuses != [0] * 4:
                wrong.append(f"moment {moment}: the run does not go on: {statuses}")
            elif not torch.allclose(weights(hurt, STEPS), expected, rtol=1e-3, atol=1e-4):
                wrong.append(f"moment {moment}: other weights")
            report(f"{moment + 1} of {moments} moments, {len(wrong)} wrong so far")
    return wrong

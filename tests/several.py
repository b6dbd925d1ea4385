"""Runs of several processes that a test starts, ends at a moment of its choice, and looks at."""

import os
import re
import signal
import socket
import sys
import time
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

import torch
import torch._dynamo  # the first optimiser imports it: better once, before the forks

from scorefield.cli import main
from scorefield.training import checkpoint
from tests.processes import SECONDS, started

SMALL = """\
extends: toy/m3
description: a small run with cycles, loops and a controller
field: {network: {hidden: 8, depth: 1, embedding: 4}}
optim: {warmup: 1}
train: {steps: 60, batch_size: 17, checkpoint_every: 7, log_every: 5, keep: null}
"""


def port():
    """A free port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def processes(size, *arguments, **environment):
    """Processes of ``python -m scorefield`` with the environment of torchrun."""
    common = {**os.environ, **environment, "WORLD_SIZE": str(size), "MASTER_PORT": str(port())}
    common |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                started(
                    *(sys.executable, "-m", "scorefield", *arguments),
                    env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                )
            )
            for rank in range(size)
        ]


def forks(size, work):
    """Children of this process with the environment of torchrun, where torch is imported already;
    each ends with the status that ``work`` returns for its rank.
    """
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port())}
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.environ.update(common, RANK=str(rank), LOCAL_RANK=str(rank))
                status = work(rank)
            finally:
                os._exit(status)
        children.append(child)
    return children


def statuses(children):
    """The exit statuses of children, negative for signals."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def forked(size, arguments, folder):
    """The exit statuses and outputs of the command line in children of this process."""

    def work(rank):
        file = os.open(folder / f"said{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        with open(file, "w") as said, redirect_stdout(said), redirect_stderr(said):
            return main(arguments)

    found = statuses(forks(size, work))
    said = [(folder / f"said{rank}").read_text() for rank in range(size)]
    return list(zip(found, said, strict=True))


def ended(members):
    """The exit status, output and errors of processes, once all have ended."""
    found = []
    for process in members:
        output, errors = process.communicate(timeout=SECONDS)
        found.append((process.returncode, output, errors))
    return found


def command(folder, *overrides):
    """The arguments of a training of the small configuration under a folder."""
    file = folder / "small.yaml"
    if not file.exists():
        file.write_text(SMALL)
    return "train", str(file), "--root", str(folder / "runs"), "name=toy/small", *overrides


def run_of(folder):
    return folder / "runs" / "toy" / "small" / "seed0"


def weights(folder, step):
    """The weights and their average at a step, in one vector."""
    found = checkpoint.read(run_of(folder) / "checkpoints" / checkpoint.name_of(step))
    # A file has them in no order of their own.
    tensors = [t for w in (found.model, found.ema) for _, t in sorted(w.tensors.items())]
    return torch.cat([t.double().flatten() for t in tensors])


def attempt(size, folder, seconds, rank):
    """Trains in several processes, kills one of them after so many seconds of training, and returns
    the exit statuses and the lines about errors.
    """
    begun = run_of(folder) / "metrics.csv"
    before = begun.stat().st_mtime_ns if begun.exists() else 0
    with processes(size, *command(folder)) as members:
        deadline = time.monotonic() + SECONDS
        while all(p.poll() is None for p in members):
            assert time.monotonic() < deadline
            if begun.exists() and begun.stat().st_mtime_ns != before:
                time.sleep(seconds)
                members[rank].send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        found = ended(members)
    said = [line for *_, errors in found for line in errors.splitlines()]
    return [status for status, *_ in found], [s for s in said if re.match("error|Traceback", s)]

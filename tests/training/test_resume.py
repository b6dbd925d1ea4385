"""A training that is killed and taken up again is, to the bit, one that never stopped."""

import csv
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch

from scorefield.training import checkpoint
from tests.training import worker

CONTEXT = multiprocessing.get_context("forkserver")
# Imported once; every training is then a fork of the server.
CONTEXT.set_forkserver_preload(["tests.training.worker", "torch.utils.tensorboard"])


@pytest.fixture(scope="module", autouse=True)
def importable():
    """Lets the server import the worker."""
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), before])
    yield
    os.environ["PYTHONPATH"] = before


class Process:
    """One training in a process of its own."""

    def __init__(self, folder, **fate):
        self.receiver, sender = CONTEXT.Pipe(duplex=False)
        self.process = CONTEXT.Process(
            target=worker.main, args=(sender, folder), kwargs=fate, daemon=True
        )
        self.process.start()
        sender.close()

    def end(self):
        """The exit status, and what the process said of its end."""
        try:
            said = self.receiver.recv()
        except EOFError:
            said = None
        self.process.join()
        return self.process.exitcode, said


def train(folder, **fate):
    return Process(folder, **fate).end()


def losses(folder):
    """The metrics without the one column that is a measurement of time."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {k: v for k, v in r.items() if k != "seconds_per_step"} for r in csv.DictReader(file)
        ]


def assert_same(folder, other):
    name = f"checkpoints/step_{worker.STEPS:08d}"
    for file in ("model.safetensors", "ema.safetensors"):
        assert (folder / name / file).read_bytes() == (other / name / file).read_bytes()
    mine, theirs = (checkpoint.read(f / name).state for f in (folder, other))
    assert flat(mine) == flat(theirs)
    assert losses(folder) == losses(other)
    assert not list((folder / "checkpoints").glob(".*"))


def flat(value):
    """The state with its tensors as lists, so that it can be compared."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {k: flat(v) for k, v in value.items()}
    return value


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """An uninterrupted training, its number of disk operations and its time in seconds."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(tmp_path_factory.mktemp("warm"), settings={"steps": 1})
    begin = time.monotonic()
    status, (end, operations) = train(folder)
    assert (status, end) == (0, "finished")
    assert [int(row["step"]) for row in losses(folder)] == [
        *range(worker.LOG_EVERY, worker.STEPS, worker.LOG_EVERY),
        worker.STEPS,
    ]
    return folder, operations, time.monotonic() - begin


@pytest.mark.slow
def test_killed_at_random_moments(uninterrupted, tmp_path):
    reference, _, seconds = uninterrupted
    moments, done = random.Random(0), 0
    for _ in range(6):
        process = Process(tmp_path)
        time.sleep(moments.uniform(0.2, 0.7) * seconds)
        process.process.kill()
        done += process.end()[0] == -signal.SIGKILL
    assert done
    assert train(tmp_path)[0] == 0
    assert_same(tmp_path, reference)


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_while_writing(uninterrupted, tmp_path, seed):
    reference, operations, _ = uninterrupted
    moments, done = random.Random(seed), 0
    # Each attempt dies at a disk operation of its own: of a row, within a file of weights,
    # between two of them, at the renaming.
    for at in [moments.randrange(operations // 8, operations // 3) for _ in range(6)]:
        status, _ = train(tmp_path, fate="kill", at=at)
        done += status == -signal.SIGKILL
    assert done >= 3
    assert train(tmp_path)[0] == 0
    assert_same(tmp_path, reference)


@pytest.mark.parametrize("share", [0, 1 / 3])
def test_stops_when_asked_to_and_goes_on(uninterrupted, tmp_path, share):
    reference, operations, _ = uninterrupted
    # The first operation is before the first step.
    status, (end, sentence) = train(tmp_path, fate="stop", at=1 + int(operations * share))
    assert (status, end) == (0, "Interrupted")
    saved = checkpoint.paths(tmp_path / "checkpoints")[-1]
    assert str(saved) in sentence
    assert train(tmp_path)[0] == 0
    assert_same(tmp_path, reference)


def test_a_failing_disk_loses_nothing(uninterrupted, tmp_path):
    reference, _, _ = uninterrupted
    for at in (1, 40, 43, 50):
        before = checkpoint.paths(tmp_path / "checkpoints")
        status, (end, sentence) = train(tmp_path, fate="full", at=at)
        assert status == 0
        assert end in ("CheckpointError", "TrainingError")
        assert "no space left on device" in sentence
        assert "\n" not in sentence
        after = checkpoint.paths(tmp_path / "checkpoints")
        assert after[: len(before)] == before
        assert all(checkpoint.read(path) for path in after)
        assert not list(tmp_path.glob("checkpoints/.*"))
    assert train(tmp_path)[0] == 0
    assert_same(tmp_path, reference)


def test_a_full_disk_ends_in_one_sentence(tmp_path):
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=400k none {tmp_path} 2>/dev/null"):
        pytest.skip("a small disk cannot be mounted here")
    try:
        status, (end, sentence) = train(tmp_path, settings={"hidden": 64})
        assert (status, end) == (0, "CheckpointError")
        assert "no space left on device" in sentence
        kept = checkpoint.paths(tmp_path / "checkpoints")
        assert kept
        assert all(checkpoint.read(path) for path in kept)
        assert not list(tmp_path.glob("checkpoints/.*"))
    finally:
        os.system(f"umount {tmp_path}")

"""A run of several processes is that of one, whichever of them end on the way."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

import scorefield
from scorefield import EDM, MLP, Optim, PreconditionedField, files, fit
from scorefield.data.given import source_of
from scorefield.engine import Engine
from scorefield.errors import CheckpointError, UserError
from scorefield.noise import Noise
from scorefield.runs.run import Run
from scorefield.training import checkpoint
from scorefield.training.identity import of_points
from scorefield.training.step import Stepper
from scorefield.training.trainer import Trainer
from tests.processes import started, wait_for
from tests.several import attempt, command, ended, forked, port, processes, run_of, weights
from tests.worlds import together

torch.set_num_threads(1)


def same(found, expected):
    """Within the rounding of 60 steps of Adam, whose first ones divide by small gradients."""
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_two_processes_train_a_run_as_one_does(small, trained, tmp_path):
    found = forked(2, ["train", str(small), "--root", str(tmp_path)], tmp_path)
    assert [status for status, _ in found] == [0, 0], found
    assert "is complete: 6 steps" in found[0][1]
    assert found[1][1] == ""
    folder = tmp_path / "toy" / "small" / "seed0"
    one, two = Run.open(trained), Run.open(folder)
    assert one.steps() == two.steps()
    for step in one.steps():
        expected, found = one.checkpoint(step), two.checkpoint(step)
        for name, tensor in expected.model.tensors.items():
            torch.testing.assert_close(found.model.tensors[name], tensor, rtol=1e-3, atol=1e-5)
    assert two.environment()["engines"][0]["processes"] == 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The small run by one process, without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    assert [status for status, _ in forked(1, command(folder), folder)] == [0]
    return folder


def trained_by(world, data=None, seed=0, steps=4, **settings):
    torch.manual_seed(seed)
    field = PreconditionedField(MLP(2, hidden=8, depth=1, embedding=4), EDM(), sigma_data=1.0)
    data = torch.randn(64, 2, generator=torch.Generator().manual_seed(1)) if data is None else data
    engine, settings = Engine("cpu", world=world), {"batch_size": 10} | settings
    return fit(field, data, steps=steps, quiet=True, engine=engine, **settings)


def test_all_processes_begin_with_the_weights_of_the_first():
    results = together(3, lambda world: trained_by(world, seed=world.rank))
    (expected,) = together(1, lambda world: trained_by(world))
    for found in results:
        for a, b in zip(found.field.parameters(), expected.field.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
        assert found.history[-1]["step"] == 4


@pytest.mark.parametrize("what", ["data.std", "points", "folder", "settings"])
def test_processes_that_differ_are_refused(tmp_path, what):
    def work(world):
        data = torch.arange(128.0).view(64, 2)
        differing = {
            "data.std": {"data": data * (1 + world.rank)},
            # The same points in another order.
            "points": {"data": data.flip(0) if world.rank else data},
            "folder": {"folder": tmp_path if world.first else None},
            "settings": {"checkpoint_every": 1 + world.rank},
        }
        given = differing[what]
        with pytest.raises(UserError) as error:
            trained_by(world, **given)
        return str(error.value)

    said = set(together(2, work))
    assert len(said) == 1
    assert said.pop().startswith(f"process 1 differs from process 0 in {what}: ")


def test_classes_are_part_of_the_data():
    x, classes = torch.randn(64, 2), torch.arange(64) % 3
    sources = [source_of(TensorDataset(x, classes.roll(k))) for k in (0, 0, 1)]
    one, same_one, other = (of_points(source, Noise(0)) for source in sources)
    assert one == same_one != other


def test_processes_with_other_networks_are_refused_before_anything_is_sent():
    def work(world):
        network = MLP(2, hidden=8 + world.rank, depth=1, embedding=4)
        field = PreconditionedField(network, EDM(), sigma_data=1.0)
        fit(field, torch.randn(64, 2), steps=2, quiet=True, engine=Engine("cpu", world=world))

    with pytest.raises(UserError, match="process 1 differs from process 0 in weights"):
        together(2, work)


def test_only_the_first_process_reads_and_writes_the_folder(tmp_path):
    kept = {"checkpoint_every": 4, "log_every": 4, "optim": Optim(lr=2e-3, clip=1.0)}
    (whole,) = together(1, lambda world: trained_by(world, steps=8, **kept))
    for steps in (4, 8):
        # The second one sees nothing of what is there.
        results = together(
            2, lambda w, n=steps: trained_by(w, steps=n, folder=tmp_path / f"{w.rank}", **kept)
        )
    for found in results:
        for a, b in zip(found.field.parameters(), whole.field.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert len((tmp_path / "0/metrics.csv").read_text().splitlines()) == 1 + 2
    assert not (tmp_path / "1").exists()


def test_a_run_goes_on_with_other_numbers_of_processes(tmp_path):
    # Whose rate does not depend on the last step.
    kept = {"checkpoint_every": 4, "log_every": 4, "optim": Optim(lr=2e-3, clip=1.0)}
    (whole,) = together(1, lambda world: trained_by(world, steps=12, **kept))
    kept["folder"] = tmp_path
    for size, steps in ((2, 4), (1, 8), (4, 12)):
        results = together(size, lambda world, steps=steps: trained_by(world, steps=steps, **kept))
    for found in results:
        for a, b in zip(found.field.parameters(), whole.field.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 1 + 3
    with pytest.raises(CheckpointError, match="batch_size is 10 there and 11 here"):
        together(2, lambda world: trained_by(world, steps=20, batch_size=11, **kept))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_ends_or_hangs_is_said_once_with_the_last_checkpoint(tmp_path, rank, number):
    with processes(2, *command(tmp_path, "train.steps=100000", "engine.timeout=3")) as members:
        wait_for(lambda: (run_of(tmp_path) / "checkpoints" / checkpoint.name_of(14)).exists())
        members[rank].send_signal(number)
        status, _, errors = ended([members[1 - rank]])[0]
    assert status == 2
    said = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, errors
    assert "one of the 2 processes has ended, or did not answer for 3 s; " in said[0]
    assert "the last good checkpoint is" in said[0]
    assert "Traceback" not in errors


def limited():
    """What torch asks of a system that has no more to give."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, resource.RLIM_INFINITY))
    torch.empty(2**28)


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_without_memory_is_said_once(tmp_path, monkeypatch, rank):
    take = Stepper.take

    def taken(self, step):
        if step == 20 and os.environ["RANK"] == rank:
            limited()
        return take(self, step)

    monkeypatch.setattr(Stepper, "take", taken)
    (status, said), (other, silent) = forked(2, command(tmp_path), tmp_path)
    assert (status, other) == (2, 2)
    # Without torchrun, the first process takes along what would tell the other that it has spoken.
    assert "Traceback" not in silent
    assert silent.count("error: ") <= (rank == "0")
    errors = [line for line in said.splitlines() if line.startswith("error")]
    where = "process 1: " if rank == "1" else ""
    assert len(errors) == 1, said
    assert errors[0].startswith(f"error: {where}memory does not suffice for step 21")
    last = run_of(tmp_path) / "checkpoints" / checkpoint.name_of(14)
    assert errors[0].endswith(f"the last good checkpoint is {last}")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_stopped_in_the_middle_of_a_checkpoint_nothing_is_lost(
    tmp_path, monkeypatch, whole, number, rank
):
    write, took = files._write, Trainer._save

    def written(path, content):
        write(path, content)
        if rank == "0" and path.name == "model.safetensors" and "step_00000021" in str(path):
            os.kill(os.getpid(), number)

    def saved(self, record):
        if os.environ["RANK"] == rank == "1" and self.step == 21:
            os.kill(os.getpid(), number)
        took(self, record)

    with monkeypatch.context() as patched:
        patched.setattr(files, "_write", written)
        patched.setattr(Trainer, "_save", saved)
        found = forked(2, command(tmp_path), tmp_path)
    checkpoints = run_of(tmp_path) / "checkpoints"
    last = checkpoint.step_of(checkpoint.paths(checkpoints)[-1])
    if number == signal.SIGTERM:
        assert [status for status, _ in found] == [130, 130]
        assert last in (21, 22)
    else:
        assert found[int(rank)][0] == -signal.SIGKILL
        assert found[1 - int(rank)][0] == 2
        assert last == 14 if rank == "0" else last in (14, 21)
    assert all(checkpoint.read(path) for path in checkpoint.paths(checkpoints))
    assert [status for status, _ in forked(1, command(tmp_path), tmp_path)] == [0]
    same(weights(tmp_path, 60), weights(whole, 60))
    assert not list(checkpoints.glob(".*"))


@pytest.mark.slow
def test_a_process_with_other_code_is_named(tmp_path):
    other = tmp_path / "other"
    shutil.copytree(Path(scorefield.__file__).parent, other / "scorefield")
    with (other / "scorefield" / "sde" / "base.py").open("a") as file:
        file.write("# changed\n")
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": str(port()), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", "scorefield", *command(tmp_path)]
    changed = {"PYTHONPATH": str(other)}
    with (
        started(*arguments, env={**common, "RANK": "0", "LOCAL_RANK": "0"}) as one,
        started(*arguments, env={**common, **changed, "RANK": "1", "LOCAL_RANK": "1"}) as two,
    ):
        (status, _, said), (other_status, _, silent) = ended([one, two])
    assert (status, other_status, silent) == (2, 2, "")
    assert said == (
        "error: process 1 differs from process 0 in code: all processes of a run need the same "
        "code, data and settings\n"
    )


@pytest.mark.slow
def test_an_interrupt_stops_all_after_the_same_step(tmp_path):
    with processes(2, *command(tmp_path, "train.steps=100000")) as members:
        wait_for(lambda: (run_of(tmp_path) / "checkpoints" / checkpoint.name_of(14)).exists())
        members[1].send_signal(signal.SIGTERM)
        found = ended(members)
    assert [status for status, *_ in found] == [130, 130]
    assert "training was interrupted after step" in found[0][2]
    assert found[1][2] == ""


@pytest.mark.slow
def test_torchrun_goes_on_by_itself(tmp_path):
    arguments = command(tmp_path, "engine.timeout=20", "train.steps=400")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--max-restarts", "1", "--master-port", str(port()), "-m", "scorefield"]
    with started(*torchrun, *arguments, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        wait_for(lambda: (run_of(tmp_path) / "checkpoints" / checkpoint.name_of(14)).exists())
        listed = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
        )
        os.kill(int(listed.stdout.split()[-1]), signal.SIGKILL)
        ((status, output, errors),) = ended([process])
    assert status == 0, errors
    assert "is complete: 400 steps" in output
    assert output.count("training toy/small in") == 2


@pytest.mark.slow
def test_killed_on_two_then_one_then_four_processes_a_run_is_the_uninterrupted_one(tmp_path, whole):
    for size, rank in ((2, 1), (1, 0)):
        statuses, said = attempt(size, tmp_path, 0.05, rank)
        assert statuses[rank] in (0, -signal.SIGKILL)
        assert len(said) <= 1
    with processes(4, *command(tmp_path)) as members:
        assert [status for status, *_ in ended(members)] == [0] * 4
    same(weights(tmp_path, 60), weights(whole, 60))

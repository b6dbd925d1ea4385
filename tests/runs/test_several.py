"""A run of several processes is that of one, whichever of them end on the way."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from scorefield import EDM, MLP, Optim, PreconditionedField, fit
from scorefield.engine import Engine
from scorefield.errors import CheckpointError, UserError
from scorefield.runs.run import Run
from scorefield.training import checkpoint
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


@pytest.mark.parametrize("what", ["data", "steps"])
def test_processes_that_differ_are_refused(what):
    def work(world):
        other = torch.arange(128.0).view(64, 2) if world.rank else None
        given = {"data": other} if what == "data" else {"steps": 4 + world.rank}
        with pytest.raises(UserError) as error:
            trained_by(world, **given)
        return str(error.value)

    said = set(together(2, work))
    assert len(said) == 1
    assert f"process 1 differs from process 0 in {what}" in said.pop()


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


@pytest.mark.slow
def test_what_ends_one_process_is_said_by_another(tmp_path):
    code = (
        "import sys; from scorefield.training import step\n"
        "from scorefield.cli import main; import os\n"
        "old = step.Stepper.take\n"
        "def take(self, k):\n"
        "    if k == 20 and os.environ['RANK'] == '1': raise MemoryError\n"
        "    return old(self, k)\n"
        "step.Stepper.take = take\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    common["MASTER_PORT"] = str(port())
    arguments = [sys.executable, "-c", code, *command(tmp_path)]
    environments = [{**common, "RANK": r, "LOCAL_RANK": r} for r in "01"]
    with (
        started(*arguments, env=environments[0]) as one,
        started(*arguments, env=environments[1]) as two,
    ):
        (status, _, errors), (other, _, silent) = ended([one, two])
    assert (status, other) == (2, 2)
    assert errors.startswith("error: process 1: memory does not suffice for step 21")
    assert len(errors.splitlines()) == 1
    assert silent == ""


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
def test_killed_on_two_then_one_then_four_processes_a_run_is_the_uninterrupted_one(tmp_path):
    whole, hurt = tmp_path / "whole", tmp_path / "hurt"
    whole.mkdir(), hurt.mkdir()
    with processes(1, *command(whole)) as members:
        assert [status for status, *_ in ended(members)] == [0]
    for size, rank in ((2, 1), (1, 0)):
        statuses, said = attempt(size, hurt, 0.05, rank)
        assert statuses[rank] in (0, -signal.SIGKILL)
        assert len(said) <= 1
    with processes(4, *command(hurt)) as members:
        assert [status for status, *_ in ended(members)] == [0] * 4
    same(weights(hurt, 60), weights(whole, 60))

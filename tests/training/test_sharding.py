"""Weights in shards: the training of one process, whichever processes and files it goes through."""

import shutil
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from scorefield import (
    DDPM,
    EDM,
    MLP,
    VE,
    MinimalResNet,
    MinimalUNet,
    NCSNpp,
    NCSNv2,
    PreconditionedField,
    UNet,
    fit,
)
from scorefield.cli import main
from scorefield.data.given import source_of
from scorefield.engine import Engine
from scorefield.errors import UserError
from scorefield.fields.labels import IndexLabel, SigmaLabel
from scorefield.fields.parametrization import EDMScaling
from scorefield.noise import Noise
from scorefield.objectives.denoising import DenoisingScoreMatching
from scorefield.objectives.objective import Objective
from scorefield.runs.run import Run
from scorefield.training import checkpoint
from scorefield.training.settings import Optim, TrainSettings
from scorefield.training.sharding import gathered
from scorefield.training.step import Stepper
from tests.processes import wait_for
from tests.several import ended, forked, forks, processes, statuses

torch.set_num_threads(1)
SHAPE = (1, 8, 8)
IMAGES = {"shape": SHAPE, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "dropout": 0.3}
NETWORKS = {
    "mlp": lambda: MLP(64, hidden=9, depth=2, embedding=4, seed=1),
    "unet": lambda: UNet(channels=8, **IMAGES),
    "unet of classes": lambda: UNet(channels=8, classes=3, **IMAGES),
    "ncsnpp": lambda: NCSNpp(channels=8, **IMAGES),
    "ncsnpp of skips": lambda: NCSNpp(
        channels=8, progressive="output_skip", progressive_input="input_skip", **IMAGES
    ),
    "ddpm": lambda: DDPM(channels=32, **IMAGES),
    "ncsnv2": lambda: NCSNv2(SHAPE, channels=4, levels=9),
    "minimal unet": lambda: MinimalUNet(SHAPE, (8, 16)),
    "minimal resnet": lambda: MinimalResNet(SHAPE, 16, 2),
}
SMALL = """\
extends: toy/m0
description: a small run
field: {network: {hidden: 9, depth: 2, embedding: 4}}
optim: {warmup: 1}
train: {steps: 24, batch_size: 17, checkpoint_every: 8, log_every: 4, keep: null, snapshot_every: 8}
"""


def both(folder, work, size=2):
    """What ``work`` returns in the first of forked processes, of their engine in shards."""
    import torch._dynamo  # before the forks
    import torch.distributed.fsdp

    def working(rank):
        with Engine("cpu", sharded=True).joined() as engine:
            found = work(engine)
            if rank == 0:
                torch.save(found, folder / "found.pt")
        return 0

    assert statuses(forks(size, working)) == [0] * size
    return torch.load(folder / "found.pt", weights_only=False)


def stepper(name, engine, dtype=torch.float64, **settings):
    network = NETWORKS[name]().to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    shape = (64,) if name == "mlp" else SHAPE
    # NCSN takes the place of a noise level in a table.
    sde, label = (VE(), IndexLabel(9)) if name.startswith("ncsnv") else (EDM(), SigmaLabel())
    scaling = EDMScaling(0.5, label)
    field = PreconditionedField(network, sde, parametrization=scaling, shape=shape)
    x = torch.rand(40, *shape, generator=generator)
    data = TensorDataset(x, torch.arange(40) % 3) if field.classes else x
    objective = Objective(DenoisingScoreMatching(sigma_data=0.5))
    optim = Optim("adamw", weight_decay=0.1, clip=0.5, lr=1e-2)
    chosen = TrainSettings(9, 5, **settings)
    return Stepper(
        field, source_of(data), objective, optim, chosen, Noise(0), engine, snapshots=True
    )


def steps(name, engine, count=3, **settings):
    """The scalars of steps, and all that follows from them."""
    made = stepper(name, engine, **settings)
    scalars = [{k: float(v) for k, v in made.take(step).items()} for step in range(count)]
    state = made.field.state_dict(), made.ema.state_dict(), made.state_dict()
    return scalars, gathered(state)


def close(found, expected, rtol):
    """Nested containers of numbers and tensors agree."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            close(found[key], expected[key], rtol)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close(one, other, rtol)
    elif isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol * 1e-2)
    else:
        assert found == (pytest.approx(expected, rtol) if type(expected) is float else expected)


@pytest.mark.slow
def test_steps_in_shards_are_those_of_one_process(tmp_path):
    # Three points in one process and two in the other, in two parts each.
    chosen = {"count": 1, "accumulate": 3}

    def work(engine):
        return {name: steps(name, engine, **chosen) for name in NETWORKS}

    found = both(tmp_path, work)
    for name in NETWORKS:
        close(found[name], steps(name, Engine("cpu"), **chosen), 1e-8)


@pytest.mark.slow
def test_every_precision_is_that_of_one_process(tmp_path):
    engines = {
        "recompute": {"recompute": True},
        "bfloat16": {"precision": "bfloat16"},
        "float16": {"precision": "float16"},
    }

    def work(engine):
        return {
            key: steps("unet", replace(engine, **chosen), dtype=torch.float32)
            for key, chosen in engines.items()
        }

    found = both(tmp_path, work)
    for key, chosen in engines.items():
        scalars, (*_, state) = steps("unet", Engine("cpu", **chosen), dtype=torch.float32)
        own, (*_, theirs) = found[key]
        for one, other in zip(own, scalars, strict=True):
            # Half precision has 8 bits, of which a batch of another size rounds others.
            assert one == pytest.approx(other, rel=1e-4 if key == "recompute" else 3e-2)
        if key == "float16":
            assert float(theirs["scale"]) == float(state["scale"])


@pytest.mark.slow
def test_a_step_that_is_not_finite_in_one_process_is_skipped_in_both_and_named(tmp_path):
    def work(engine):
        made = stepper("ncsnpp", engine, max_skipped=1, accumulate=2)
        before = gathered(made.field.state_dict())
        if engine.world.rank == 1:
            layer = made.field.backbone.down[0].blocks[0]
            layer.register_forward_hook(lambda layer, inputs, output: output / 0)
        taken = made.take(0)["taken"]
        after = gathered(made.field.state_dict())
        same = all(torch.equal(before[name], after[name]) for name in before)
        return float(taken), same, made.stopped(1), made.fault(1)

    taken, same, stopped, fault = both(tmp_path, work)
    assert (taken, same, stopped) == (0, True, 1)
    assert "in the output of backbone.down.0.blocks.0 at noise level" in fault


def configuration(folder):
    file = folder / "small.yaml"
    file.write_text(SMALL)
    return "train", str(file), "--root", str(folder / "runs"), "name=toy/small"


def run_of(folder):
    return Run.open(folder / "runs" / "toy" / "small" / "seed0")


@pytest.mark.slow
def test_a_run_resumes_in_shards_and_without_and_all_commands_read_it(tmp_path):
    def trained(name, size):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        sharded = "true" if size > 1 else "false"
        found = forked(size, [*configuration(folder), f"engine.sharded={sharded}"], tmp_path)
        assert [status for status, _ in found] == [0] * size, found
        return run_of(folder)

    whole = trained("whole", 1)
    for first, second in ((1, 2), (2, 1)):
        found = trained(f"{first} then {second}", first)
        for step in (16, 24):
            shutil.rmtree(found.checkpoints / checkpoint.name_of(step))
            shutil.rmtree(found.folder / "averages" / checkpoint.name_of(step))
        trained(f"{first} then {second}", second)
        for step in whole.steps():
            one, other = found.checkpoint(step), whole.checkpoint(step)
            assert one.state.keys() == other.state.keys()
            average = f"averages/{checkpoint.name_of(step)}/0.05.safetensors"
            averages = (checkpoint.read_weights(run.folder / average) for run in (found, whole))
            pairs = (one.model, other.model), (one.ema, other.ema), tuple(averages)
            for mine, theirs in pairs:
                # Steps of Adam divide by the roots of small numbers.
                close(mine.tensors, theirs.tensors, 1e-3)
        assert main(["inspect", str(found.folder)]) == 0
        assert main(["sample", str(found.folder), "--n", "4"]) == 0


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_other_with_the_last_checkpoint(tmp_path):
    long = ("train.steps=100000", "train.snapshot_every=null", "engine.sharded=true")
    with processes(2, *configuration(tmp_path), *long) as members:
        folder = tmp_path / "runs" / "toy" / "small" / "seed0" / "checkpoints"
        wait_for(lambda: (folder / checkpoint.name_of(16)).exists())
        members[1].send_signal(signal.SIGKILL)
        status, _, errors = ended([members[0]])[0]
    assert status == 2
    said = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, errors
    assert "one of the 2 processes has ended, or did not answer for" in said[0]
    assert "Traceback" not in errors
    assert "the last good checkpoint is" in said[0]


class Outside(PreconditionedField):
    def __init__(self, network):
        super().__init__(network, EDM(), sigma_data=1.0)
        self.scale = nn.Parameter(torch.ones(1))


class Tied(nn.Module):
    event_shape = (2,)

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)
        self.two.weight = self.one.weight

    def forward(self, x, label):
        return self.two(self.one(x))


class Scalar(Tied):
    def __init__(self):
        super().__init__()
        self.two, self.scale = nn.Identity(), nn.Parameter(torch.ones(()))


@pytest.mark.parametrize(("made", "said"), [
    (lambda: Outside(MLP(2, hidden=8, depth=1)), "scale of Outside is outside of its network"),
    (lambda: PreconditionedField(Tied(), EDM(), 1.0), "two layers of PreconditionedField share"),
    (lambda: PreconditionedField(Scalar(), EDM(), 1.0), "backbone.scale has no dimension"),
])  # fmt: skip
def test_fields_that_cannot_be_divided_are_refused(tmp_path, made, said):
    folder = tmp_path / "run"
    with pytest.raises(UserError, match=f"engine: sharded=true is for .*{said}"):
        fit(made(), torch.randn(64, 2), steps=2, folder=folder, engine=Engine("cpu", sharded=True))
    assert not folder.exists()


@pytest.mark.parametrize(("preset", "said"), [
    ("toy/m1", "the objective has the regulariser 'asymmetry'"),
    ("toy/m2", "the field is a PotentialField"),
    ("toy/m3", "the objective has the regulariser 'loops'"),
    ("toy/m4", "the field is a HybridField"),
])  # fmt: skip
def test_objectives_of_second_order_are_refused_before_anything_is_made(
    tmp_path, capsys, preset, said
):
    assert main(["train", preset, "engine.sharded=true", "--root", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: engine: sharded=true is for denoising score matching")
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["compile", "channels_last", "graphs"])
def test_engines_that_exclude_each_other_are_refused(name):
    with pytest.raises(UserError, match=f"sharded=true needs {name}=false"):
        Engine(sharded=True, **{name: True})


def test_one_process_shares_nothing_out():
    made, plain = (stepper("mlp", Engine("cpu", sharded=wanted)) for wanted in (True, False))
    for step in range(2):
        assert made.take(step) == plain.take(step)

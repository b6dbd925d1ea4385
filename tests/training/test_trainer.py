import csv
import errno
import json
import math
import os

import pytest
import torch
from torch import nn

import scorefield.training.step as step_module
import scorefield.training.trainer as trainer_module
from scorefield import (
    EDM,
    MLP,
    Asymmetry,
    BalancedWeight,
    CycleCirculation,
    DenoisingScoreMatching,
    Gaussian,
    GaussianMixture,
    LogNormal,
    Objective,
    Optim,
    PotentialField,
    PreconditionedField,
    TargetSource,
    UNet,
    fit,
)
from scorefield.engine import Engine
from scorefield.errors import CheckpointError, TrainingError
from scorefield.noise import Noise
from scorefield.objectives.denoising import Batch
from scorefield.objectives.regularizer import Regularizer
from scorefield.training import checkpoint
from scorefield.training.checkpoint import load_weights, read_weights
from scorefield.training.guard import locked
from scorefield.training.settings import TrainSettings
from scorefield.training.step import Stepper
from scorefield.training.trainer import Trainer

torch.set_num_threads(1)
SMALL = {"batch_size": 16, "log_every": 5, "checkpoint_every": 10, "quiet": True}


def small_field(seed=0, hidden=8):
    truth = GaussianMixture.ring()
    network = MLP(2, hidden=hidden, depth=1, embedding=4, seed=seed)
    return PreconditionedField(network, EDM(), sigma_data=truth.std), truth


class Linear(nn.Module):
    """F(x, c) = A x: with data at one noise level, a regression whose answer is known."""

    def __init__(self, dim):
        super().__init__()
        self.event_shape = (dim,)
        self.weight = nn.Parameter(torch.zeros(dim, dim))

    def forward(self, x, label):
        return x @ self.weight.T


def test_learns_what_is_known_in_closed_form():
    # For Gaussian data of standard deviation sigma_data, EDM scaling makes the network's part of
    # the denoiser zero; for a Gaussian of another covariance the linear answer is known.
    truth = Gaussian(mean=torch.zeros(2), std=torch.tensor([1.0, 3.0]))
    sde = EDM(sigma_min=0.999, sigma_max=1.001)
    field = PreconditionedField(Linear(2), sde, sigma_data=truth.std)
    fit(
        field,
        truth,
        steps=600,
        batch_size=256,
        optim=Optim(lr=3e-2, decay="cosine"),
        ema_decay=0.99,
        quiet=True,
    )
    x = torch.eye(2)
    expected = x * torch.tensor([1.0, 9.0]) / torch.tensor([2.0, 10.0])
    torch.testing.assert_close(field.denoise(x, 1.0), expected, rtol=0, atol=0.01)


def test_a_step_is_the_optimiser_written_by_hand():
    field, truth = small_field()
    objective = Objective(DenoisingScoreMatching(sigma_data=truth.std))
    by_hand, _ = small_field()
    optim = Optim(kind="adamw", lr=1e-2, weight_decay=0.1, warmup=3, decay="linear", clip=0.3)
    result = fit(field, truth, objective=objective, optim=optim, steps=6, seed=5, **SMALL)

    noise, index = Noise(5), torch.arange(16)
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=1e-2, weight_decay=0.1)
    average = [p.detach().clone() for p in by_hand.parameters()]
    for step, rate in enumerate([1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3]):
        x = truth.draw(noise, step * 16 + index)
        t, z = objective.draw(by_hand, noise, index, step)
        optimizer.param_groups[0]["lr"] = 1e-2 * rate
        optimizer.zero_grad()
        objective(by_hand, Batch(x, t, z), noise, step).total.backward()
        nn.utils.clip_grad_norm_(by_hand.parameters(), 0.3)
        optimizer.step()
        decay = (2 + step) / (11 + step)
        for a, p in zip(average, by_hand.parameters(), strict=True):
            a.mul_(decay).add_(p.detach(), alpha=1 - decay)
    for mine, theirs in zip(result.field.parameters(), average, strict=True):
        torch.testing.assert_close(mine.detach(), theirs, rtol=1e-5, atol=1e-6)
    assert not result.field.training


def test_a_checkpoint_between_two_rows_has_the_numbers_of_its_steps(tmp_path):
    field, truth = small_field()
    settings = SMALL | {"log_every": 5, "checkpoint_every": 2}
    fit(field, truth, steps=3, folder=tmp_path, **settings)
    window = checkpoint.read(checkpoint.paths(tmp_path / "checkpoints")[0]).state["window"]
    steps, losses = window["loss"]
    assert (steps, len(losses)) == ([1, 2], 2)


def test_the_run_directory(tmp_path):
    field, truth = small_field()
    result = fit(field, truth, steps=25, folder=tmp_path, config={"a": 1}, keep=None, **SMALL)
    assert [p.name for p in checkpoint.paths(tmp_path / "checkpoints")] == [
        "step_00000010",
        "step_00000020",
        "step_00000025",
    ]
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "step",
        "images",
        "loss",
        "denoising",
        "grad_norm",
        "lr",
        "ema_decay",
        "seconds_per_step",
    ]
    assert [row["step"] for row in rows] == ["5", "10", "15", "20", "25"]
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in result.history]
    summary = json.loads((tmp_path / "metrics.json").read_text())
    assert summary == {**result.history[-1], "steps": 25}
    assert summary["images"] == 25 * 16
    weights = read_weights(tmp_path / "checkpoints" / "step_00000025")
    assert (weights.step, weights.config) == (25, {"a": 1})
    other, _ = small_field(seed=1)
    load_weights(other, weights, tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(other.parameters(), field.parameters(), strict=True)
    )


def test_a_finished_training_is_not_repeated(tmp_path):
    field, truth = small_field()
    first = fit(field, truth, steps=20, folder=tmp_path, **SMALL)
    other, _ = small_field(seed=1)
    second = fit(other, truth, steps=20, folder=tmp_path, **SMALL)
    assert second.history == first.history
    assert all(
        torch.equal(a, b) for a, b in zip(other.parameters(), field.parameters(), strict=True)
    )


def test_the_time_of_a_step_is_that_of_its_device(tmp_path, monkeypatch):
    now, behind, take, stopped = [0.0], [0.0], Stepper.take, Stepper.stopped

    def wait(*arguments):
        now[0], behind[0] = now[0] + behind[0], 0.0

    def queued(stepper, step):
        behind[0] += 1.0
        return take(stepper, step)

    def read(stepper, done):
        wait()
        return stopped(stepper, done)

    monkeypatch.setattr(Engine, "wait", wait)
    monkeypatch.setattr(Stepper, "take", queued)
    monkeypatch.setattr(Stepper, "stopped", read)
    monkeypatch.setattr(trainer_module.time, "perf_counter", lambda: now[0])
    field, truth = small_field()
    found = fit(field, truth, steps=18, folder=tmp_path, **SMALL | {"checkpoint_every": 4})
    assert [row["seconds_per_step"] for row in found.history] == [1.0] * 4
    assert found.seconds == 18.0


@pytest.mark.parametrize("every", [1, 7, 30])
def test_checkpoints_and_rows_do_not_change_the_training(tmp_path, every):
    truth = GaussianMixture.ring()
    weights = []
    for folder, log_every in ((None, 30), (tmp_path, every)):
        field, _ = small_field()
        fit(
            field,
            truth,
            steps=30,
            folder=folder,
            batch_size=16,
            log_every=log_every,
            checkpoint_every=every,
            quiet=True,
        )
        weights.append(list(field.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_the_seed_decides(tmp_path):
    losses = []
    for seed in (0, 0, 1):
        field, truth = small_field()
        losses.append(fit(field, truth, steps=5, seed=seed, **SMALL).history[0]["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_dropout_is_drawn_at_addresses_and_the_generator_is_given_back():
    weights, after = [], []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        network = UNet((1, 4, 4), channels=4, multipliers=(1,), dropout=0.3)
        torch.set_rng_state(before)
        field = PreconditionedField(network, EDM(), sigma_data=1.0)
        fit(field, torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)),
            steps=4, **SMALL)  # fmt: skip
        after.append(torch.equal(torch.get_rng_state(), before))
        weights.append(list(network.parameters()))
    assert after == [True, True]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


class Poison(Regularizer):
    """A term that is not finite from a step on, or has an infinite slope there."""

    name = "curl"
    at: int
    value: float = 0.0
    slope: bool = False

    def draw(self, field, law, noise, rows, step):
        return (step,)

    def evaluate(self, field, x, draws):
        if int(draws[0]) < self.at:
            return None
        weight = next(field.parameters()).reshape(-1)[0]
        if self.slope:
            return (weight - weight.detach()).abs().sqrt()
        return weight.detach() * 0 + self.value


def poisoned(truth, step, value=0.0, slope=False):
    term = Poison(weight=1.0, at=step, value=value, slope=slope)
    return Objective(DenoisingScoreMatching(sigma_data=truth.std), [term])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, value):
    field, truth = small_field()
    objective = poisoned(truth, step=22, value=value)
    message = rf"^the loss 'curl' is {value} at step 23; .* checkpoint is .*step_00000020$"
    with pytest.raises(TrainingError, match=message):
        fit(field, truth, objective=objective, steps=40, folder=tmp_path, max_skipped=1, **SMALL)
    newest = checkpoint.paths(tmp_path / "checkpoints")[-1]
    kept = checkpoint.read(newest)
    assert kept.step == 20
    assert all(
        t.isfinite().all() for t in (*kept.model.tensors.values(), *kept.ema.tensors.values())
    )
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["5", "10", "15", "20"]


def test_a_gradient_that_is_not_finite_ends_the_run():
    field, truth = small_field()
    objective = poisoned(truth, step=3, slope=True)
    with pytest.raises(
        TrainingError, match=r"norm of the gradient is (nan|inf) at step 4 .* 'curl'; there is no"
    ):
        fit(field, truth, objective=objective, steps=40, max_skipped=1, **SMALL)


def test_little_memory_ends_in_one_sentence(monkeypatch):
    field, truth = small_field()

    def allocate(*arguments):
        torch.empty(2**60)

    monkeypatch.setattr(step_module.Stepper, "take", allocate)
    with pytest.raises(
        TrainingError, match="memory does not suffice for step 1 with batch_size=16"
    ):
        fit(field, truth, steps=5, **SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"batch_size": 8}, "batch_size is 16 there and 8 here"),
        ({"optim": Optim(lr=0.1)}, r"optim\.lr is 0\.001 there and 0\.1 here"),
        ({"ema_decay": 0.5}, r"ema_decay is 0\.999 there and 0\.5 here"),
        ({"steps": 5}, "beyond the 5 requested steps"),
        ({"hidden": 16}, r"the tensor backbone\.\S+ in the shape"),
    ],
)
def test_a_folder_of_another_training_is_refused(tmp_path, change, message):
    field, truth = small_field()
    settings = {**SMALL, "optim": Optim(lr=1e-3), "steps": 10, "folder": tmp_path}
    fit(field, truth, **settings)
    before = (tmp_path / "metrics.csv").read_bytes()
    other, _ = small_field(hidden=change.pop("hidden", 8))
    with pytest.raises(CheckpointError, match=message):
        fit(other, truth, **{**settings, **change})
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_a_folder_is_that_of_one_objective_field_and_data(tmp_path):
    def train(
        regularizer=None, sde=None, scale=1.0, head="inner", dropout=0.1, radius=4.0, law=None
    ):
        truth = GaussianMixture.ring(radius=radius)
        network = nn.Sequential(nn.Dropout(dropout), MLP(2, hidden=8, depth=1, embedding=4))
        network = Labelled(network)
        field = PotentialField(network, sde or EDM(), sigma_data=scale, head=head)
        objective = Objective(
            DenoisingScoreMatching(law=law or LogNormal(), sigma_data=1.0),
            [regularizer or CycleCirculation(weight=BalancedWeight(0.1, 1.0), points=16, cycles=4)],
        )
        fit(field, truth, objective=objective, steps=2, folder=tmp_path, **SMALL)

    train()
    train()
    for change, told in (
        ({"sde": EDM(sigma_max=50.0)}, r"field\.sde is EDM\(.*80.*\) there and EDM\(.*50.*\) here"),
        ({"scale": 2.0}, r"field\.parametrization is .*1\.0.* there and .*2\.0.* here"),
        ({"head": "denoising"}, r"field\.head is 'inner' there and 'denoising' here"),
        ({"dropout": 0.2}, r"field\.\S+\.p is 0\.1 there and 0\.2 here"),
        ({"radius": 5.0}, r"data\.std is 2\.8\d* there and 3\.5\d* here"),
        ({"law": LogNormal(0.0, 1.0)}, r"objective\.denoising is .* there and .* here"),
        (
            {"regularizer": CycleCirculation(weight=BalancedWeight(0.2, 1.0), points=16, cycles=4)},
            r"objective\.regularizers\.cycles\.weight\.ratio is 0\.1 there and 0\.2 here",
        ),
        (
            {"regularizer": Asymmetry(weight=0.1)},
            r"objective\.regularizers\.asymmetry is missing there and Asymmetry here",
        ),
    ):
        with pytest.raises(CheckpointError, match=f"belongs to another training: {told}$") as error:
            train(**change)
        assert "\n" not in str(error.value)


class Labelled(nn.Module):
    """Layers before a network."""

    def __init__(self, layers):
        super().__init__()
        self.event_shape = layers[-1].event_shape
        self.layers = layers

    def forward(self, x, label):
        *first, network = self.layers
        for layer in first:
            x = layer(x)
        return network(x, label)


def test_a_damaged_checkpoint_is_told_and_training_goes_on(tmp_path, capsys):
    field, truth = small_field()
    fit(field, truth, steps=20, folder=tmp_path, **SMALL)
    victim = tmp_path / "checkpoints" / "step_00000020" / "model.safetensors"
    victim.write_bytes(victim.read_bytes()[:-10])
    other, _ = small_field(seed=1)
    fit(other, truth, steps=20, folder=tmp_path, **SMALL)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert str(victim) in said[0]
    assert "unreadable-step_00000020 is out of the way" in said[1]
    assert all(
        torch.equal(a, b) for a, b in zip(other.parameters(), field.parameters(), strict=True)
    )


def test_a_damaged_checkpoint_does_not_cost_a_new_one(tmp_path, monkeypatch):
    field, truth = small_field()
    fit(field, truth, steps=20, folder=tmp_path, **SMALL)
    (tmp_path / "checkpoints" / "step_00000020" / "state.pt").write_bytes(b"")
    take = step_module.Stepper.take

    def stumble(stepper, step):
        if step == 17:
            raise InterruptedError
        return take(stepper, step)

    monkeypatch.setattr(step_module.Stepper, "take", stumble)
    other, _ = small_field(seed=1)
    with pytest.raises(InterruptedError):
        fit(
            other,
            truth,
            steps=20,
            folder=tmp_path,
            keep=1,
            **{**SMALL, "checkpoint_every": 5},
        )
    found = checkpoint.latest(tmp_path / "checkpoints", pytest.fail)
    assert found.step == 15


def test_a_folder_is_trained_once_at_a_time(tmp_path):
    field, truth = small_field()
    with locked(tmp_path), pytest.raises(TrainingError, match="is being trained by another"):
        fit(field, truth, steps=5, folder=tmp_path, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    # The file that stays behind is no lock.
    fit(field, truth, steps=5, folder=tmp_path, **SMALL)


def test_without_locks_two_trainings_are_kept_apart(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    with (
        locked(tmp_path),
        pytest.raises(TrainingError, match="is being trained by another process"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass


def test_a_constant_schedule_can_be_prolonged(tmp_path):
    settings = {**SMALL, "optim": Optim(lr=1e-3)}
    field, truth = small_field()
    fit(field, truth, steps=10, folder=tmp_path, **settings)
    fit(field, truth, steps=20, folder=tmp_path, **settings)
    at_once, _ = small_field()
    fit(at_once, truth, steps=20, **settings)
    assert all(
        torch.equal(a, b) for a, b in zip(at_once.parameters(), field.parameters(), strict=True)
    )


def test_potentials_and_images_train():
    truth = GaussianMixture.ring()
    network = MLP(2, hidden=8, depth=2, embedding=4, outputs=1)
    field = PotentialField(network, EDM(), sigma_data=truth.std)
    history = fit(field, truth, steps=60, optim=Optim(lr=1e-2), **SMALL).history
    assert history[-1]["loss"] < history[0]["loss"]
    field = PreconditionedField(UNet(channels=8), EDM(), sigma_data=1.0)
    images = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert len(fit(field, images, steps=5, **SMALL).history) == 1


def test_says_what_cannot_be_trained():
    field, truth = small_field()
    with pytest.raises(ValueError, match="GaussianMixture has no parameters"):
        fit(truth, truth, steps=1)
    with pytest.raises(ValueError, match=r"shape \(2,\), the data of shape \(3,\)"):
        fit(field, torch.eye(3), steps=1)
    objective = Objective(DenoisingScoreMatching(sigma_data=1.0))
    with pytest.raises(TypeError, match="either an objective or regularizers"):
        fit(field, truth, objective=objective, regularizers=[Asymmetry(weight=0.1)], steps=1)
    field.backbone.last.double()
    with pytest.raises(ValueError, match="in one dtype"):
        fit(field, truth, steps=1)


def test_plain_lines_elsewhere_than_on_a_terminal(capsys):
    field, truth = small_field()
    fit(field, truth, steps=7, **{**SMALL, "quiet": False})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[-1].startswith("step 7/7  loss ")
    assert lines[-1].endswith(" ms/step  0:00 left")


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    field, truth = small_field()
    fit(field, truth, steps=7, **{**SMALL, "quiet": False})
    assert "7/7" in capsys.readouterr().out


def test_pictures_are_of_the_average_at_every_checkpoint_and_change_nothing(tmp_path):
    seen = []

    def draw(drawn):
        assert not drawn.training
        seen.append(drawn)
        with torch.no_grad():
            for parameter in drawn.parameters():
                parameter.zero_()
        return {}

    def train(folder, draw):
        field, truth = small_field()
        objective = Objective(DenoisingScoreMatching(sigma_data=truth.std))
        settings = TrainSettings(5, 16, checkpoint_every=2, log_every=5)
        source = TargetSource(truth)
        return Trainer(
            field, source, objective, Optim(), settings, folder=folder, quiet=True, draw=draw
        ).run()

    drawn = train(tmp_path / "drawn", draw)
    assert len(seen) == 3
    plain = train(tmp_path / "plain", None)
    for one, other in zip(drawn.field.parameters(), plain.field.parameters(), strict=True):
        assert torch.equal(one, other)
    # Without a folder there is nowhere to show them.
    train(None, draw)
    assert len(seen) == 3


def test_a_picture_shows_the_averaged_weights(tmp_path):
    seen = {}
    field, truth = small_field()
    objective = Objective(DenoisingScoreMatching(sigma_data=truth.std))
    settings = TrainSettings(4, 16, checkpoint_every=2, log_every=4)

    def draw(drawn):
        seen[len(seen)] = drawn.state_dict()
        return {}

    Trainer(
        field,
        TargetSource(truth),
        objective,
        Optim(),
        settings,
        folder=tmp_path,
        quiet=True,
        draw=draw,
    ).run()
    for k, path in enumerate(checkpoint.paths(tmp_path / "checkpoints")):
        stored = checkpoint.read(path).ema.tensors
        assert all(torch.equal(seen[k][name], tensor) for name, tensor in stored.items())

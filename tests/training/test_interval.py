"""Checkpoints by steps, by images and by time."""

import pytest

from scorefield import EDM, MLP, GaussianMixture, PreconditionedField, fit
from scorefield.config.resolve import load_config
from scorefield.errors import UserError
from scorefield.training import checkpoint, trainer
from scorefield.training.interval import Interval
from scorefield.training.settings import TrainSettings


def steps(tmp_path, every, batch_size=8, steps=24):
    """The steps that checkpoints of a short training are of."""
    field = PreconditionedField(MLP(2, hidden=4, depth=1), EDM(), 1.0, shape=(2,))
    fit(
        field, GaussianMixture.ring(sde=EDM()), steps=steps, batch_size=batch_size, keep=None,
        checkpoint_every=every, folder=tmp_path, quiet=True,
    )  # fmt: skip
    return [
        int(path.name.removeprefix("step_")) for path in checkpoint.paths(tmp_path / "checkpoints")
    ]


@pytest.mark.parametrize("every", [5, "5 steps", "40 images", "40images"])
def test_the_same_interval_in_steps_and_in_images(tmp_path, every):
    assert sorted(steps(tmp_path, every)) == [5, 10, 15, 20, 24]


def test_images_that_no_batch_ends_with(tmp_path):
    # After the steps that reach 30, 60, 90, ... images.
    expected = sorted({-(-30 * k // 8) for k in range(1, 7)} | {24})
    assert sorted(steps(tmp_path, "30 images")) == expected


def test_an_interval_shorter_than_a_batch_is_every_step():
    assert all(Interval.of("every", "3 images").due(k, 8, 0.0) for k in range(1, 20))


def test_by_time_pauses_left_out(tmp_path, monkeypatch):
    """A step takes a second of this clock, and a checkpoint a hundred."""
    now = [0.0]
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: now[0])
    take, save = trainer.Stepper.take, trainer.Trainer._save

    def slowly(self, step):
        now[0] += 1.0
        return take(self, step)

    def pausing(self, record):
        now[0] += 100.0
        save(self, record)

    monkeypatch.setattr(trainer.Stepper, "take", slowly)
    monkeypatch.setattr(trainer.Trainer, "_save", pausing)
    assert sorted(steps(tmp_path, "7s")) == [7, 14, 21, 24]


@pytest.mark.parametrize(
    ("value", "seconds"), [("90s", 90), ("1.5 min", 90), ("2m", 120), ("0.5h", 1800)]
)
def test_times(value, seconds):
    interval = TrainSettings(checkpoint_every=value).checkpoints
    assert interval == Interval(seconds, "seconds")
    assert interval.steps(8, 0.5) == 2 * seconds


@pytest.mark.parametrize(
    "value",
    ["often", "5", "5 epochs", "-3", "0 images", "1.5 images", "2.5", "", "min", 0, -1, 1.5, None],
)
def test_what_is_no_interval_is_named(value):
    with pytest.raises((ValueError, TypeError), match="checkpoint_every"):
        TrainSettings(checkpoint_every=value)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "true", "null", "[1]"])
def test_a_configuration_names_the_key_of_what_is_none(value):
    with pytest.raises(UserError, match=r"train\.checkpoint_every is .*, it must be a number of"):
        load_config("toy/m0", [f"train.checkpoint_every={value}"])


@pytest.mark.parametrize("value", ["50000 images", "10min"])
def test_a_configuration_takes_them(value):
    assert (
        load_config("toy/m0", [f"train.checkpoint_every={value}"]).train.checkpoint_every == value
    )

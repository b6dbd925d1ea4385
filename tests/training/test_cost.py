"""The cost of a training: of the steps that are left, from ten that are part of it."""

import re

import pytest

from scorefield import EDM, MLP, GaussianMixture, PreconditionedField, fit
from scorefield.training import cost
from scorefield.training.cost import Forecast, size
from scorefield.training.settings import TrainSettings


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [0.0]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: now[0])
    return now


def lines(clock, seconds, forecast, first, last):
    """What is said after each step; the first takes long."""
    found = {}
    for step in range(first, last + 1):
        clock[0] += 1000.0 if step == first else seconds
        line = forecast.after(step)
        if line is not None:
            found[step] = line
    return found


def test_ten_steps_after_the_first_are_measured(clock, tmp_path):
    waited = []
    settings = TrainSettings(10_011, 128, checkpoint_every=1000, keep=3, snapshot_every=5000)
    forecast = Forecast(0, settings, 10**9, lambda: waited.append(0), tmp_path)
    found = lines(clock, 0.36, forecast, 1, 40)
    assert list(found) == [11]
    assert found[11].startswith(
        "10,000 steps of 128 points are left, 1,280,000 in all: 1:00:00 at 360.0 ms a step, and "
        "30 GB on disk, which has "
    )
    assert len(waited) == 2


@pytest.mark.parametrize("every", [None, 10])
def test_the_disk_space_is_that_of_the_files(tmp_path, monkeypatch, capsys, every):
    monkeypatch.setattr(cost, "_WORTH", 0.0)
    network = MLP(dim=2, hidden=128, depth=3, embedding=8)
    field = PreconditionedField(network, EDM(), 1.0, shape=(2,))
    fit(
        field, GaussianMixture.ring(sde=EDM()), steps=51, batch_size=2, checkpoint_every=10, keep=2,
        snapshot_every=every, folder=tmp_path,
    )  # fmt: skip
    (number,) = re.findall(r"([\d.]+) MB on disk", capsys.readouterr().out)
    folders = (tmp_path / "checkpoints", tmp_path / "averages")
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    # One of the snapshots was there before.
    written = [file for file in files if "step_00000010" not in str(file)]
    assert sum(file.stat().st_size for file in written) == pytest.approx(
        1e6 * float(number), rel=0.1
    )


def test_a_resumed_training_adds_no_more_than_it_has_to(clock, tmp_path):
    """Of the checkpoints that are kept, the oldest makes way once the newest is there."""
    for step in (1000, 2000):
        (tmp_path / "checkpoints" / f"step_{step:08d}").mkdir(parents=True)
    settings = TrainSettings(9000, 2, checkpoint_every=1000, keep=2)
    forecast = Forecast(2000, settings, 10**9, lambda: None, tmp_path)
    assert " and 4 GB on disk, " in lines(clock, 1.0, forecast, 2001, 2011)[2011]
    # That of the last step that is measured is still to come.
    every = TrainSettings(2033, 2, checkpoint_every=11, keep=None)
    forecast = Forecast(2000, every, 10**9, lambda: None, tmp_path)
    clock[0] = 0.0
    assert " and 12 GB on disk, " in lines(clock, 10.0, forecast, 2001, 2011)[2011]


def test_checkpoints_by_time_are_counted_at_the_measured_pace(clock, tmp_path):
    settings = TrainSettings(10_000, 128, checkpoint_every="1h", keep=None)
    forecast = Forecast(0, settings, 10**9, lambda: None, tmp_path)
    # Ten thousand steps of 3.6 seconds take ten hours.
    assert " and 40 GB on disk, " in lines(clock, 3.6, forecast, 1, 11)[11]


@pytest.mark.parametrize("every", [None, 5])
def test_what_is_stored_in_between_is_no_part_of_a_step(clock, tmp_path, monkeypatch, every):
    def save(*_):
        clock[0] += 1000.0

    shown = []
    monkeypatch.setattr(cost, "_WORTH", -1.0)
    monkeypatch.setattr("scorefield.training.checkpoint.save", save)
    monkeypatch.setattr("scorefield.training.lengths.save", save)
    monkeypatch.setattr("scorefield.progress.Stages.note", lambda self, line: shown.append(line))
    field = PreconditionedField(MLP(dim=2, hidden=8, depth=1, embedding=4), EDM(), 1.0, shape=(2,))
    fit(
        field, GaussianMixture.ring(sde=EDM()), steps=20, batch_size=2, checkpoint_every=5,
        snapshot_every=every, folder=tmp_path, quiet=True,
    )  # fmt: skip
    assert [" at 0.0 ms a step" in line for line in shown] == [True]


def test_a_resumed_training_counts_what_is_left(clock):
    found = lines(clock, 1.0, Forecast(500, TrainSettings(1011, 2), 1, lambda: None), 501, 1011)
    assert found == {511: "500 steps of 2 points are left, 1,000 in all: 8:20 at 1000.0 ms a step"}


def test_of_a_training_of_less_than_a_minute_nothing_is_said(clock):
    assert not lines(clock, 1.0, Forecast(0, TrainSettings(60, 2), 1, lambda: None), 1, 60)


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"), (3e15, "3e+03 TB")],
)
def test_bytes_in_words(count, words):
    assert size(count) == words


@pytest.mark.parametrize("quiet", [False, True])
def test_a_training_shows_its_cost_once_unless_it_is_quiet(monkeypatch, capsys, quiet):
    monkeypatch.setattr(cost, "_WORTH", 0.0)
    field = PreconditionedField(MLP(dim=2, hidden=8, depth=1, embedding=4), EDM(), 1.0, shape=(2,))
    fit(field, GaussianMixture.ring(sde=EDM()), steps=30, batch_size=4, quiet=quiet)
    shown = [line for line in capsys.readouterr().out.splitlines() if " are left" in line]
    assert len(shown) == (0 if quiet else 1)
    assert all(line.startswith("19 steps of 4 points are left, 76 in all: ") for line in shown)

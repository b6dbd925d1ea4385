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
        "24 GB on disk, which has "
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

"""A killed evaluation goes on with the parts that it lacks, and comes to the same result."""

import json
import os
import random
import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch

from scorefield import Heun
from scorefield.cli import main
from scorefield.engine import Engine
from scorefield.evaluation import likelihood as likelihood_module
from scorefield.evaluation import parts as parts_module
from scorefield.evaluation.evaluate import evaluate
from scorefield.evaluation.likelihood import LikelihoodSettings, data_likelihood
from scorefield.evaluation.parts import Parts
from scorefield.evaluation.protocol import Protocol
from scorefield.runs.run import Run
from scorefield.runs.subject import open_subject
from scorefield.samplers import trajectory
from scorefield.samplers.trajectory import Trajectory
from tests.several import forks, statuses

torch.set_num_threads(1)
FEW = Protocol(nfes=(3,), along=None, samples=32, pairs=2, sigmas=(0.5, 1.0), points=4)
ROUGH = LikelihoodSettings(rtol=1e-2, atol=1e-2)


@pytest.fixture
def counted(monkeypatch):
    """The number of parts that are written, and an interrupt after so many more."""
    state = {"made": 0, "left": None}
    write = parts_module.write_file

    def counting(path, content):
        if state["left"] == 0:
            raise KeyboardInterrupt
        write(path, content)
        state["made"] += 1
        if state["left"] is not None:
            state["left"] -= 1

    monkeypatch.setattr(parts_module, "write_file", counting)
    return state


@pytest.fixture
def run(trained, tmp_path):
    return Run.open(shutil.copytree(trained, tmp_path / "run"))


def measured(found):
    """An evaluation without its times."""
    distances = [replace(distance, latency=None) for distance in found.distances]
    return distances, found.levels, found.validation


def test_an_evaluation_that_ended_anywhere_goes_on_and_is_the_uninterrupted_one(run, counted):
    whole = measured(evaluate(run, protocol=FEW))
    total, counted["made"] = counted["made"], 0
    assert total > 10
    shutil.rmtree(run.folder / "eval")
    for left in (1, 4, 3, total // 2):
        counted["left"] = left
        with pytest.raises(KeyboardInterrupt):
            evaluate(run, protocol=FEW)
    assert len(list(run.folder.glob(".parts/eval-*/*.pt"))) == 8 + total // 2
    assert not (run.folder / "eval").exists()
    counted["left"] = None
    assert measured(evaluate(run, protocol=FEW)) == whole
    assert counted["made"] == total
    assert not (run.folder / ".parts").exists()


def test_log_densities_go_on_by_blocks(run, counted, monkeypatch):
    monkeypatch.setattr(likelihood_module, "_CHUNK", 2)
    whole = data_likelihood(open_subject(run.folder), "test", 7, ROUGH)
    assert counted["made"] == 0
    counted["left"] = 2
    with pytest.raises(KeyboardInterrupt):
        data_likelihood(open_subject(run.folder), "test", 7, ROUGH, folder=run.folder)
    counted["left"] = None
    found = data_likelihood(open_subject(run.folder), "test", 7, ROUGH, folder=run.folder)
    assert counted["made"] == 4
    for name, values in vars(whole.points).items():
        assert torch.equal(getattr(found.points, name), values), name
    found.write(run.folder / "eval")
    assert not (run.folder / ".parts").exists()


def test_a_part_is_of_its_weights_and_settings_and_a_damaged_one_is_made_again(tmp_path):
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    made = []

    def value():
        made.append(len(made))
        return {"x": torch.arange(3), "n": made[-1]}

    parts = Parts(tmp_path, "eval", {"n": 3}, Engine("cpu"))
    assert [parts.of(m)("a", value)["n"] for m in (first, second, first, second)] == [0, 1, 0, 1]
    assert parts.of(first)("b", value)["n"] == 2
    again = Parts(tmp_path, "eval", {"n": 3}, Engine("cpu"))
    assert again.of(first)("a", value)["n"] == 0
    for file in tmp_path.glob(".parts/eval-*/*.pt"):
        file.write_bytes(file.read_bytes()[:-40])
    assert again.of(first)("a", value)["n"] == 3
    beside = Parts(tmp_path, "likelihood", {"n": 3}, Engine("cpu"))
    assert beside.of(first)("a", value)["n"] == 4
    # Of other settings, and left a day ago.
    (old,) = tmp_path.glob(".parts/eval-*")
    os.utime(old, (time.time() - 90_000,) * 2)
    other = Parts(tmp_path, "eval", {"n": 4}, Engine("cpu"))
    assert other.of(first)("a", value)["n"] == 5
    assert len(list(tmp_path.glob(".parts/*"))) == 2
    other.remove()
    beside.remove()
    assert not (tmp_path / ".parts").exists()


def test_samples_in_blocks_are_those_of_one(run, monkeypatch):
    field, blocks, seen = run.field(), [], []
    whole = Trajectory(field, Heun(4), 11, 5)
    monkeypatch.setattr(trajectory, "_FEWEST", 4)
    monkeypatch.setattr(trajectory, "_NUMBERS", 8)

    def once(name, make):
        blocks.append(name[2:])
        return make()

    def follow(state):
        seen.append((state.block, state.blocks, state.step))

    found = Trajectory(field, Heun(4), 11, 5, follow, once=once)
    assert blocks == [(0, 4), (4, 8), (8, 11)]
    assert seen == [(block, 3, step) for block in range(3) for step in range(4)]
    torch.testing.assert_close(found.samples, whole.samples, rtol=1e-5, atol=1e-6)
    for name in ("length", "curvature"):
        one, other = getattr(found, name), getattr(whole, name)
        assert one.value == pytest.approx(other.value, rel=1e-5)
        assert one.standard_error == pytest.approx(other.standard_error, rel=1e-4)
    assert found.latency.n == 9


def begun(size, arguments):
    """Children of this process at the command line, which show nothing."""

    def work(rank):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        return main(arguments)

    return forks(size, work)


def tables(folder):
    """The files of an evaluation and of log-densities without what depends on the moment."""
    found = {}
    for file in sorted((folder / "eval").iterdir()):
        if file.suffix == ".json":
            found[file.name] = {
                key: value
                for key, value in json.loads(file.read_text()).items()
                if key not in ("compute", "about", "seconds")
            }
        else:
            rows = [line.split(",") for line in file.read_text().splitlines()]
            timed = [k for k, name in enumerate(rows[0]) if "second" in name or "latency" in name]
            found[file.name] = [[c for k, c in enumerate(row) if k not in timed] for row in rows]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("verb", ["eval", "likelihood"])
def test_killed_at_random_moments_an_evaluation_goes_on(run, monkeypatch, size, verb):
    monkeypatch.setattr(likelihood_module, "_CHUNK", 2)
    monkeypatch.setattr(trajectory, "_FEWEST", 100)
    monkeypatch.setattr(trajectory, "_NUMBERS", 8)
    folder, draw = run.folder, random.Random(size)
    arguments = [verb, str(folder), *(("--n", "24") if verb == "likelihood" else ("--nfe", "3,5"))]
    assert statuses(begun(size, arguments)) == [0] * size
    whole = tables(folder)
    shutil.rmtree(folder / "eval")
    write = parts_module.write_file

    def slowly(path, content):
        write(path, content)
        time.sleep(0.05)

    monkeypatch.setattr(parts_module, "write_file", slowly)

    def kept():
        return {file: file.stat().st_mtime_ns for file in folder.glob(".parts/*/[!.]*.pt")}

    before = {}
    for _ in range(3):
        members = begun(size, arguments)
        wanted = len(before) + draw.randint(1, 3)
        while len(kept()) < wanted:
            time.sleep(0.01)
        time.sleep(0.05 * draw.random())
        for member in members:
            os.kill(member, signal.SIGKILL)
        assert statuses(members) == [-signal.SIGKILL] * size
        now = kept()
        # What was there was not written again.
        assert before.items() <= now.items()
        before = now
    assert statuses(begun(size, arguments)) == [0] * size
    assert tables(folder) == whole
    assert not (folder / ".parts").exists()

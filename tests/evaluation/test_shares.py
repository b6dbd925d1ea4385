"""Samples, evaluations and likelihoods of several processes are those of one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from scorefield import Euler, Heun
from scorefield.engine import Engine
from scorefield.evaluation.evaluate import evaluate
from scorefield.evaluation.likelihood import LikelihoodSettings, data_likelihood
from scorefield.evaluation.measure import measure_floors, measure_levels
from scorefield.evaluation.protocol import Benchmark, Protocol
from scorefield.evaluation.sampling import draw
from scorefield.runs.run import Run
from scorefield.runs.subject import open_model, open_subject
from scorefield.samplers.trajectory import Trajectory
from tests.worlds import together

torch.set_num_threads(1)
FEW = Protocol(nfes=(3,), along=None, samples=32, pairs=2, sigmas=(0.2, 0.5, 1.0, 2.0), points=6)


def close(one, other):
    return one == pytest.approx(other, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("size", [2, 5])
def test_metrics_by_noise_level_and_floors_are_exactly_those_of_one_process(trained, size):
    run = Run.open(trained)
    field, benchmark = run.field(), Benchmark(run.source(), FEW)
    expected, floors = measure_levels(field, benchmark), measure_floors(benchmark)

    def work(world):
        own = Run.open(trained).field()
        return measure_levels(own, benchmark, world=world), measure_floors(benchmark, world=world)

    for found, own in together(size, work):
        assert found == expected
        assert own == floors


@pytest.mark.parametrize("n", [1, 2, 11])
def test_samples_and_their_trajectories_are_those_of_one_process_in_order(trained, n):
    field = Run.open(trained).field()
    whole = Trajectory(field, Heun(3), n, 5) if n > 1 else None

    def work(world):
        own = Run.open(trained).field()
        drawn = world.map(n, lambda index: Heun(3).sample(own, seed=5, index=index))
        return drawn, Trajectory(own, Heun(3), n, 5, world=world) if n > 1 else None

    expected = Heun(3).sample(field, n, 5)
    for drawn, paths in together(3, work):
        torch.testing.assert_close(drawn, expected, rtol=1e-5, atol=1e-6)
        if whole is not None:
            torch.testing.assert_close(paths.samples, expected, rtol=1e-5, atol=1e-6)
            assert close(paths.length.value, whole.length.value)
            assert close(paths.curvature.value, whole.curvature.value)


def test_a_file_of_samples_is_written_once(trained, tmp_path):
    def work(world):
        engine = Engine("cpu", world=world)
        out = tmp_path / f"{world.size}.npz"
        drawn = draw(open_model(trained), 7, Euler(4), out=out, engine=engine)
        return drawn.calls, drawn.samples

    (calls, samples), (other, _) = together(2, work)
    alone, expected = together(1, work)[0]
    assert calls == other == alone
    torch.testing.assert_close(samples, expected, rtol=1e-5, atol=1e-6)
    with np.load(tmp_path / "1.npz") as one, np.load(tmp_path / "2.npz") as two:
        assert json.loads(str(one["record"])) == json.loads(str(two["record"]))


@pytest.mark.parametrize("n", [2, 5])
def test_likelihoods_are_those_of_one_process(trained, n):
    settings = LikelihoodSettings(rtol=1e-2, atol=1e-2)

    def work(world):
        subject = open_subject(trained, "ema")
        return data_likelihood(subject, "test", n, settings, Engine("cpu", world=world))

    (expected,) = together(1, work)
    for found in together(3, work):
        torch.testing.assert_close(found.points.value, expected.points.value, rtol=1e-4, atol=1e-4)
        assert torch.equal(found.points.calls, expected.points.calls)


@pytest.mark.slow
def test_an_evaluation_is_that_of_one_process(small, shared, tmp_path):
    from scorefield.config.resolve import load_config

    found = []
    for size in (1, 2):
        root = tmp_path / str(size)
        run = Run.create(load_config(small), root)
        run.train(quiet=True)
        found.append(
            together(
                size,
                lambda world, run=run: evaluate(
                    Run.open(run.folder), engine=Engine("cpu", world=world)
                ),
            )
        )
        assert (run.folder / "eval" / "compute_summary.json").is_file()
    (one,), two = found
    for other in two:
        assert other.levels == one.levels
        assert [replace(d, estimate=None, latency=None) for d in other.distances] == [
            replace(d, estimate=None, latency=None) for d in one.distances
        ]
        for a, b in zip(one.distances, other.distances, strict=True):
            assert close(a.estimate.value, b.estimate.value)
        assert other.validation == one.validation

"""What a step draws: numbers that depend on its address alone, and who reads the data for it."""

import threading

import pytest
import torch

import scorefield as sf
from scorefield.data.arrays import ArraySource
from scorefield.data.given import source_of
from scorefield.data.source import TargetSource
from scorefield.noise import Noise
from scorefield.training import draws
from scorefield.training.draws import Prefetch, training_draws

OBJECTIVE = sf.Objective(sf.DenoisingScoreMatching(sigma_data=0.5))
NOISE = Noise(3)


class Stream(sf.DataSource):
    """Data of a user's own, which say how a batch is made and nothing else."""

    name, shape, mean, std = "stream", (2,), torch.zeros(2), 1.0

    def batch(self, noise, step, batch_size, dtype=torch.float32):
        step = torch.as_tensor(step)
        index = step.unsqueeze(-1) * batch_size + torch.arange(batch_size)
        return noise.normal("stream", (2,), index, dtype=dtype)

    def reference(self, n, seed, split="test", dtype=torch.float32):
        raise NotImplementedError


SOURCES = {
    "stream": Stream(),
    "target": sf.TargetSource(sf.GaussianMixture.ring()),
    "numbers": source_of(torch.arange(22.0, dtype=torch.float64).view(11, 2)),
    "bytes": source_of(torch.arange(22, dtype=torch.uint8).view(11, 2)),
}


def field_of(source):
    network = sf.MLP(2, hidden=4, depth=1, embedding=4)
    return sf.PreconditionedField(network, sf.EDM(), sigma_data=0.5)


@pytest.mark.parametrize("name", SOURCES)
def test_draws_are_those_of_each_step_alone(name):
    source = SOURCES[name]
    field = field_of(source)
    ahead = training_draws(field, source, OBJECTIVE, NOISE, 4)
    for step in (0, 40, 7):
        x, t, z = ahead(step)
        assert torch.equal(x, source.batch(NOISE, step, 4))
        expected = OBJECTIVE.draw(field, NOISE, torch.arange(4), step)
        assert torch.equal(t, expected[0])
        assert torch.equal(z, expected[1])


@pytest.mark.parametrize("most", [0, 10**9])
@pytest.mark.parametrize("name", SOURCES)
def test_points_do_not_depend_on_where_the_data_lie(name, most):
    source = SOURCES[name]
    placed = source.on(torch.device("cpu"), most)
    steps = torch.tensor([5, 0, 30])
    read = placed.read(NOISE, steps, 4, torch.float64)
    expected = source.batch(NOISE, steps, 4, torch.float64)
    assert torch.equal(placed.finish(read, NOISE, torch.float64), expected)


@pytest.mark.parametrize("name", ["numbers", "bytes"])
def test_data_are_copied_up_to_a_size(name):
    source = SOURCES[name]
    size = source.stored("train").nbytes
    within, beyond = (source.on(torch.device("cpu"), most) for most in (size, size - 1))
    # Of data on the device the host reads which points there are, of others the points.
    assert within.read(NOISE, 0, 4)[1].shape == (4,)
    assert beyond.read(NOISE, 0, 4)[1].shape == (4, *source.shape)
    assert beyond.read(NOISE, 0, 4)[1].dtype == source.stored("train").dtype


def test_a_thread_reads_one_ahead():
    calls, ahead = [], threading.Event()

    def read(steps):
        calls.append((int(steps[0]), threading.current_thread()))
        if len(calls) == 2:
            ahead.set()
        return [steps], None

    host = Prefetch(read)
    steps = torch.arange(6, 9).unsqueeze(1)
    assert torch.equal(host(steps)[0][0], steps)
    assert ahead.wait(10)
    assert torch.equal(host(steps + 3)[0][0], steps + 3)
    assert torch.equal(host(steps + 30)[0][0], steps + 30)
    found, threads = zip(*calls[:4], strict=True)
    assert found[:3] == (6, 9, 12)
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()


def test_what_a_thread_cannot_read_is_an_error_of_its_step():
    def read(steps):
        if int(steps[0]) == 3:
            raise OSError("gone")
        return [steps], None

    host = Prefetch(read)
    steps = torch.arange(3).unsqueeze(1)
    host(steps)
    with pytest.raises(OSError, match="gone"):
        host(steps + 3)
    assert torch.equal(host(steps)[0][0], steps)


def test_no_thread_is_made_on_a_cpu(monkeypatch):
    monkeypatch.setattr(draws, "ThreadPoolExecutor", None)
    monkeypatch.setattr(torch.Tensor, "pin_memory", None)
    training_draws(field_of(Stream()), Stream(), OBJECTIVE, NOISE, 4)(0)


@pytest.mark.parametrize("kind", [ArraySource, TargetSource])
def test_batches_of_a_subclass_are_those_that_are_trained_on(kind):
    """Whatever parts the batch of the class above it has."""

    class Doubled(kind):
        def batch(self, *arguments, **named):
            return 2 * super().batch(*arguments, **named)

    points = torch.arange(8.0).reshape(4, 2)
    known = (points, points, "points") if kind is ArraySource else (sf.GaussianMixture.ring(),)
    source, doubled = kind(*known), Doubled(*known)
    steps = torch.arange(3)
    found = doubled.finish(doubled.read(NOISE, steps, 4), NOISE)
    assert torch.equal(found, 2 * source.batch(NOISE, steps, 4))

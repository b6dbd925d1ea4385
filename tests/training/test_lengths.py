"""Averages of any length from stored ones: against integrals, and against averages tracked."""

import math

import pytest
import torch
from torch import nn

from scorefield.errors import CheckpointError
from scorefield.training import lengths
from scorefield.training.lengths import LENGTHS, PowerAverage, combine, exponent, reconstruct


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.2, 0.288])
def test_the_length_is_the_relative_standard_deviation_of_the_profile(length):
    gamma = exponent(length)
    # Moments of the power function, in closed form.
    first, second = (gamma + 1) / (gamma + 2), (gamma + 1) / (gamma + 3)
    assert math.sqrt(second - first**2) == pytest.approx(length, rel=1e-9)
    assert gamma > 0


def test_the_published_exponents():
    # Karras et al. (2024), section 3.1.
    assert exponent(0.05) == pytest.approx(16.97, abs=5e-3)
    assert exponent(0.10) == pytest.approx(6.94, abs=5e-3)


@pytest.mark.parametrize("length", [0.0, -0.1, 0.2887, math.nan, "0.1", None])
def test_refuses_lengths_that_no_profile_has(length, unchecked):
    with pytest.raises(ValueError, match=r"lies between 0 and 0\.2887"):
        exponent(length)


@pytest.mark.parametrize("step", [0.0, -1.0, math.nan])
def test_refuses_steps_before_the_first(step):
    with pytest.raises(ValueError, match="step must be positive"):
        combine([(1.0, 0.1)], step, 0.1)


@pytest.mark.parametrize("length", [0.05, 0.1, 0.2])
def test_a_tracked_average_has_the_integrals_of_its_profile(length):
    module = nn.Linear(1, 1, bias=False).double()
    average, gamma, n = PowerAverage(module, length), exponent(length), 50
    for k in range(1, n + 1):
        with torch.no_grad():
            module.weight.fill_(float(k) ** 2)
        average.update()
    edges = torch.arange(n + 1, dtype=torch.float64) / n
    weights = edges.pow(gamma + 1).diff()
    expected = (weights * torch.arange(1, n + 1).double() ** 2).sum()
    assert float(average.state_dict()["weight"]) == pytest.approx(float(expected), rel=1e-12)


STORED = [(step, length) for step in range(250, 2001, 250) for length in LENGTHS]


@pytest.mark.parametrize("length", [0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25])
def test_the_combination_is_the_average_of_a_weight_path_in_closed_form(length):
    found, gamma = combine(STORED, 2000, length), exponent(length)
    assert sum(found.weights) == pytest.approx(1, abs=1e-9)
    for a in (0.0, 0.5, 1.0, 2.0):
        # Of weights t^a the average of a profile is (gamma + 1) / (gamma + 1 + a) times t^a.
        made = sum(
            w * (exponent(each) + 1) / (exponent(each) + 1 + a) * (t / 2000) ** a
            for w, (t, each) in zip(found.weights, STORED, strict=True)
        )
        # As near as the profiles are, by the inequality of Cauchy and Schwarz.
        norms = (gamma + 1) / math.sqrt(2 * gamma + 1) / math.sqrt(2 * a + 1)
        bound = found.error * norms + 1e-9
        assert abs(made - (gamma + 1) / (gamma + 1 + a)) <= bound


def test_lengths_between_and_beyond_the_stored_ones_are_near():
    assert combine(STORED, 2000, 0.07).error < 0.02
    assert combine(STORED, 2000, 0.15).error < 0.05


def test_the_combination_is_the_nearest_one():
    found = combine(STORED, 2000, 0.07)
    s = torch.linspace(0, 1, 200_001, dtype=torch.float64)[1:]

    def profile(t, length):
        gamma = exponent(length)
        inside = (gamma + 1) / t * (s / t).clamp(max=1) ** gamma
        return torch.where(s <= t, inside, 0.0)

    def distance(weights):
        profiles = (w * profile(t / 2000, e) for w, (t, e) in zip(weights, STORED, strict=True))
        return (sum(profiles) - wanted).square().mean()

    wanted = profile(1.0, 0.07)
    least = distance(found.weights)
    assert float((least / wanted.square().mean()).sqrt()) == pytest.approx(found.error, rel=0.01)
    for k in (0, 5, 14):
        # Away from it, in any direction that keeps the sum.
        moved = list(found.weights)
        moved[k] += 0.01
        moved[-1] -= 0.01
        assert distance(moved) > least


@pytest.mark.parametrize("length", LENGTHS)
def test_what_is_stored_is_found_again(length):
    found = combine(STORED, 2000, length)
    assert found.error < 1e-6
    assert found.weights[len(STORED) - len(LENGTHS) + LENGTHS.index(length)] == pytest.approx(1)


def test_more_stored_averages_come_nearer():
    few = combine(STORED[-4:], 2000, 0.15)
    assert combine(STORED, 2000, 0.15).error < few.error


def states(averages):
    return {length: average.state_dict() for length, average in averages.items()}


def test_the_way_over_the_files(tmp_path):
    module = nn.BatchNorm1d(3)
    averages = {each: PowerAverage(module, each) for each in LENGTHS}
    direct = PowerAverage(module, 0.08)
    for step in range(1, 401):
        with torch.no_grad():
            module.weight.copy_(torch.tensor([1.0, math.sin(step / 40), math.sqrt(step)]))
        for average in (*averages.values(), direct):
            average.update()
        if step % 50 == 0:
            lengths.save(tmp_path, step, states(averages), {"name": "a/b"})
    module.running_mean.fill_(0.7)
    lengths.save(tmp_path, 400, states(averages), {"name": "a/b"})
    names = [name for name, _ in module.named_parameters()]
    tensors, _ = reconstruct(tmp_path, 400, 0.08, names)
    expected = direct.state_dict()
    torch.testing.assert_close(tensors["weight"], expected["weight"], rtol=0, atol=5e-3)
    # A constant is its own average, and what is no parameter is not averaged.
    assert float(tensors["weight"][0]) == pytest.approx(1, abs=1e-5)
    assert torch.equal(tensors["running_mean"], module.running_mean)
    assert torch.equal(tensors["num_batches_tracked"], module.num_batches_tracked)
    # Of an earlier step, nothing that came later is used.
    earlier, _ = reconstruct(tmp_path, 100, 0.05, names)
    stored = lengths.checkpoint.read_weights(tmp_path / "step_00000100" / "0.05.safetensors")
    torch.testing.assert_close(earlier["weight"], stored.tensors["weight"], rtol=0, atol=1e-5)


def test_says_what_is_missing(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"no averages up to step 5: .* train\.snapshot_every"
    ):
        reconstruct(tmp_path, 5, 0.05, ["weight"])
    module = nn.Linear(1, 1)
    lengths.save(tmp_path, 5, states({e: PowerAverage(module, e) for e in LENGTHS}), None)
    with pytest.raises(CheckpointError, match="lacks the tensor scale"):
        reconstruct(tmp_path, 5, 0.05, ["weight", "scale"])
    (tmp_path / "step_00000005" / "0.10.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        reconstruct(tmp_path, 5, 0.05, ["weight"])


@pytest.mark.parametrize("other", [nn.Linear(2, 1), nn.Linear(1, 1, bias=False)])
def test_averages_of_two_fields_are_not_combined(tmp_path, other):
    for step, module in ((5, nn.Linear(1, 1)), (9, other)):
        averages = {e: PowerAverage(module, e) for e in LENGTHS}
        lengths.save(tmp_path, step, states(averages), None)
    with pytest.raises(CheckpointError, match=r"step_00000009/0\.05\.safetensors is of another"):
        reconstruct(tmp_path, 9, 0.07, ["weight"])

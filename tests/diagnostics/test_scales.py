"""Calibration of a machine against itself, against brute force, and of planted tables."""

from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scorefield import (
    DDIM,
    EDM,
    Cosine,
    EquivariantLocalScore,
    Gaussian,
    LocalScore,
    PatchSizes,
    calibrate_sizes,
    walk,
)
from scorefield.diagnostics.scales import ScaleCalibration, isotonic
from scorefield.diagnostics.trajectories import State

IMAGES = torch.rand(12, 1, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SIZES = (1, 3, 5, 7, 9)


def calibration(best, sizes=(3, 5, 7, 9)):
    """One whose table of best sizes is given."""
    best = np.asarray(best)
    gap = np.abs(best[:, :, None] - np.asarray(sizes)).astype(float)
    sigmas = tuple(0.1 * 2.0**k for k in range(best.shape[1]))
    return ScaleCalibration(sigmas, sizes, "cosine", gap, gap)


@pytest.mark.parametrize("kind", [EquivariantLocalScore, LocalScore])
@pytest.mark.parametrize("by", ["cosine", "l2"])
@pytest.mark.parametrize(
    ("sde", "spacing"), [(EDM(0.05, 4.0), "karras"), (Cosine(t_min=0.1, t_max=0.9), "time")]
)
def test_a_machine_calibrated_against_itself_has_its_own_sizes(kind, by, sde, spacing):
    """No size slips to a neighbouring level: sizes jump from level to level, and back."""
    sampler = DDIM(6, spacing=spacing)
    levels = [s.sigma for s in walk(Gaussian(IMAGES[0], 1.0, sde=sde), sampler, 1).states]
    truth = PatchSizes(tuple(levels[::-1]), (1, 5, 3, 7, 9, 5))
    network = kind(IMAGES, sde, size=truth)
    found = calibrate_sizes(
        network,
        lambda size: kind(IMAGES, sde, size=size),
        walk(network, sampler, 3, dtype=torch.float64).states,
        SIZES,
        by,
        margin=len(SIZES),
    )
    for sizes in (found.median, found.mode):
        assert sizes.sizes == truth.sizes
        assert sizes.sigmas == pytest.approx(truth.sigmas)
    assert (found.best == np.array(truth.sizes)).all()
    # What is found is what is used: the machine of these sizes is the network.
    again = kind(IMAGES, sde, size=found.median)
    end = sampler.sample(again, 3, dtype=torch.float64)
    assert torch.equal(end, sampler.sample(network, 3, dtype=torch.float64))


def test_a_search_that_stops_early_finds_what_a_whole_one_finds():
    """Of smooth images, where the gap falls and rises."""
    smooth = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(IMAGES, (2, 2, 2, 2)), 5, 1)
    images = 4 * (smooth - smooth.mean())
    sde, sampler = EDM(0.05, 4.0), DDIM(7)
    network = EquivariantLocalScore(images, sde, size=5)
    states = walk(network, sampler, 4, dtype=torch.float64).states
    asked = []

    def machine(size):
        asked.append(size)
        return EquivariantLocalScore(images[:6], sde, size=size)

    short = calibrate_sizes(network, machine, states, SIZES)
    assert len(asked) == len(set(asked))
    whole = calibrate_sizes(network, machine, states, SIZES, margin=len(SIZES))
    assert short.evaluations < whole.evaluations == 4 * len(states) * len(SIZES)
    assert whole.best.tolist() == short.best.tolist()
    # What was evaluated is the same, and every minimum has worse neighbours.
    seen = np.isfinite(short.gap)
    assert short.gap[seen] == pytest.approx(whole.gap[seen], rel=1e-9)
    for sample, level in np.ndindex(short.best.shape):
        j = SIZES.index(short.best[sample, level])
        for k in (j - 1, j + 1):
            assert not 0 <= k < len(SIZES) or (
                short.gap[sample, level, k] >= short.gap[sample, level, j]
            )
    for level in range(len(states)):
        for size, (gap, _) in short.curve(level).items():
            assert gap.value == pytest.approx(whole.curve(level)[size][0].value)


def test_gap_and_distance_are_what_they_are_called():
    sde = Cosine(t_min=0.1, t_max=0.9)
    network = Gaussian(IMAGES[0], 0.5, sde=sde)
    states = walk(network, DDIM(2, spacing="time"), 3, dtype=torch.float64).states
    found = calibrate_sizes(network, lambda k: LocalScore(IMAGES, sde, size=k), states, (3, 5))
    ticks = []
    calibrate_sizes(
        network, lambda k: LocalScore(IMAGES, sde, size=k), states, (3,), callback=ticks.append
    )
    assert ticks == list(found.sigmas) == sorted(s.sigma for s in states)
    for level, state in enumerate(reversed(states)):
        for j, size in enumerate(found.sizes):
            a = network.score(state.x, state.t).flatten(1)
            b = LocalScore(IMAGES, sde, size=size).score(state.x, state.t).flatten(1)
            cosine = torch.nn.functional.cosine_similarity(a, b)
            assert 1 - found.gap[:, level, j] == pytest.approx(cosine.numpy(), abs=1e-12)
            sigma = float(sde.sigma(torch.tensor(state.t, dtype=torch.float64)))
            distance = sigma * (a - b).square().mean(dim=1).sqrt()
            assert found.distance[:, level, j] == pytest.approx(distance.numpy(), rel=1e-9)
    row = next(r for r in found.rows() if r["size"] == 5 and r["sigma"] == found.sigmas[1])
    assert row["gap"] == pytest.approx(found.gap[:, 1, 1].mean())
    assert row["gap_se"] == pytest.approx(found.gap[:, 1, 1].std(ddof=1) / 3**0.5)
    assert (row["n"], row["cosine"]) == (3, 1 - row["gap"])
    assert sum(r["best"] for r in found.rows()) == 2 * 3
    found.gap[0, 1, 1] = found.distance[0, 1, 1] = np.nan
    row = next(r for r in found.rows() if r["size"] == 5 and r["sigma"] == found.sigmas[1])
    assert (row["n"], row["gap"], row["distance_se"]) == (2, "", "")


def test_median_mode_and_monotone_sizes():
    found = calibration([[3, 5, 9], [5, 5, 3], [5, 3, 3], [3, 9, 5]])
    assert found.best.tolist() == [[3, 5, 9], [5, 5, 3], [5, 3, 3], [3, 9, 5]]
    assert found.median.sizes == (3, 5, 3)  # of two middle ones the lower, which is odd
    assert found.mode.sizes == (3, 5, 3)  # of equally frequent ones the smallest
    assert found.monotone.sizes == (3, 5, 5)
    rising = calibration([[3, 5, 9], [3, 5, 7], [5, 7, 9]])
    assert rising.monotone.sizes == rising.median.sizes == (3, 5, 9)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_isotonic_choice_is_the_smallest_of_the_best_rising_ones(places, choices, data):
    values = st.lists(st.integers(0, 4), min_size=choices, max_size=choices)
    loss = np.array(data.draw(st.lists(values, min_size=places, max_size=places)), dtype=float)
    rising = list(combinations_with_replacement(range(choices), places))
    totals = [sum(loss[i, j] for i, j in enumerate(path)) for path in rising]
    chosen = tuple(int(j) for j in isotonic(loss))
    best = [path for path, total in zip(rising, totals, strict=True) if total == min(totals)]
    assert chosen in best
    assert chosen[-1] == min(path[-1] for path in best)


def test_monotone_sizes_are_the_smallest_of_the_best():
    """Distances to a table: the best rising sequences form a lattice, whose least one is taken."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        found = calibration(rng.choice([3, 5, 7, 9], size=(4, 4)))
        rising = list(combinations_with_replacement((3, 5, 7, 9), 4))
        totals = [np.abs(found.best - np.array(path)).sum() for path in rising]
        best = np.array([p for p, t in zip(rising, totals, strict=True) if t == min(totals)])
        assert found.monotone.sizes == tuple(best.min(axis=0))


@pytest.mark.usefixtures("unchecked")
def test_mistakes_of_a_calibration():
    sde = EDM(0.05, 4.0)
    network = Gaussian(IMAGES[0], 0.5, sde=sde)
    states = walk(network, DDIM(2), 2, dtype=torch.float64).states

    def machine(size):
        return LocalScore(IMAGES, sde, size=size)

    for arguments, message in (
        (([], SIZES), "at least one state"),
        ((states, ()), "one patch size"),
        ((states, SIZES, "angle"), "not 'angle'"),
        ((states, SIZES, "cosine", 0), "positive integer"),
        (([State(s.sigma, s.t, s.x[:1]) for s in states], SIZES), "2 samples"),
    ):
        with pytest.raises(ValueError, match=message):
            calibrate_sizes(network, machine, *arguments)
    centre = State(1.0, 1.0, IMAGES[:1].repeat(2, 1, 1, 1))
    with pytest.raises(ValueError, match="noise level 1 and of patch size 1 have no cosine"):
        calibrate_sizes(network, machine, [centre], SIZES)

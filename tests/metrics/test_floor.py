from functools import partial

import pytest
import torch

from scorefield import GaussianMixture, frechet_distance, mmd, noise_floor, sliced_wasserstein
from scorefield.estimate import Estimate
from scorefield.metrics.sets import NoiseFloor
from scorefield.noise import Noise

RING = GaussianMixture.ring()
DISTANCES = [mmd, partial(sliced_wasserstein, projections=32), frechet_distance]


def dropped(n, seed):
    x = RING.sample(2 * n, seed)
    return x[torch.cdist(x.double(), RING.means).argmin(dim=1) > 1][:n]


class Finite:
    """A hundred real points, the numbers 0 to 99."""

    size = 100

    def reference(self, n: int, seed: int) -> torch.Tensor:
        if n > 100:
            raise ValueError(f"there are 100 points, not {n}")
        return Noise(seed).permutation("reference", 100)[:n].float().unsqueeze(1)


@pytest.mark.parametrize("metric", DISTANCES)
def test_real_sets_lie_at_the_floor_and_dropped_modes_far_above(metric):
    n = 600
    floor = noise_floor(metric, RING, n, pairs=20, seed=1)
    real = metric(RING.sample(n, 50), RING.sample(n, 51))
    lacking = metric(dropped(n, 52), RING.sample(n, 53))
    assert floor.excess(real) < 8
    # Beyond what real sets reach, even with the heavy right tail of a distance at its floor.
    assert floor.excess(lacking) > 8


def test_the_floor_is_the_law_over_pairs():
    seen = []

    def metric(x, y):
        seen.append((x, y))
        return Estimate(float(len(seen)), 0.0, 0, "metres")

    floor = noise_floor(metric, RING, 30, pairs=4, seed=9, m=20)
    assert floor.values == (1.0, 2.0, 3.0, 4.0)
    assert (floor.pairs, floor.mean.value, floor.mean.unit) == (4, 2.5, "metres")
    assert floor.sd == pytest.approx((5 / 3) ** 0.5)
    assert floor.mean.standard_error == pytest.approx(floor.sd / 2)
    assert floor.quantile(0.1) == pytest.approx(1.3, rel=1e-12)
    assert floor.quantile(0.5) == 2.5
    assert floor.ratio(5.0) == floor.ratio(Estimate(5.0, 1.0, 3)) == 2.0
    assert floor.excess(2.5 + floor.sd) == pytest.approx(1.0)
    assert {(len(x), len(y)) for x, y in seen} == {(30, 20)}
    points = torch.cat([torch.cat(pair) for pair in seen])
    assert len(points.unique(dim=0)) == len(points)


def test_pairs_that_share_points_do_not_count_as_independent():
    """Of a hundred points there are two pairs of two sets of 25 without a common point."""
    floor = noise_floor(lambda x, y: Estimate(float(x.mean()), 0.0, 0), Finite(), 25, pairs=50)
    assert floor.pairs == 50
    assert floor.mean.n == 2
    assert floor.mean.standard_error == pytest.approx(floor.sd / 2**0.5)


def test_it_is_a_function_of_the_seed():
    metric = frechet_distance
    floor = noise_floor(metric, RING, 40, pairs=3, seed=2)
    assert floor == noise_floor(metric, RING, 40, pairs=3, seed=2)
    assert floor.values != noise_floor(metric, RING, 40, pairs=3, seed=3).values


def test_the_two_sets_of_a_finite_source_have_no_common_point():
    def metric(x, y):
        assert not torch.isin(x, y).any()
        return Estimate(float(x.mean() - y.mean()), 0.0, 0)

    floor = noise_floor(metric, Finite(), 50, pairs=5)
    assert floor.sd > 0
    with pytest.raises(ValueError, match="there are 100 points, not 102"):
        noise_floor(metric, Finite(), 51)


def test_an_unbiased_distance_has_no_ratio():
    floor = noise_floor(mmd, RING, 100, pairs=10)
    with pytest.raises(ValueError, match="not significantly positive"):
        floor.ratio(1.0)


def test_a_floor_without_scatter_has_no_scale():
    floor = NoiseFloor(Estimate(1.0, 0.0, 2), 0.0, (1.0, 1.0))
    with pytest.raises(ValueError, match="no scale"):
        floor.excess(2.0)
    with pytest.raises(ValueError, match="quantile"):
        floor.quantile(1.5)


@pytest.mark.parametrize("sizes", [{"n": 0}, {"n": 4, "m": 0}, {"n": 4, "pairs": 1}])
def test_sizes_are_positive(sizes):
    with pytest.raises(ValueError, match="noise_floor: "):
        noise_floor(frechet_distance, RING, **sizes)

import math

import pytest
import torch

from scorefield import VE, GaussianMixture, mode_coverage, mode_weight_tv
from scorefield.noise import Noise

RING = GaussianMixture.ring()


def without_mode(mixture, n, mode, seed=0):
    x = mixture.sample(2 * n, seed, dtype=torch.float64)
    keep = torch.cdist(x, mixture.means).argmin(dim=1) != mode
    return x[keep][:n]


class TestCoverage:
    def test_true_samples_cover_every_mode(self):
        estimate = mode_coverage(RING.sample(1000, 0), RING)
        assert (estimate.value, estimate.exact, estimate.unit) == (8, True, "modes")
        assert estimate.settings["samples"] == 1000
        assert estimate.settings["inside"] > 0.98

    def test_a_dropped_mode_is_missed(self):
        assert mode_coverage(without_mode(RING, 1000, 5), RING).value == 7

    def test_the_share_decides(self):
        kept = RING.sample(2000, 0, dtype=torch.float64)
        mode = torch.cdist(kept, RING.means).argmin(dim=1)
        few = torch.cat((kept[mode != 2], kept[mode == 2][:50]))
        # Of about 1800 samples a mode of the ring should have 225.
        assert mode_coverage(few, RING, share=0.15).value == 8
        assert mode_coverage(few, RING, share=0.3).value == 7

    def test_samples_between_the_modes_count_for_none(self):
        centre = 0.1 * torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        estimate = mode_coverage(centre, RING)
        assert (estimate.value, estimate.settings["inside"]) == (0, 0)

    def test_nearest_is_meant_in_standard_deviations(self):
        mixture = GaussianMixture([[0.0, 0.0], [3.0, 0.0]], stds=[1.0, 0.1])
        # Nearer to the narrow mode in space, to the wide one in standard deviations.
        point = torch.tensor([[2.0, 0.0]])
        narrow = GaussianMixture([[3.0, 0.0], [50.0, 0.0]], stds=0.1)
        assert mode_coverage(point, mixture).value == 1
        assert mode_coverage(point, narrow).value == 0

    def test_the_size_of_a_mode_is_a_probability_in_any_dimension(self):
        dim, n = 30, 4000
        mixture = GaussianMixture(torch.zeros(1, dim), covariances=torch.eye(dim)[None] * 4)
        inside = mode_coverage(mixture.sample(n, 0), mixture, within=2.0).settings["inside"]
        expected = math.erf(2.0 / math.sqrt(2))
        assert abs(inside - expected) < 6 * math.sqrt(expected * (1 - expected) / n)

    @pytest.mark.parametrize("options", [{"share": 0.0}, {"share": 1.5}, {"within": 0.0}])
    def test_a_share_and_a_distance_out_of_range_are_refused(self, options):
        with pytest.raises(ValueError, match="mode"):
            mode_coverage(RING.sample(10, 0), RING, **options)

    def test_a_set_of_another_dimension_is_refused(self):
        with pytest.raises(ValueError, match="cannot be compared with a mixture"):
            mode_coverage(torch.zeros(4, 3), RING)


class TestWeights:
    def test_separate_modes_are_counted(self):
        weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
        mixture = GaussianMixture([[0.0], [100.0], [200.0]], stds=1.0, weights=weights)
        x = torch.tensor([[0.0]] * 6 + [[100.0]] * 4, dtype=torch.float64)
        estimate = mode_weight_tv(x, mixture)
        assert estimate.value == pytest.approx(0.2)
        # Half of the sum of ± responsibilities: +½ for the first two modes, -½ for the third.
        assert estimate.standard_error == pytest.approx(0, abs=1e-12)
        other = mode_weight_tv(torch.cat((x[:4], x[:6] + 100)), mixture)
        assert other.value == pytest.approx(0.3)

    def test_a_dropped_mode_costs_its_weight(self):
        estimate = mode_weight_tv(without_mode(RING, 4000, 5), RING)
        assert estimate.value > 0.125 - 1e-6
        assert estimate.value < 0.125 + 8 * estimate.settings["null"]

    def test_its_null_level_is_the_mean_over_true_samples(self):
        repeats, n = 300, 200
        values = [mode_weight_tv(RING.sample(n, k), RING).value for k in range(repeats)]
        values = torch.tensor(values, dtype=torch.float64)
        null = mode_weight_tv(RING.sample(n, 0), RING).settings["null"]
        error = float(values.std()) / math.sqrt(repeats)
        assert abs(float(values.mean()) - null) < 6 * error + 0.02 * null

    def test_overlapping_modes_are_weighed_without_bias(self):
        mixture = GaussianMixture([[0.0], [1.0]], stds=[1.0, 0.7], weights=[0.8, 0.2])
        n = 20_000
        estimate = mode_weight_tv(mixture.sample(n, 0, dtype=torch.float64), mixture)
        # The responsibilities vary less than a coin of the same weight does.
        assert estimate.value < 6 * math.sqrt(0.16 / n)

    def test_its_standard_error_covers(self):
        law = GaussianMixture(RING.means, stds=0.35, weights=[1.0] * 4 + [2.0] * 4)
        truth, repeats, covered = 1 / 6, 300, 0
        for k in range(repeats):
            estimate = mode_weight_tv(law.sample(600, k), RING)
            low, high = estimate.interval(0.95)
            covered += low < truth < high
        # Binomial(300, 0.95) lies below 262 with probability 1e-7.
        assert covered > 261

    def test_the_process_of_the_mixture_does_not_matter(self):
        x = RING.sample(50, 0)
        assert mode_weight_tv(x, RING) == mode_weight_tv(x, RING.under(VE(sigma_min=1.0)))

    def test_order_does_not_matter(self):
        x = RING.sample(50, 0, dtype=torch.float64)
        shuffled = x[Noise(0).permutation("test", 50)]
        assert mode_weight_tv(x, RING).value == pytest.approx(mode_weight_tv(shuffled, RING).value)

    def test_one_sample_has_no_error(self):
        with pytest.raises(ValueError, match="at least 2 samples"):
            mode_weight_tv(torch.zeros(1, 2), RING)

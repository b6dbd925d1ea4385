"""Samples of the law pass, shifted ones fail, and the intervals cover."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from scorefield import VE, PseudoAtoms, ks_test, marginal_ks, total_variation
from scorefield.noise import Noise

PROCESS = VE(0.001, 0.5)
PAIR = PseudoAtoms([[0.25], [0.75]], std=0.01, sde=PROCESS)
THREE = PseudoAtoms([[0.1, 0.2], [1.0, 0.9], [1.7, 0.4]], std=0.05, period=(2.0, 1.0), sde=PROCESS)


def uniforms(n, k):
    return Noise(k).uniform("test", (), torch.arange(n), dtype=torch.float64)


class TestKolmogorovSmirnov:
    def test_it_is_the_statistic_of_scipy(self):
        x = 1.3 * Noise(0).normal("test", (), torch.arange(200), dtype=torch.float64) + 0.2
        found = ks_test(x, lambda u: torch.special.ndtr(u))
        expected = stats.kstest(x.numpy(), "norm", method="exact")
        assert found.value == pytest.approx(expected.statistic, abs=1e-14)
        assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)

    @pytest.mark.parametrize("law", [lambda u: u, lambda u: u**2])
    def test_the_interval_covers_the_gap_of_the_laws(self, law):
        """With at least its confidence: uniform values against the uniform law, and another."""
        truth = 0.0 if law(2.0) == 2.0 else 0.25
        inside = 0
        for k in range(200):
            found = ks_test(uniforms(200, k), law, confidence=0.9)
            inside += found.low <= truth <= found.high
        assert inside >= stats.binom.ppf(1e-6, 200, 0.9)

    def test_at_equal_laws_the_interval_is_exact_and_the_p_value_uniform(self):
        found = [ks_test(uniforms(200, k), lambda u: u, confidence=0.8) for k in range(250)]
        held = sum(f.low == 0 for f in found)
        assert stats.binom.ppf(1e-7, 250, 0.8) <= held <= stats.binom.isf(1e-7, 250, 0.8)
        assert stats.kstest([f.p_value for f in found], "uniform").pvalue > 1e-6

    @pytest.mark.parametrize("n", [5, 50, 1000])
    def test_the_null_level_is_the_mean(self, n):
        null = ks_test(uniforms(n, 0), lambda u: u).null
        assert null == pytest.approx(stats.kstwo.mean(n), rel=0.02 / n**0.5)

    def test_the_standard_error_is_that_of_a_large_gap(self):
        values = [ks_test(uniforms(500, k), lambda u: u**2).estimate for k in range(150)]
        spread = np.std([v.value for v in values], ddof=1)
        told = np.mean([v.standard_error for v in values])
        assert abs(spread / told - 1) < 6 / math.sqrt(2 * 150) + 0.05

    def test_what_the_law_is_off_by_widens_the_interval(self):
        x = uniforms(100, 0)
        sharp, blunt = ks_test(x, lambda u: u**2), ks_test(x, lambda u: u**2, inexact=0.05)
        assert blunt.high == pytest.approx(sharp.high + 0.05)
        assert blunt.low == pytest.approx(sharp.low - 0.05)
        assert blunt.p_value > sharp.p_value
        assert (sharp.estimate.numerical_error, blunt.estimate.numerical_error) == (0, 0.05)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"confidence": 1.0}, "confidence must be in"),
            ({"inexact": -0.1}, "function must be in"),
        ],
    )
    def test_options_out_of_range_are_named(self, options, message):
        with pytest.raises(ValueError, match=message):
            ks_test(uniforms(10, 0), lambda u: u, **options)


class TestMarginals:
    @pytest.mark.parametrize("t", [None, 0.3, 1.0])
    @pytest.mark.parametrize(("law", "atom", "axis"), [(PAIR, 1, 0), (THREE, 2, 0), (THREE, 0, 1)])
    def test_samples_of_the_law_pass(self, law, atom, axis, t):
        found = marginal_ks(law.sample(2000, 0, t=t), law, atom, axis, t=t)
        assert found.p_value > 1e-5

    def test_shifted_samples_fail(self):
        found = marginal_ks(PAIR.sample(2000, 0) + 0.005, PAIR)
        # Half a width to the right moves 0.197 of a well past its middle, which is half of all.
        assert found.low < 0.197 / 2 < found.high
        assert found.low > 0.05
        assert found.p_value < 1e-12

    def test_a_turn_around_the_torus_changes_nothing(self):
        x = THREE.sample(200, 0, dtype=torch.float64)
        turned = x + torch.tensor([2.0, -1.0])
        assert marginal_ks(turned, THREE).value == pytest.approx(marginal_ks(x, THREE).value)

    def test_what_does_not_fit_is_named(self):
        with pytest.raises(ValueError, match="coordinate 1 of atom 0 does not exist"):
            marginal_ks(PAIR.sample(10, 0), PAIR, axis=1)
        with pytest.raises(ValueError, match="cannot be compared with a distribution on Torus"):
            marginal_ks(torch.zeros(4, 3, 1), PAIR)


class TestTotalVariation:
    def test_by_hand(self):
        """Of four cells the law fills two halves each; all samples lie in one of them."""
        x = torch.tensor([[[0.2], [0.7]]] * 6 + [[[0.7], [0.2]]] * 2, dtype=torch.float64)
        law = PseudoAtoms([[0.25], [0.75]], std=0.01)
        found = total_variation(x, law, bins=2)
        assert found.value == pytest.approx(0.25)
        # Half of ±1, with one more sample on either side: 7 of 10, and 3.
        assert found.standard_error == pytest.approx(math.sqrt(0.7 * 0.3 / 10))
        assert found.settings["cells"] == 4

    def test_samples_that_are_all_elsewhere_have_an_error_too(self):
        x = torch.full((50, 2, 1), 0.5, dtype=torch.float64)
        found = total_variation(x, PseudoAtoms([[0.25], [0.75]], std=0.01))
        assert found.value == pytest.approx(1)
        assert 0.01 < found.standard_error < 0.03

    @pytest.mark.parametrize("law", [PAIR, THREE], ids=["joint", "marginal"])
    @pytest.mark.parametrize("t", [None, 0.5])
    def test_its_null_level_is_the_mean_over_samples_of_the_law(self, law, t):
        repeats = 60
        found = [
            total_variation(law.sample(300, k, t=t), law, bins=16, t=t) for k in range(repeats)
        ]
        values = np.array([f.value for f in found])
        error = values.std(ddof=1) / math.sqrt(repeats)
        assert abs(values.mean() - found[0].settings["null"]) < 6 * error

    def test_shifted_samples_fail(self):
        """By a fifth of a cell, and the exact distance is found."""
        shift, n = 0.2 / 64, 100_000
        found = total_variation(PAIR.sample(n, 0, dtype=torch.float64) + shift, PAIR, bins=64)
        moved = PseudoAtoms([[0.25 + shift], [0.75 + shift]], std=0.01)
        gap = moved.cell_probabilities(64, 0.0) - PseudoAtoms(
            [[0.25], [0.75]], std=0.01
        ).cell_probabilities(64, 0.0)
        # EDM starts at zero noise.
        truth = 0.5 * float(gap.abs().sum())
        assert abs(found.value - truth) < 6 * found.standard_error + found.settings["null"] / 4
        assert found.value > 10 * found.settings["null"]

    def test_its_standard_error_covers(self):
        """Where the law of the samples is another one, at a fine and known distance."""
        other = PseudoAtoms([[0.25], [0.45]], std=0.1)
        law = PseudoAtoms([[0.25], [0.75]], std=0.1)
        gap = other.cell_probabilities(8, 0.0) - law.cell_probabilities(8, 0.0)
        truth, inside = 0.5 * float(gap.abs().sum()), 0
        for k in range(150):
            low, high = total_variation(other.sample(2000, k), law, bins=8).interval()
            inside += low <= truth <= high
        assert inside >= stats.binom.ppf(1e-6, 150, 0.93)

    def test_a_swap_of_the_atoms_is_seen_by_the_joint_law_only(self):
        """The first atom always at the first site: the marginal is wrong, the distances are not."""
        x = torch.tensor([[0.25], [0.75]]) + 0.01 * Noise(0).normal(
            "test", (2, 1), torch.arange(4000)
        )
        assert total_variation(x, PAIR).value > 0.45
        assert marginal_ks(x, PAIR).value > 0.45

    def test_what_does_not_fit_is_named(self):
        with pytest.raises(ValueError, match="bins must be an integer of at least 2"):
            total_variation(PAIR.sample(10, 0), PAIR, bins=1)
        with pytest.raises(ValueError, match="at least 2 samples"):
            total_variation(PAIR.sample(1, 0), PAIR)
        with pytest.raises(ValueError, match="not finite"):
            total_variation(PAIR.sample(10, 0) * math.nan, PAIR)

"""Ranks of data among draws of posteriors: uniform for the exact one, not for others."""

import pytest
import torch
from scipy import stats

import scorefield as sf
from scorefield.noise import Noise

PRIOR = sf.GaussianMixture(
    [[1.0, 0.5], [-1.2, 0.3], [0.2, -0.9]], stds=[0.3, 0.5, 0.4], weights=[0.5, 0.3, 0.2]
)
MATRIX = torch.tensor([[1.0, 0.4]], dtype=torch.float64)
POINTS = PRIOR.sample(10_000, seed=11, dtype=torch.float64)
OBSERVATION = sf.Observation.of(MATRIX, POINTS, noise=0.5, seed=12)


class Undrawn(sf.MMPS):
    """A field that may not be evaluated."""

    def predict(self, x, t, quantity, classes=None):
        raise AssertionError("drawn from")


def exact(noise=0.5, seed=13, y=OBSERVATION.y):
    return sf.calibration_ranks(
        sf.ExactPosteriors(PRIOR, sf.Observation(MATRIX, y, noise)), POINTS, seed=seed
    )


def test_ranks_of_the_exact_posterior_are_uniform():
    found = exact()
    assert list(found.ranks) == ["x0", "x1", "misfit"]
    assert found.n == 10_000
    assert min(found.p_values.values()) > 1e-6
    for name in found.ranks:
        assert abs(found.shift[name].value) < 5 * found.shift[name].standard_error
        assert abs(found.spread[name].value - 1) < 5 * found.spread[name].standard_error


def test_ranks_of_wrong_posteriors_are_not():
    """Twice the noise is too wide along the measurement, half of it too narrow, and measurements
    that are off by a constant are biased; each in its own way.
    """
    wide, narrow, biased = exact(1.0), exact(0.25), exact(y=OBSERVATION.y - 0.2)
    for wrong in (wide, narrow, biased):
        assert wrong.p_value < 1e-6
    assert wide.spread["x0"].value < 0.9
    assert narrow.spread["x0"].value > 1.1
    assert biased.shift["x0"].value > 0.05


def test_draws_of_the_prior_are_found_by_the_misfit_alone():
    draws = PRIOR.sample(190_000, seed=14, dtype=torch.float64).reshape(10_000, 19, 2)
    found = sf.posterior_ranks(POINTS, draws, OBSERVATION)
    assert min(found.p_values["x0"], found.p_values["x1"]) > 1e-6
    assert found.p_values["misfit"] < 1e-6


def test_a_sampler_of_a_field_is_calibrated():
    """Moment matching is exact for normal data: its ranks are uniform, those of DPS are not."""
    prior = sf.Gaussian([0.3, -0.2], covariance=[[1.0, 0.7], [0.7, 0.8]], sde=sf.EDM(0.01, 20.0))
    points = prior.sample(500, seed=1, dtype=torch.float64)
    observation = sf.Observation.of(MATRIX, points, noise=0.5, seed=2)
    found = {
        kind: sf.calibration_ranks(
            kind(prior, observation), points, sf.Heun(24), draws=9, dtype=torch.float64
        )
        for kind in (sf.MMPS, sf.DPS)
    }
    assert found[sf.MMPS].p_value > 1e-6
    assert found[sf.DPS].p_value < 1e-6
    assert found[sf.DPS].spread["misfit"].value > 1.2


def test_p_values_of_uniform_ranks_are_uniform():
    index = torch.arange(200)
    values = []
    for k in range(400):
        ranks = Noise(5).integers("ranks", 20, (), index, k)
        values.append(sf.Ranks({"x": ranks}, 19).p_values["x"])
    # Of 10 a bin, Pearson's statistic is discrete, and nearly its limit.
    assert stats.kstest(values, "uniform").pvalue > 1e-6
    assert 3 <= sum(p < 0.05 for p in values) <= 48


def test_equals_are_ranked_by_lot_and_bins_divide_the_ranks():
    points, draws = torch.zeros(4000, 1), torch.zeros(4000, 3, 1)
    found = sf.posterior_ranks(points, draws)
    assert found.bins == 4
    assert found.p_value > 1e-6
    assert int(found.histogram("x0").sum()) == 4000
    assert sf.Ranks({"x": torch.arange(4000) % 101}, 99).bins == 50


def test_what_has_no_ranks_is_one_sentence(unchecked):
    one = sf.ExactPosteriors(PRIOR, sf.Observation(MATRIX, OBSERVATION.y[:3], 0.5))

    def before(points=POINTS, **settings):
        return sf.calibration_ranks(Undrawn(PRIOR, OBSERVATION), points, sf.Heun(4), **settings)

    cases = [
        (
            lambda: sf.calibration_ranks(one, POINTS),
            "10000 points has as many",
        ),
        (
            lambda: sf.calibration_ranks(PRIOR, POINTS, sf.Heun(4)),
            "of class ExactPosteriors",
        ),
        (lambda: sf.calibration_ranks(sf.MMPS(PRIOR, OBSERVATION), POINTS), "without a sampler"),
        (lambda: sf.posterior_ranks(POINTS, POINTS), r"have the shape \(n, L, \*event\)"),
        (
            lambda: sf.posterior_ranks(POINTS, POINTS[:, None], quantities={"all": lambda x: x}),
            "the quantity all is one finite number a point",
        ),
        (lambda: sf.Ranks({"x": torch.zeros(100).long()}, 100), "100 ranks of 100 draws have no"),
        (lambda: sf.posterior_ranks(POINTS, POINTS[:, None], quantities={}), "there is none"),
        (lambda: before(draws=100), "10000 ranks of 100 draws have no bins"),
        (lambda: before(POINTS[:9]), "9 ranks of 19 draws have no bins"),
        (lambda: before(quantities={"one": lambda x: 1.0}), "10000 points gave a float"),
        (lambda: before(quantities={"misfit": lambda x: x[:, 0]}), "misfit another one"),
    ]
    for case, sentence in cases:
        with pytest.raises((ValueError, TypeError), match=sentence):
            case()


def test_a_picture_has_one_histogram_a_quantity():
    found = exact()
    figure = sf.plot.ranks({"exact": found, "again": found})
    assert [axes.get_title() for axes in figure.axes][:2] == ["exact: x0", "exact: x1"]
    heights = [bar.get_height() for bar in figure.axes[0].patches if bar.get_width() < 0.2]
    assert sum(heights) == pytest.approx(20.0)

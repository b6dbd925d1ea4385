"""Measurements: their projections, and how samplers put them into samples."""

import pytest
import torch

from scorefield import (
    DDIM,
    VE,
    VP,
    Colorization,
    DPMSolverPlusPlus2M,
    Gaussian,
    Heun,
    Inpainting,
    Langevin,
    LinearMeasurement,
    PredictorCorrector,
    Sampler,
)
from scorefield.noise import Noise

SHAPE = (3, 2, 2)
MASK = torch.tensor([[1, 0], [0, 1]])


def normal(*shape, purpose="x"):
    return Noise(0).normal(purpose, shape[1:], torch.arange(shape[0]), dtype=torch.float64)


def measurements(n):
    """One of every kind, of n samples."""
    matrix = normal(5, *SHAPE, purpose="matrix")
    matrix[4] = matrix[0] - 2 * matrix[1]
    y = normal(n, 12, purpose="x0") @ matrix.reshape(5, 12).T
    return {
        "inpainting": Inpainting(MASK, normal(n, *SHAPE)),
        "inpainting each": Inpainting(normal(n, *SHAPE, purpose="mask") > 0, normal(n, *SHAPE)),
        "colorization": Colorization(normal(n, 1, 2, 2)),
        "colorization of 3": Colorization(normal(n, 1, 2, 2).expand(n, 3, 2, 2)),
        "linear": LinearMeasurement(matrix, y),
    }


KINDS = list(measurements(1))
SAMPLERS = [
    Heun(4),
    Heun(4, churn=2.0),
    DDIM(4, eta=0.5),
    DPMSolverPlusPlus2M(4),
    PredictorCorrector(4),
    PredictorCorrector(4, corrector=Langevin(0.1), first="predictor"),
    PredictorCorrector(4, None, Langevin(0.1)),
    PredictorCorrector(4, denoise=False),
]


@pytest.mark.parametrize("kind", KINDS)
class TestProjections:
    def test_they_are_orthogonal_and_contain_what_is_known(self, kind):
        m = measurements(4)[kind]
        x, y = normal(4, *SHAPE, purpose="a"), normal(4, *SHAPE, purpose="b")
        projected = m.project(x)
        assert torch.allclose(m.project(projected), projected)
        assert float((projected * y - x * m.project(y)).sum()) == pytest.approx(0, abs=1e-12)
        assert torch.allclose(m.project(m.known.expand(x.shape)), m.known.expand(x.shape))

    def test_imposing_replaces_the_measured_part_and_no_other(self, kind):
        m = measurements(4)[kind]
        x, z = normal(4, *SHAPE, purpose="a"), normal(4, *SHAPE, purpose="b")
        new = m.impose(x, 0.7, 0.3, z)
        expected = 0.7 * m.known + 0.3 * m.project(z)
        assert torch.allclose(m.project(new), expected.expand(x.shape))
        assert torch.allclose(new - m.project(new), x - m.project(x))
        assert torch.allclose(m.project(m.impose(x, 0.7)), (0.7 * m.known).expand(x.shape))

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_samples_have_what_is_known_whatever_the_batch(self, kind, sampler):
        truth = Gaussian(torch.zeros(SHAPE), std=0.5, sde=VP())
        m = measurements(5)[kind]
        x = sampler.sample(truth, n=5, seed=1, measurement=m, dtype=torch.float64)
        assert torch.allclose(m.project(x), m.known.expand(x.shape), rtol=0, atol=1e-12)
        split = sampler.sample(truth, n=5, seed=1, measurement=m, batch_size=2, dtype=x.dtype)
        assert torch.allclose(split, x, rtol=0, atol=1e-12)

    def test_one_measurement_is_that_of_all_samples(self, kind):
        truth = Gaussian(torch.zeros(SHAPE), std=0.5, sde=VE())
        m = measurements(1)[kind]
        x = PredictorCorrector(3).sample(truth, n=5, measurement=m, batch_size=2)
        assert x.dtype == torch.float32
        assert torch.allclose(m.project(x.double()), m.known.expand(x.shape), atol=1e-6)


def test_the_known_part_starts_as_noisy_as_the_rest_unless_a_start_is_given():
    truth = Gaussian(torch.zeros(2), std=0.5, sde=VE())
    m = Inpainting(torch.tensor([1, 0]), torch.tensor([[300.0, 0.0]]))
    firsts = []

    class Watched(Gaussian):
        def score(self, x, t, classes=None):
            firsts.append(x)
            return super().score(x, t)

    watched = Watched(torch.zeros(2), std=0.5, sde=VE())
    PredictorCorrector(2).sample(watched, n=4000, seed=3, measurement=m)
    prior = truth.sde.prior(truth.domain).sample(Noise(3), torch.arange(4000))
    assert torch.equal(firsts[0][:, 1], prior[:, 1])
    known = firsts[0][:, 0]
    # Six standard errors.
    assert abs(float(known.mean()) - 300) < 6 * 50 / 4000**0.5
    assert abs(float(known.std()) - 50) < 6 * 50 / 8000**0.5
    start = torch.full((3, 2), 7.0)
    PredictorCorrector(2).sample(watched, start=start, measurement=m)
    assert torch.equal(firsts[1], start)


def test_the_noise_of_the_known_part_is_that_of_the_level_reached():
    truth = Gaussian(torch.zeros(2), std=0.5, sde=VP())
    m = Inpainting(torch.tensor([True, False]), torch.tensor([[3.0, 0.0]]))
    for sampler in (PredictorCorrector(5), DDIM(5, spacing="time"), Heun(5)):
        states = []
        sampler.sample(truth, n=3000, measurement=m, callback=states.append)
        for state in states[:-1]:
            off = state.x[:, 0] - 3
            assert abs(float(off.std()) / state.sigma_next - 1) < 6 / 6000**0.5


def test_what_stands_at_unknown_places_is_not_read():
    known = torch.tensor([[1.0, float("nan")]])
    m = Inpainting(torch.tensor([1, 0]), known)
    assert m.known.tolist() == [[1.0, 0.0]]


class TestLinear:
    def test_it_agrees_with_the_special_kinds(self):
        x = normal(4, *SHAPE, purpose="a")
        matrix = torch.eye(12, dtype=torch.float64).reshape(12, *SHAPE)[
            MASK.repeat(3, 1, 1).flatten() == 1
        ]
        m, same = LinearMeasurement(matrix, normal(4, 6)), Inpainting(MASK, x)
        assert torch.allclose(m.project(x), same.project(x))
        gray = torch.eye(4, dtype=torch.float64).reshape(4, 1, 2, 2).expand(4, 3, 2, 2) / 3
        m, same = (
            LinearMeasurement(gray, normal(4, 4)),
            Colorization(normal(4, 4).reshape(4, 1, 2, 2)),
        )
        assert torch.allclose(m.project(x), same.project(x))
        assert torch.allclose(m.known, same.known)

    def test_dependent_rows_measure_what_they_span(self):
        rows = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
        m = LinearMeasurement(rows, torch.tensor([[3.0, 6.0]]))
        assert torch.allclose(m.known, torch.tensor([[1.5, 1.5]], dtype=torch.float64))

    def test_data_that_contradict_themselves_are_an_error_or_replaced_by_name(self):
        rows = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
        y = torch.tensor([[3.0, 6.0], [3.0, 7.0]])
        with pytest.raises(ValueError, match=r"y contradicts itself: .* row 1"):
            LinearMeasurement(rows, y)
        known = LinearMeasurement(rows, y, least_squares=True).known
        assert torch.allclose(known, y.double() @ torch.linalg.pinv(rows.double()).T)


class TestMistakes:
    truth = Gaussian(torch.zeros(SHAPE), std=0.5)

    @pytest.mark.parametrize(
        ("mask", "known", "message"),
        [
            (torch.ones(3, 3), torch.zeros(1, *SHAPE), "mask of shape"),
            (torch.full((2, 2), 0.5), torch.zeros(1, *SHAPE), "mask must be 1"),
            (torch.zeros(2, 2), torch.zeros(1, *SHAPE), "mask is 0 everywhere"),
            (MASK, torch.full((1, *SHAPE), float("nan")), "known must be finite"),
            (MASK, torch.full((1, *SHAPE), float("inf")), "known must be finite"),
        ],
    )
    def test_of_inpainting(self, mask, known, message):
        with pytest.raises(ValueError, match=message):
            Inpainting(mask, known)

    @pytest.mark.parametrize(
        ("gray", "message"),
        [
            (torch.zeros(1, 2, 4, 4), "gray has 1 or 3 channels"),
            (torch.zeros(3), "gray has 1 or 3 channels"),
            (torch.rand(1, 3, 4, 4), "gray must have the same values"),
            (torch.full((1, 1, 4, 4), float("nan")), "gray must be finite"),
        ],
    )
    def test_of_colorization(self, unchecked, gray, message):
        with pytest.raises(ValueError, match=message):
            Colorization(gray)

    @pytest.mark.parametrize(
        ("matrix", "y", "message"),
        [
            (torch.eye(3), torch.zeros(1, 2), "y has 2 values"),
            (torch.eye(3), torch.zeros(3), r"y the shape \(n, m\), got \(3, 3\) and \(3,\)"),
            (torch.zeros(2, 3), torch.zeros(1, 2), "matrix is zero"),
            (torch.full((2, 3), float("nan")), torch.zeros(1, 2), "matrix must be finite"),
            (torch.eye(2), torch.full((1, 2), float("nan")), "y must be finite"),
        ],
    )
    def test_of_linear_measurements(self, unchecked, matrix, y, message):
        with pytest.raises(ValueError, match=message):
            LinearMeasurement(matrix, y)

    def test_shapes_and_numbers_fit_the_samples(self):
        with pytest.raises(ValueError, match=r"points of shape \(3, 4, 4\) .* event shape"):
            Heun(2).sample(self.truth, n=2, measurement=Colorization(torch.zeros(1, 1, 4, 4)))
        with pytest.raises(ValueError, match="4 samples cannot agree with 3 measurements"):
            Heun(2).sample(self.truth, n=4, measurement=Colorization(torch.zeros(3, 1, 2, 2)))

    def test_a_sampler_says_that_it_takes_none(self):
        class Plain(Heun):
            takes_measurements = False

        assert not Sampler.takes_measurements
        with pytest.raises(TypeError, match="Plain takes no measurement"):
            Plain(2).sample(self.truth, n=1, measurement=Colorization(torch.zeros(1, 1, 2, 2)))

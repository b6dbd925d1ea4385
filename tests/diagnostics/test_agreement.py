"""Correlation and determination of predictions whose errors are known."""

import copy

import numpy as np
import pytest
import torch

from scorefield import (
    DDIM,
    EDM,
    VP,
    Cosine,
    Empirical,
    Gaussian,
    Heun,
    PreconditionedField,
    ProbabilityFlow,
    field_agreement,
    image_agreement,
    walk,
)
from scorefield.diagnostics.trajectories import Agreement, State

IMAGES = torch.randn(7, 2, 4, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_an_image_agrees_with_itself():
    found = image_agreement(IMAGES, IMAGES)
    assert len(found) == 7
    assert found.correlation == pytest.approx(np.ones(7), abs=1e-15)
    assert found.determination == pytest.approx(np.ones(7), abs=0)
    assert found.median_correlation.value == pytest.approx(1)


def test_a_planted_error_of_known_size():
    """Orthogonal to the image and its mean, of δ times its energy: r = 1 / √(1 + δ), r² = 1 − δ."""
    flat = IMAGES.flatten(1)
    centred = flat - flat.mean(dim=1, keepdim=True)
    error = torch.randn(flat.shape, generator=torch.Generator().manual_seed(4)).double()
    basis = torch.stack((torch.ones_like(flat), centred), dim=2)
    q, _ = torch.linalg.qr(basis)
    error -= (q @ (q.mT @ error[:, :, None])).squeeze(2)
    error *= (centred.norm(dim=1) / error.norm(dim=1))[:, None]
    for share in (0.01, 0.3, 2.0):
        found = image_agreement((flat + share**0.5 * error).reshape(IMAGES.shape), IMAGES)
        assert found.correlation == pytest.approx(np.full(7, (1 + share) ** -0.5), rel=1e-12)
        assert found.determination == pytest.approx(np.full(7, 1 - share), rel=1e-12)


def test_only_determination_sees_scale_and_offset():
    found = image_agreement(0.5 * IMAGES + 3, IMAGES)
    assert found.correlation == pytest.approx(np.ones(7))
    mean = IMAGES.mean(dim=(1, 2, 3), keepdim=True)
    spread = (IMAGES - mean).square().sum(dim=(1, 2, 3))
    error = (0.5 * IMAGES + 3 - IMAGES).square().sum(dim=(1, 2, 3))
    assert found.determination == pytest.approx((1 - error / spread).numpy())
    constant = image_agreement(mean + 1e-9 * IMAGES, IMAGES)
    assert constant.determination == pytest.approx(np.zeros(7), abs=1e-8)


def test_determination_is_at_most_the_square_of_the_correlation():
    for shift in (0.0, 1.0):
        found = image_agreement(IMAGES.roll(1, dims=0) + shift * IMAGES, IMAGES)
        assert (found.determination <= found.correlation**2 + 1e-12).all()


@pytest.mark.usefixtures("unchecked")
def test_images_that_cannot_be_compared():
    # Three tenths have no exact mean.
    flat = torch.full_like(IMAGES, 0.3)
    with pytest.raises(ValueError, match="image 0 has no correlation"):
        image_agreement(flat, IMAGES)
    with pytest.raises(ValueError, match="image 2 has no correlation"):
        image_agreement(IMAGES, torch.cat((IMAGES[:2], flat[2:])))
    with pytest.raises(ValueError, match="shape"):
        image_agreement(IMAGES[:3], IMAGES)
    with pytest.raises(ValueError, match="3 images cannot be compared with 7"):
        image_agreement(IMAGES[:3], IMAGES[:3]).beats(image_agreement(IMAGES, IMAGES))


def test_wins_are_counted_image_by_image():
    better = Agreement(np.array([0.9, 0.5, 0.7]), np.zeros(3))
    worse = Agreement(np.array([0.8, 0.6, 0.7]), np.zeros(3))
    assert (better.beats(worse), worse.beats(better)) == (1, 1)


@pytest.mark.parametrize("sde", [EDM(0.01, 20.0), VP(), Cosine()])
def test_fields_are_compared_at_the_same_points(sde):
    """A field agrees with itself in every form; a Gaussian with its own score and that of a wider
    one by what their formulas say."""
    truth = Gaussian(torch.zeros(1, 3, 4, dtype=torch.float64), 1.0, sde=sde)
    wide = Gaussian(torch.full((1, 3, 4), 0.3, dtype=torch.float64), 2.0, sde=sde)
    found = walk(truth, DDIM(4), 5, dtype=torch.float64)
    assert len(found.states) == 4
    compared = field_agreement(truth, {"itself": truth, "wide": wide}, found.states)
    assert {name for name, _ in compared} == {"itself", "wide"}
    for (name, quantity), levels in compared.items():
        for state, level in zip(found.states, levels, strict=True):
            if name == "itself":
                assert level.correlation == pytest.approx(np.ones(5), abs=1e-9)
                assert level.determination == pytest.approx(np.ones(5), abs=1e-7)
                continue
            images = [f.predict(state.x, state.t, quantity) for f in (wide, truth)]
            assert level.correlation == pytest.approx(np.ones(5), abs=1e-9)
            expected = image_agreement(*images).determination
            assert level.determination == pytest.approx(expected, abs=1e-7)


def test_all_fields_are_evaluated_without_dropout():
    class Noisy(torch.nn.Linear):
        def forward(self, x, label):
            return torch.nn.functional.dropout(super().forward(x), 0.5, self.training)

    field = PreconditionedField(Noisy(8, 8), EDM(), sigma_data=1.0, shape=(1, 8, 8))
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    machines = {"itself": copy.deepcopy(field).train()}
    found = field_agreement(field, machines, [State(0.5, 0.5, images)], ("score",))
    assert found["itself", "score"][0].determination == pytest.approx(np.ones(3), abs=1e-6)
    assert machines["itself"].training


def test_mistakes_name_machine_form_and_level():
    truth = Gaussian(torch.zeros(1, 3, 4), 1.0, sde=EDM())
    flat = Empirical(torch.ones(2, 1, 3, 4), sde=EDM())
    state = State(0.5, 0.5, torch.randn(3, 1, 3, 4))
    with pytest.raises(ValueError, match=r"denoiser of flat at noise level 0.5: image 0"):
        field_agreement(truth, {"flat": flat}, [state], ("denoiser",))


def test_a_walk_visits_the_grid_of_its_sampler():
    """From the prior to the samples, at the field's own times; each step leads to the next."""
    sde = Cosine(t_min=0.1, t_max=0.9)
    field = Gaussian(torch.zeros(1, 2, 2), 0.5, sde=sde)
    found = walk(field, DDIM(5, spacing="time"), 6, seed=3, first=2, dtype=torch.float64)
    assert [s.t for s in found.states] == pytest.approx([0.9, 0.7, 0.5, 0.3, 0.1])
    for state in found.states:
        t = torch.tensor(state.t, dtype=torch.float64)
        assert state.sigma == pytest.approx(float(sde.noise_level(t)))
    for a, b in zip(found.states[:-1], found.states[1:], strict=True):
        scale = float(sde.alpha(torch.tensor(a.t, dtype=torch.float64)))
        x = a.x / scale + (b.sigma - a.sigma) * field.predict_noise(a.x, a.t)
        scale = float(sde.alpha(torch.tensor(b.t, dtype=torch.float64)))
        torch.testing.assert_close(b.x, x * scale)
    last = found.states[-1]
    torch.testing.assert_close(found.samples, field.denoise(last.x, last.t))
    whole = DDIM(5, spacing="time").sample(field, 8, seed=3, dtype=torch.float64)
    torch.testing.assert_close(found.samples, whole[2:])
    with pytest.raises(ValueError, match="no noise levels that all"):
        walk(field, ProbabilityFlow(), 2)
    with pytest.raises(ValueError, match="n must be a positive integer"):
        walk(field, Heun(3), 0)

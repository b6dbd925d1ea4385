"""Truths about fields whose denoiser is clipped."""

import pytest
import torch

import scorefield as sf
from tests.laws.cases import SDES, Wave, normal, times


def fields(sde, **settings):
    field = sf.PreconditionedField(Wave((4,)), sde, sigma_data=2.0)
    return field, sf.ClippedField(field, **settings)


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES.keys())
def test_the_denoiser_is_clipped_and_all_forms_follow(sde):
    field, clipped = fields(sde, low=-0.5, high=1.0)
    t = times(sde, 20)
    x = sde.perturb(2 * normal((20, 4), "x"), t, normal((20, 4), "z"))
    data = field.denoise(x, t).clamp(-0.5, 1.0)
    assert torch.equal(clipped.denoise(x, t), data)
    assert not torch.equal(data, field.denoise(x, t))
    expected = (x - sde.alpha(t)[:, None] * data) / sde.sigma(t)[:, None]
    kept = sde.noise_level(t) > 1e-3
    torch.testing.assert_close(clipped.predict_noise(x, t)[kept], expected[kept])


def test_where_nothing_is_clipped_the_field_is_the_same():
    field, clipped = fields(sf.EDM(), low=-1e4, high=1e4)
    x, t = normal((20, 4), "x").float(), times(sf.EDM(), 20).float()
    for quantity in ("score", "denoiser", "noise"):
        found, expected = clipped.predict(x, t, quantity), field.predict(x, t, quantity)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_data_are_clipped_where_nothing_is_left_of_them():
    sde = sf.DiscreteVP(betas=sf.zero_terminal_snr(sf.DiscreteVP(levels=50).table))
    field = sf.PreconditionedField(Wave((4,)), sde, parametrization=sf.VPrediction())
    x = normal((20, 4), "x")
    # At time 1 the network's v is minus the data, and the points are the noise.
    data = field.denoise(x, 1.0).clamp(-0.1, 0.1)
    clipped = sf.ClippedField(field, -0.1, 0.1)
    torch.testing.assert_close(clipped.denoise(x, 1.0), data)
    torch.testing.assert_close(clipped.predict_noise(x, 1.0), x)
    t = torch.ones(1, dtype=torch.float64)
    expected = sde.alpha_dot(t) * data + sde.sigma_dot(t) * x
    torch.testing.assert_close(clipped.velocity(x, 1.0), expected)


def test_dynamic_thresholding_divides_by_a_quantile():
    """Saharia et al. (2022), section 2.3."""
    field, clipped = fields(sf.EDM(), quantile=0.5)
    x = 3 * normal((5, 4), "x")
    data = field.denoise(x, 0.1)
    for row, found in zip(data, clipped.denoise(x, 0.1), strict=True):
        sizes = sorted(row.abs().tolist())
        bound = max(1.0, (sizes[1] + sizes[2]) / 2)
        torch.testing.assert_close(found, row.clamp(-bound, bound) / bound)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"low": 1.0}, "low must be below high"),
        ({"high": float("nan")}, "high must be finite"),
        ({"quantile": 1.5}, r"quantile must be in \(0, 1\)"),
        ({"low": 0.0, "quantile": 0.9}, "must be centred: low is 0 and not -1"),
    ],
)
def test_bounds_are_in_order(bad, match):
    with pytest.raises(ValueError, match=match):
        fields(sf.EDM(), **bad)

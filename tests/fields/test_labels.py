"""Truths about how networks are told the noise level."""

import pytest
import torch
from torch import nn

from scorefield import (
    VE,
    VP,
    DenoiserPrediction,
    DiscreteVP,
    EDMScaling,
    IndexLabel,
    NoisePrediction,
    PreconditionedField,
    ScorePrediction,
    SigmaLabel,
    TimeLabel,
    VelocityPrediction,
    VPrediction,
)
from scorefield.fields.labels import LogNoiseLabel
from scorefield.fields.parametrization import TablePrediction
from scorefield.sde.tables import alphas_cumprod, sigmas
from tests.laws.cases import SDES, Wave, normal, times


@pytest.fixture(params=SDES.values(), ids=SDES.keys())
def sde(request):
    return request.param


class Told(nn.Module):
    """Says the label that it was given, in every coordinate."""

    event_shape = (2,)

    def forward(self, x, label):
        return label.unsqueeze(1).expand_as(x)


@pytest.mark.parametrize(
    "make",
    [
        NoisePrediction,
        ScorePrediction,
        DenoiserPrediction,
        VPrediction,
        VelocityPrediction,
        lambda x: EDMScaling(1.0, x),
    ],
)
def test_networks_see_the_label_that_was_chosen(sde, make):
    t = times(sde, 9)
    expected = {
        LogNoiseLabel(): sde.noise_level(t).log() / 4,
        SigmaLabel(): sde.sigma(t),
        TimeLabel(): 999 * t,
        TimeLabel(7): 7 * t,
    }
    x = torch.zeros(9, 2, dtype=torch.float64)
    for label, value in expected.items():
        parametrization = make(label)
        c_out = parametrization.coefficients(t, sde).means.noise.of_value
        field = PreconditionedField(Told(), sde, parametrization=parametrization)
        seen = (c_out * value).unsqueeze(1).expand(9, 2)
        torch.testing.assert_close(field.predict_noise(x, t), seen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_index_counts_down_from_the_greatest_level(dtype):
    levels = 232
    t = torch.linspace(0, 1, levels, dtype=dtype)
    found = IndexLabel(levels)(t, VE())
    assert torch.equal(found, torch.arange(levels - 1, -1, -1).to(dtype))
    table = sigmas(0.01, 50.0, levels).flip(0)
    torch.testing.assert_close(VE().sigma(t.double()), table[found.long()], rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(), (5,), (3, 4, 4)], ids=str)
def test_a_table_divides_by_the_deviation_of_the_step_before(shape):
    levels, n = 50, 8
    net = Wave(shape)
    field = PreconditionedField(net, VP(), parametrization=TablePrediction(levels))
    place = torch.tensor([0, 1, 7, 20, 30, 31, 48, 48])
    t = (place + torch.linspace(0.01, 0.9, n, dtype=torch.float64)) / (levels - 1)
    x = normal((n, *shape), "x")
    std = (1 - alphas_cumprod(0.1, 20.0, levels)).sqrt()[place]
    expected = -net(x, (levels - 1) * t) / std.reshape(-1, *(1,) * len(shape))
    torch.testing.assert_close(field.score(x, t), expected, rtol=1e-12, atol=0)


def test_at_the_steps_a_table_predicts_the_noise_of_the_discrete_process():
    levels, t = 50, torch.linspace(0, 1, 50, dtype=torch.float64)
    net, x, sde = Wave((3,)), normal((50, 3), "x"), DiscreteVP(levels=50)
    table, noise = (
        PreconditionedField(net, sde, parametrization=kind)
        for kind in (TablePrediction(levels), NoisePrediction(TimeLabel(levels - 1)))
    )
    torch.testing.assert_close(table.score(x, t), noise.score(x, t), rtol=1e-10, atol=0)
    torch.testing.assert_close(table.predict_noise(x, t), net(x, 49 * t), rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: TimeLabel(0.0), "TimeLabel: scale"),
        (lambda: IndexLabel(1), "levels must be an integer of at least 2, got 1"),
        (lambda: TablePrediction(1), "levels must be an integer of at least 2"),
        (lambda: TablePrediction(20), "levels=20 are too few for beta_max=20"),
        (lambda: TablePrediction(10, 0.1, 12.0), "levels=10 are too few for beta_max=12"),
    ],
)
def test_a_bad_argument_is_an_error_that_names_it(make, match):
    with pytest.raises(ValueError, match=match):
        make()

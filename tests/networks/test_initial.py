import math

import pytest
import torch
from torch import nn

from scorefield.networks.initial import initialize


def test_weights_have_the_variance_of_the_law():
    layer = nn.Sequential(nn.Linear(300, 400), nn.Conv2d(8, 64, 3))
    initialize(layer, seed=0)
    for part, fan_in in zip(layer, (300, 72), strict=True):
        n = part.weight.numel()
        # The variance of the mean square of n uniforms on ±sqrt(3 / fan_in) is 4 / (5 n) of it.
        deviation = float(part.weight.detach().square().mean()) * fan_in - 1
        assert abs(deviation) < 5.5 * math.sqrt(0.8 / n)
        assert float(part.weight.detach().abs().amax()) <= math.sqrt(3 / fan_in)
        assert float(part.bias.detach().abs().amax()) <= 1 / math.sqrt(fan_in)


def test_a_further_layer_leaves_the_others_alone():
    short = nn.Sequential(nn.Linear(3, 4))
    long = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    initialize(short, seed=7)
    initialize(long, seed=7)
    assert torch.equal(short[0].weight, long[0].weight)


def test_refuses_a_layer_without_a_law():
    with pytest.raises(TypeError, match="Bilinear 'pairs'"):
        initialize(nn.ModuleDict({"pairs": nn.Bilinear(3, 4, 5)}), seed=0)

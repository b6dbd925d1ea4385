"""Churn and the two steps, against the algorithm written out by hand."""

import math

import pytest
import torch

from scorefield import EDM, Euler, GaussianMixture, Heun
from scorefield.noise import Noise
from scorefield.samplers.grid import karras_levels

INDEX = torch.tensor([3, 8])


def by_hand(truth, settings, heun):
    """Algorithm 2 of Karras et al., line by line, with the denoiser."""
    noise = Noise(7)
    levels = karras_levels(truth.sde, settings["steps"]).tolist()
    x = truth.sde.sigma_max * noise.normal("prior", (2,), INDEX, dtype=torch.float64)
    for i in range(settings["steps"]):
        gamma = 0.0
        if settings["churn_min"] <= levels[i] <= settings["churn_max"]:
            gamma = min(settings["churn"] / settings["steps"], math.sqrt(2) - 1)
        hat = levels[i] + gamma * levels[i]
        epsilon = noise.normal("churn", (2,), INDEX, step=i, dtype=torch.float64)
        x = x + math.sqrt(hat**2 - levels[i] ** 2) * settings["churn_noise"] * epsilon
        slope = (x - truth.denoise(x, hat)) / hat
        moved = x + (levels[i + 1] - hat) * slope
        if heun and levels[i + 1] > 0:
            end = (moved - truth.denoise(moved, levels[i + 1])) / levels[i + 1]
            moved = x + (levels[i + 1] - hat) * (slope / 2 + end / 2)
        x = moved
    return x


@pytest.mark.parametrize("churn", [0.0, 3.0, 50.0])
@pytest.mark.parametrize("sampler", [Euler, Heun])
def test_it_is_algorithm_2(sampler, churn):
    truth = GaussianMixture.ring(sde=EDM(0.01, 40.0))
    settings = {
        "steps": 9,
        "churn": churn,
        "churn_min": 0.05,
        "churn_max": 30.0,
        "churn_noise": 1.007,
    }
    x = sampler(**settings).sample(truth, index=INDEX, seed=7, dtype=torch.float64)
    expected = by_hand(truth, settings, heun=sampler is Heun)
    assert torch.allclose(x, expected, rtol=0, atol=1e-9)

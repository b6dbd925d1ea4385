"""The conventions of other libraries by their equations, where these are not installed."""

import pytest
import torch
from torch import nn

from scorefield.interop import (
    azula,
    denoising_diffusion_pytorch,
    flow_matching,
    k_diffusion,
    torchcfm,
)

X = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LEVELS = (0.01, 0.3, 2.0, 20.0)


class Net(nn.Module):
    """Sees the whole of its input, and its label."""

    def __init__(self, time_first=False):
        super().__init__()
        self.time_first = time_first
        self.scale = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, x, label):
        x, label = (label, x) if self.time_first else (x, label)
        return torch.sin(self.scale * x + label[:, None])


def made(library, name, parts, parent=nn.Module):
    """An object that has the name and the parts of one of a library."""
    found = type(name, (parent,), {"__module__": f"{library}.module"})()
    for part, value in parts.items():
        setattr(found, part, value)
    return found


def agree(found, expected):
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_a_denoiser_of_k_diffusion_receives_sigma(scale):
    net = Net()
    denoiser = made("k_diffusion", "Denoiser", {"inner_model": net, "sigma_data": scale})
    field = k_diffusion.field_of(denoiser, (2,))
    for level in LEVELS:
        total = level**2 + scale**2
        output = net(X / total**0.5, torch.full((3,), level, dtype=torch.float64))
        expected = scale**2 / total * X + level * scale / total**0.5 * output
        agree(field.denoise(X, level), expected)


@pytest.mark.parametrize("kind", ["KarrasDenoiser", "SimpleDenoiser"])
def test_a_denoiser_of_azula_receives_the_logarithm_of_the_level(kind):
    def schedule(t):
        return 1 - 0.99 * t, 0.01 + 0.99 * t

    net = Net()
    field = azula.field_of(made("azula", kind, {"backbone": net, "schedule": schedule}), (2,))
    for t in (0.0, 0.3, 0.7, 1.0):
        alpha, sigma = map(float, schedule(torch.tensor(t, dtype=torch.float64)))
        total = alpha**2 + sigma**2
        label = torch.full((3,), sigma / alpha, dtype=torch.float64).log()
        expected = net(X / total**0.5, label)
        if kind == "KarrasDenoiser":
            expected = alpha / total * X + sigma / total**0.5 * expected
        agree(field.denoise(X / alpha, sigma / alpha), expected)


@pytest.mark.parametrize("objective", ["pred_noise", "pred_x0", "pred_v"])
def test_a_diffusion_receives_the_index_of_a_step(objective):
    net, betas = Net(), torch.linspace(1e-3, 0.1, 50, dtype=torch.float64)
    parts = {
        "model": net, "betas": betas, "objective": objective, "num_timesteps": 50,
        "channels": 2, "image_size": (), "self_condition": False,
    }  # fmt: skip
    diffusion = made("denoising_diffusion_pytorch", "GaussianDiffusion", parts)
    field = denoising_diffusion_pytorch.field_of(diffusion)
    left = (1 - betas).cumprod(0)
    for step in (0, 10, 30, 49):
        alpha, sigma = left[step].sqrt(), (1 - left[step]).sqrt()
        output = net(X, torch.full((3,), float(step), dtype=torch.float64))
        expected = {
            "pred_noise": (X - sigma * output) / alpha,
            "pred_x0": output,
            "pred_v": alpha * X - sigma * output,
        }[objective]
        agree(field.denoise(X, step / 49), expected)


def test_a_velocity_counts_the_time_from_the_noise():
    scheduler = made("flow_matching", "CondOTScheduler", {}, object)
    path = made("flow_matching", "CondOTProbPath", {"scheduler": scheduler}, object)
    matcher = made("torchcfm", "ConditionalFlowMatcher", {"sigma": 0.0}, object)
    fields = (
        flow_matching.field_of(Net(), path, (2,)),
        torchcfm.field_of(Net(time_first=True), matcher, (2,)),
    )
    for t in (0.02, 0.3, 0.7, 0.98):
        velocity = Net()(X, torch.full((3,), t, dtype=torch.float64))
        for field in fields:
            agree(field.velocity(X, 1 - t), -velocity)
            agree(field.denoise(X, 1 - t), X + (1 - t) * velocity)
            agree(field.predict_noise(X, 1 - t), X - t * velocity)

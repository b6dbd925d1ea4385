"""Models of other libraries, compared with these libraries themselves at four noise levels."""

import math

import pytest
import torch
from torch import nn

import scorefield as sf
from scorefield.fields.claims import claims
from scorefield.interop import (
    azula,
    denoising_diffusion_pytorch,
    flow_matching,
    k_diffusion,
    torchcfm,
)
from scorefield.interop.errors import InteropError
from tests.interop.libraries import library

LEVELS = (0.01, 0.3, 2.0, 20.0)
SHAPE = (2, 4, 4)
K_DIFFUSION = (
    "accelerate", "cleanfid", "clip", "dctorch", "einops", "jsonmerge", "kornia", "skimage",
    "torchdiffeq", "torchsde", "torchvision", "tqdm", "wandb",
)  # fmt: skip
LUCIDRAINS = ("accelerate", "einops", "ema_pytorch", "pytorch_fid", "torchvision", "tqdm")
STEPS = 100
TABLE = torch.linspace(1e-4, 0.05, STEPS, dtype=torch.float64)


class Net(nn.Module):
    """A network that depends on all that it receives."""

    def __init__(self, outputs=1, classes=0):
        super().__init__()
        torch.manual_seed(0)
        self.mixing = nn.Conv2d(2, 2 * outputs, 3, padding=1)
        self.known = nn.Embedding(classes or 1, 2)
        self.channels, self.out_dim, self.self_condition = 2, 2 * outputs, False
        self.random_or_learned_sinusoidal_cond = False

    def forward(self, x, label, classes=None):
        hidden = torch.tanh(x + torch.sin(label.to(x))[:, None, None, None])
        if classes is not None:
            hidden = hidden + self.known(classes)[:, :, None, None]
        return self.mixing(hidden)


class Named(Net):
    """The same, with classes by name."""

    def forward(self, x, label, class_cond=None):
        return super().forward(x, label, class_cond)


class TimeFirst(Net):
    """The same, in the order of torchcfm."""

    def forward(self, t, x, y=None):
        return super().forward(x, t, y)


def points(level, n=3):
    return level * torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def convention(field):
    return dict(claims(field))["convention"]


def agree(found, expected, limit=1e-5):
    found = found.detach().double()
    torch.testing.assert_close(found, expected.double(), rtol=limit, atol=limit)


@pytest.mark.parametrize("sigma_data", [1.0, 0.5])
def test_a_denoiser_of_k_diffusion(sigma_data):
    denoiser = library("k_diffusion.layers", *K_DIFFUSION).Denoiser(Net(), sigma_data)
    field = k_diffusion.field_of(denoiser, SHAPE)
    for level in LEVELS:
        x = points(level)
        with torch.no_grad():
            agree(field.denoise(x, level), denoiser(x, torch.full((3,), level)))
    assert f"Denoiser: receives sigma, predicts the scaled data, sigma_data {sigma_data:g}" == (
        convention(field)
    )


@pytest.mark.parametrize("kind", ["VDenoiser", "DiscreteEpsDDPMDenoiser", "DiscreteVDDPMDenoiser"])
def test_the_other_denoisers_of_k_diffusion(kind):
    made = getattr(library("k_diffusion.external", *K_DIFFUSION), kind)
    table = () if kind == "VDenoiser" else ((1 - TABLE).cumprod(0).float(),)
    denoiser = made(Net(), *table, *(() if kind == "VDenoiser" else (False,)))
    field = k_diffusion.field_of(denoiser, SHAPE)
    for level in LEVELS:
        level = min(max(level, field.sde.t_min), field.sde.t_max)
        x = points(level)
        with torch.no_grad():
            agree(field.denoise(x, level), denoiser(x, torch.full((3,), level)))


def test_a_denoiser_for_models_of_openai_with_a_learned_variance():
    external = library("k_diffusion.external", *K_DIFFUSION)
    diffusion = type("Diffusion", (), {"alphas_cumprod": (1 - TABLE).cumprod(0).numpy()})
    denoiser = external.OpenAIDenoiser(Net(outputs=2), diffusion)
    field = k_diffusion.field_of(denoiser, SHAPE)
    x = points(1.0)
    with torch.no_grad():
        agree(field.denoise(x, 1.0), denoiser(x, torch.ones(3)))


def test_classes_of_a_denoiser_of_k_diffusion():
    denoiser = library("k_diffusion.layers", *K_DIFFUSION).Denoiser(Named(classes=4))
    field = k_diffusion.field_of(denoiser, SHAPE, classes=4)
    x, classes = points(1.0), torch.tensor([0, 3, 1])
    with torch.no_grad():
        agree(field.denoise(x, 1.0, classes), denoiser(x, torch.ones(3), class_cond=classes))
    with pytest.raises(ValueError, match="needs their classes"):
        field.denoise(x, 1.0)


def test_quantised_times_are_refused():
    external = library("k_diffusion.external", *K_DIFFUSION)
    denoiser = external.DiscreteEpsDDPMDenoiser(Net(), (1 - TABLE).cumprod(0).float(), True)
    with pytest.raises(InteropError, match="piecewise constant in time"):
        k_diffusion.field_of(denoiser, SHAPE)


@pytest.mark.parametrize("kind", ["KarrasDenoiser", "SimpleDenoiser"])
@pytest.mark.parametrize(
    "schedule", ["VESchedule", "VPSchedule", "CosineSchedule", "RectifiedSchedule", "DecaySchedule"]
)
def test_denoisers_of_azula(kind, schedule):
    denoise, noise = library("azula.denoise", "einops"), library("azula.noise", "einops")
    denoiser = getattr(denoise, kind)(Net().double(), getattr(noise, schedule)())
    field = azula.field_of(denoiser, SHAPE)
    for t in (0.0, 0.3, 0.7, 1.0):
        alpha, sigma = denoiser.schedule(torch.tensor([t], dtype=torch.float64))
        x = points(float(sigma)).double()
        with torch.no_grad():
            expected = denoiser(x, torch.full((3,), t, dtype=torch.float64)).mean
            found = field.denoise(x / float(alpha), float(sigma / alpha))
        agree(found, expected, 1e-9)
    assert convention(field).startswith(f"{kind}: receives ln(sigma / alpha) from ")
    assert schedule in convention(field)


@pytest.mark.parametrize("betas", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("objective", ["pred_noise", "pred_x0", "pred_v"])
def test_diffusions_of_denoising_diffusion_pytorch(objective, betas):
    made = library(
        "denoising_diffusion_pytorch.denoising_diffusion_pytorch", *LUCIDRAINS
    ).GaussianDiffusion
    diffusion = made(
        Net(), image_size=4, timesteps=STEPS, objective=objective, beta_schedule=betas
    ).eval()
    field = denoising_diffusion_pytorch.field_of(diffusion)
    for step in (0, 20, 60, 90):
        x = points(1.0)
        with torch.no_grad():
            noise, data = diffusion.model_predictions(x, torch.full((3,), step))
            t = step / (STEPS - 1)
            limit = 1e-5 / float(field.sde.sigma(torch.tensor(t)))
            agree(field.predict_noise(x.double(), t), noise, limit)
            alpha = float(field.sde.alpha(torch.tensor(t)))
            agree(field.denoise(x.double(), t), data, 1e-5 / alpha)
    assert objective in convention(field)


def test_a_learned_variance_of_denoising_diffusion_pytorch():
    made = library(
        "denoising_diffusion_pytorch.learned_gaussian_diffusion", *LUCIDRAINS
    ).LearnedGaussianDiffusion
    net = Net(outputs=2)
    diffusion = made(net, image_size=4, timesteps=STEPS, objective="pred_noise").eval()
    field, x = denoising_diffusion_pytorch.field_of(diffusion), points(1.0)
    with torch.no_grad():
        steps = torch.full((3,), 50)
        expected, *_ = diffusion.p_mean_variance(x=x, t=steps, clip_denoised=False)
        data = field.denoise(x, 50 / (STEPS - 1))
    agree(diffusion.q_posterior(data, x, steps)[0], expected)


def test_an_elucidated_diffusion():
    made = library(
        "denoising_diffusion_pytorch.elucidated_diffusion", *LUCIDRAINS
    ).ElucidatedDiffusion
    net = Net()
    net.random_or_learned_sinusoidal_cond = True
    diffusion = made(net, image_size=4, channels=2).eval()
    field = denoising_diffusion_pytorch.field_of(diffusion)
    for level in LEVELS:
        x = points(level)
        with torch.no_grad():
            agree(field.denoise(x, level), diffusion.preconditioned_network_forward(x, level))


def test_what_makes_no_score_in_denoising_diffusion_pytorch_is_refused():
    made = library(
        "denoising_diffusion_pytorch.denoising_diffusion_pytorch", *LUCIDRAINS
    ).GaussianDiffusion
    for setting, value in (("offset_noise_strength", 0.1), ("immiscible", True)):
        diffusion = made(Net(), image_size=4, timesteps=STEPS, **{setting: value})
        with pytest.raises(InteropError, match=rf"{setting} is .* no score"):
            denoising_diffusion_pytorch.field_of(diffusion)
    net = Net()
    net.self_condition = True
    with pytest.raises(InteropError, match="receives its own last prediction"):
        denoising_diffusion_pytorch.field_of(made(net, image_size=4, timesteps=STEPS))


@pytest.mark.parametrize("scheduler", ["CondOTScheduler", "VPScheduler", "CosineScheduler"])
def test_velocities_of_flow_matching(scheduler):
    path = library("flow_matching.path.affine", "torchdiffeq").AffineProbPath(
        getattr(library("flow_matching.path.scheduler.scheduler"), scheduler)()
    )
    net = Net()
    field = flow_matching.field_of(net, path, SHAPE)
    for t in (0.02, 0.3, 0.7, 0.98):
        x, own = points(1.0).double(), torch.tensor(t, dtype=torch.float64)
        with torch.no_grad():
            velocity = net(x.float(), own.float().expand(3)).double()
            noise = path.velocity_to_epsilon(velocity, x, own)
            agree(field.velocity(x, 1 - t), -velocity)
            agree(field.denoise(x, 1 - t), path.velocity_to_target(velocity, x, own), 1e-4)
            agree(field.predict_noise(x, 1 - t), noise, 1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "ConditionalFlowMatcher",
        "TargetConditionalFlowMatcher",
        "VariancePreservingConditionalFlowMatcher",
    ],
)
def test_velocities_of_torchcfm(name):
    cfm = library("torchcfm.conditional_flow_matching", "ot")
    matcher, net = getattr(cfm, name)(), TimeFirst()
    field = torchcfm.field_of(net, matcher, SHAPE)
    data, noise = points(1.0).double(), points(1.0, 6)[3:].double()
    for t in (0.02, 0.3, 0.7, 0.98):
        own = torch.full((3,), t, dtype=torch.float64)
        with torch.no_grad():
            agree(field.velocity(data, 1 - t), -net(own.float(), data.float()))
        # Its points and velocities are those of the process, from the other end.
        x = matcher.sample_xt(noise, data, own, noise)
        agree(field.sde.perturb(data, 1 - own, noise), x)
        expected = matcher.compute_conditional_flow(noise, data, own, x)
        s = torch.tensor(1 - t, dtype=torch.float64)
        found = field.sde.alpha_dot(s) * data + field.sde.sigma_dot(s) * noise
        agree(found, -expected)


def test_the_networks_of_torchcfm():
    cfm = library("torchcfm.conditional_flow_matching", "ot")
    models = library("torchcfm.models.models", "ot")
    net = models.MLP(dim=2, time_varying=True)
    field, x = torchcfm.field_of(net, cfm.ConditionalFlowMatcher(), (2,)), torch.randn(5, 2)
    with torch.no_grad():
        expected = net(torch.cat([x, torch.full((5, 1), 0.25)], dim=1))
    agree(field.velocity(x, 0.75), -expected)
    with pytest.raises(InteropError, match="MLP receives no time"):
        torchcfm.field_of(models.MLP(dim=2), cfm.ConditionalFlowMatcher(), (2,))
    classes, net = torch.tensor([0, 3, 1]), TimeFirst(classes=4)
    field, x = torchcfm.field_of(net, cfm.ConditionalFlowMatcher(), SHAPE, classes=4), points(1.0)
    with torch.no_grad():
        expected = net(torch.full((3,), 0.25), x, classes)
    agree(field.velocity(x, 0.75, classes), -expected)


def test_matchers_without_a_score_are_refused():
    cfm = library("torchcfm.conditional_flow_matching", "ot")
    with pytest.raises(InteropError, match=r"has sigma 0\.1: only with sigma 0"):
        torchcfm.field_of(TimeFirst(), cfm.ConditionalFlowMatcher(0.1), SHAPE)
    with pytest.raises(InteropError, match=r"ExactOptimal.* its velocity determines no score"):
        torchcfm.field_of(TimeFirst(), cfm.ExactOptimalTransportConditionalFlowMatcher(), SHAPE)


def test_a_scheduler_without_a_process_is_refused():
    path = library("flow_matching.path.affine", "torchdiffeq")
    scheduler = library("flow_matching.path.scheduler.scheduler")
    bent = path.AffineProbPath(scheduler.PolynomialConvexScheduler(2))
    with pytest.raises(InteropError, match="PolynomialConvexScheduler has no process here"):
        flow_matching.field_of(Net(), bent, SHAPE)


class Denoiser(nn.Module):
    """No denoiser of k-diffusion, in spite of its name."""


@pytest.mark.parametrize("thing", [Denoiser(), nn.Linear(2, 2), None, "model.pt"])
@pytest.mark.parametrize(
    ("refused", "match"),
    [
        (lambda x: k_diffusion.field_of(x, SHAPE), "is no denoiser of k-diffusion"),
        (lambda x: azula.field_of(x, SHAPE), "is no denoiser of azula"),
        (denoising_diffusion_pytorch.field_of, "is no diffusion of denoising_diffusion_pytorch"),
        (lambda x: flow_matching.field_of(Net(), x, SHAPE), "has no process here"),
        (lambda x: torchcfm.field_of(TimeFirst(), x, SHAPE), "is none of ConditionalFlowMatcher"),
    ],
)
def test_other_things_are_one_sentence(thing, refused, match):
    with pytest.raises(InteropError, match=match):
        refused(thing)


def test_a_network_of_a_library_is_sampled_with_and_printed():
    denoiser = library("k_diffusion.layers", *K_DIFFUSION).Denoiser(Net())
    field = k_diffusion.field_of(denoiser, SHAPE, sf.EDM(0.02, 10.0))
    assert sf.Heun(3).sample(field, 2, seed=0).shape == (2, *SHAPE)
    assert "receives sigma, predicts the scaled data" in repr(field)
    assert math.isclose(field.sde.sigma_max, 10.0)

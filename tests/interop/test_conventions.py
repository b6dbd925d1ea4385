"""The conventions of other libraries, as arguments of wrap, compared with those libraries."""

import pytest
import torch
from torch import nn

import scorefield as sf
from tests.laws.cases import normal

DATA, NOISE = normal((4, 1, 4, 4), "data").float(), normal((4, 1, 4, 4), "noise").float()
SHAPE = (1, 4, 4)


class Inner(nn.Module):
    """A network that depends on its input and its label; the attributes are those that others ask
    for.
    """

    channels = out_dim = 1
    self_condition = False

    def forward(self, x, label, condition=None):
        return torch.sin(x + 0.1 * label.reshape(-1, 1, 1, 1)) + 0.3 * x.flip(-1)


class Target:
    """What a network that has learned one pair of data and noise gives there."""

    def __init__(self, output):
        self.output = output

    def __call__(self, x, label):
        self.label = label
        return self.output if len(x) == len(self.output) else torch.zeros_like(x)


def check_pair(field, x, t):
    torch.testing.assert_close(field.denoise(x, t), DATA, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(field.predict_noise(x, t), NOISE, rtol=1e-4, atol=1e-5)


TIMES = torch.tensor([0.05, 0.3, 0.6, 0.95])
"""With the data at time 1."""


def test_flow_matching():
    path = pytest.importorskip("flow_matching.path")
    sample = path.CondOTProbPath().sample(x_0=NOISE, x_1=DATA, t=TIMES)
    net = Target(sample.dx_t)
    field = sf.wrap(net, shape=SHAPE, predicts="velocity", time="1-t")
    check_pair(field, sample.x_t, 1 - TIMES)
    torch.testing.assert_close(net.label, TIMES)


def test_torchcfm():
    flows = pytest.importorskip("torchcfm.conditional_flow_matching")
    matcher = flows.ConditionalFlowMatcher(sigma=0.0)
    x = matcher.sample_xt(NOISE, DATA, TIMES, torch.zeros_like(NOISE))
    net = Target(matcher.compute_conditional_flow(NOISE, DATA, TIMES, x))
    field = sf.wrap(net, shape=SHAPE, predicts="velocity", time="1-t")
    check_pair(field, x, 1 - TIMES)
    torch.testing.assert_close(net.label, TIMES)


@pytest.mark.parametrize("betas", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("predicts", ["noise", "denoiser", "v"])
def test_denoising_diffusion_pytorch(betas, predicts):
    theirs = pytest.importorskip("denoising_diffusion_pytorch.denoising_diffusion_pytorch")
    objective = {"noise": "pred_noise", "denoiser": "pred_x0", "v": "pred_v"}[predicts]
    model = theirs.GaussianDiffusion(
        Inner(), image_size=4, timesteps=1000, objective=objective, beta_schedule=betas
    )
    field = sf.wrap(Inner(), shape=SHAPE, predicts=predicts, time="index:1000", betas=betas)
    steps = torch.tensor([20, 300, 600, 900])
    x = model.q_sample(DATA, steps, NOISE)
    found = model.model_predictions(x, steps)
    t = steps / 999
    # Their products and conversions are in single precision.
    for ours, other in (
        (field.denoise, found.pred_x_start),
        (field.predict_noise, found.pred_noise),
    ):
        torch.testing.assert_close(ours(x, t), other, rtol=1e-3, atol=1e-3)


LEVELS = torch.tensor([0.05, 0.3, 2.0, 20.0])


def wrapped_by_k_diffusion(kind):
    """A denoiser of k-diffusion, and the field of what is in it."""
    external = pytest.importorskip("k_diffusion.external")
    layers = pytest.importorskip("k_diffusion.layers")
    if kind == "v":
        sde = sf.Cosine(offset=0.0, margin=0.0, t_max=0.999)
        return external.VDenoiser(Inner()), sf.wrap(
            Inner(), shape=SHAPE, predicts="v", time="t", sde=sde
        )
    if kind == "eps":
        field = sf.wrap(Inner(), shape=SHAPE, predicts="noise", time="index:1000", betas="linear")
        products = (1 - field.sde.table).cumprod(0).float()
        return external.DiscreteEpsDDPMDenoiser(Inner(), products, quantize=False), field
    scaling = sf.EDMScaling(1.0, sf.SigmaLabel())
    field = sf.PreconditionedField(Inner(), sf.EDM(), parametrization=scaling, shape=SHAPE)
    return layers.Denoiser(Inner(), sigma_data=1.0), field


@pytest.mark.parametrize("kind", ["v", "eps", "karras"])
def test_k_diffusion(kind):
    theirs, inner = wrapped_by_k_diffusion(kind)
    sigma, t = LEVELS, inner.sde.time(LEVELS)
    if kind == "eps":  # exact at the steps of the table
        t = (t * 999).round() / 999
        sigma = inner.sde.noise_level(t)
    x = DATA + sigma.reshape(-1, 1, 1, 1) * NOISE
    expected = theirs(x, sigma)
    outer = sf.wrap(theirs, shape=SHAPE, predicts="denoiser", time="sigma")
    torch.testing.assert_close(outer.denoise(x, sigma), expected, rtol=1e-5, atol=1e-5)
    scaled = inner.sde.alpha(t).reshape(-1, 1, 1, 1) * x
    torch.testing.assert_close(inner.denoise(scaled, t), expected, rtol=1e-3, atol=1e-3)

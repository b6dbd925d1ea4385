"""Networks in closed form, in the conventions of others: each gives what a perfect one would."""

import torch
from torch import nn

import scorefield as sf

SHAPE = (3, 4, 4)


def colours(n=400, seed=0, std=0.2):
    """A mixture of four images whose channels differ, and a source of points of it."""
    generator = torch.Generator().manual_seed(seed)
    means = 0.6 * torch.randn(4, 48, generator=generator, dtype=torch.float64)
    means[:, :16] += 0.5
    law = sf.GaussianMixture(means, std)
    points = [law.sample(n, seed=s, dtype=torch.float32).reshape(n, *SHAPE) for s in (1, 2)]
    return law, sf.ArraySource(*points, "colours")


class Exact(nn.Module):
    """A network that predicts a quantity of a law, at the time that its label stands for."""

    def __init__(self, law, sde, gives, time):
        super().__init__()
        self.law, self.gives, self.time = law.under(sde), gives, time

    def forward(self, x, label):
        sde, flat = self.law.sde, x.double().flatten(1)
        t = self.time(label.double()).clamp(sde.t_min, sde.t_max)
        alpha, sigma = (v(t)[:, None] for v in (sde.alpha, sde.sigma))
        noise, clean = self.law.predict_noise(flat, t), self.law.denoise(flat, t)
        found = {
            "noise": noise,
            "denoiser": clean,
            "v": alpha * noise - sigma * clean,
            "velocity": noise - clean,
        }[self.gives]
        return found.reshape(x.shape).to(x.dtype)


class Scaled(nn.Module):
    """A network with EDM's scaling for the data of a law, which receives a label of its choice."""

    def __init__(self, law, sigma_data, sigma):
        super().__init__()
        self.law, self.sigma_data, self.sigma = law.under(sf.EDM()), sigma_data, sigma

    def forward(self, u, label):
        sigma = self.sigma(label.double()).clamp(0.002, 80.0)[:, None]
        scale = (sigma**2 + self.sigma_data**2).sqrt()
        x = u.double().flatten(1) * scale
        rest = self.law.denoise(x, sigma[:, 0]) - (self.sigma_data / scale) ** 2 * x
        return (rest * scale / (sigma * self.sigma_data)).reshape(u.shape).to(u.dtype)


class Via(nn.Module):
    """A network that sees another label, and whose output is changed."""

    def __init__(self, net, label=lambda label: label, output=lambda y: y):
        super().__init__()
        self.net, self.label, self.output = net, label, output

    def forward(self, x, label):
        return self.output(self.net(x, self.label(label)))


def steps(law, gives="noise", betas="linear"):
    """A network that counts a thousand steps."""
    return Exact(law, sf.DiscreteVP(betas=betas), gives, lambda label: label / 999)


def flow(law):
    """A network that gives the velocity at times from 0 to 1."""
    return Exact(law, sf.RectifiedFlow(), "velocity", lambda label: label)


def edm(law, sigma_data):
    """A network in EDM's convention."""
    return Scaled(law, sigma_data, lambda label: (4 * label).exp())


def claim(net, **changed):
    """A network claimed to predict the noise of a thousand steps, but for what is changed."""
    usual = {"shape": SHAPE, "predicts": "noise", "time": "index:1000", "betas": "linear"}
    return sf.wrap(net.eval(), **{**usual, **changed})


def claim_edm(net, sigma_data, label=None):
    """A network claimed to be in EDM's convention."""
    scaling = sf.EDMScaling(sigma_data) if label is None else sf.EDMScaling(sigma_data, label)
    return sf.PreconditionedField(net, sf.EDM(), parametrization=scaling, shape=SHAPE)

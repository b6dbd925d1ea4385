"""The network of five parameters whose losses and trainings were recorded."""

import torch
from torch import nn

from scorefield import (
    VE,
    VP,
    IndexLabel,
    NoisePrediction,
    PreconditionedField,
    ScorePrediction,
    SigmaLabel,
    TimeLabel,
)
from scorefield.fields.parametrization import TablePrediction

LEVELS = 1000


class Linear(nn.Module):
    """a x + b[channel] log(1 + label) / 5 + d."""

    event_shape = (3, 4, 4)

    def __init__(self, a, b, d):
        super().__init__()
        self.a, self.b, self.d = (nn.Parameter(torch.as_tensor(p).clone()) for p in (a, b, d))

    def forward(self, x, label):
        shift = self.b[None, :, None, None] * torch.log1p(label)[:, None, None, None] / 5
        return self.a * x + shift + self.d

    def flat(self):
        """The parameters in the order in which they were recorded."""
        return torch.cat([self.a.reshape(1), self.b, self.d.reshape(1)])

    def gradient(self):
        return torch.cat([self.a.grad.reshape(1), self.b.grad, self.d.grad.reshape(1)])


def network(arrays):
    return Linear(*(torch.as_tensor(arrays[f"net_{name}"]) for name in "abd"))


def continuous(net, process):
    """The network as a field that was trained at all times from 1e-5."""
    if process == "ve":
        sde, parametrization = VE(0.01, 50.0, t_min=1e-5), ScorePrediction(SigmaLabel())
    else:
        sde, parametrization = VP(0.1, 20.0, t_min=1e-5), NoisePrediction(TimeLabel(999.0))
    return PreconditionedField(net, sde, parametrization=parametrization)


def discrete(net, process):
    """The network as a field that was trained on the steps of a table."""
    if process == "ve":
        sde, parametrization = VE(0.01, 50.0), ScorePrediction(IndexLabel(LEVELS))
    else:
        sde, parametrization = VP(0.1, 20.0), TablePrediction(LEVELS, 0.1, 20.0)
    return PreconditionedField(net, sde, parametrization=parametrization)

"""The perceptron of two pseudo-atoms that reference values were recorded with."""

import itertools

import torch
from torch import nn
from torch.nn import functional as F

from scorefield import VE, ScoreField
from tests.conformance.reference import load, tensor

PROCESS = VE(0.001, 0.2)


class Perceptron(nn.Module):
    """The noise-scaled score σ s of two atoms on a line of length one, averaged over their order.

    Its state dict is the published one. What it is told besides the coordinates never changes:
    both atoms are of the first of two types, and the lattice has length one.
    """

    def __init__(self, state):
        super().__init__()
        self.weights = nn.ParameterDict({k.replace(".", "/"): v for k, v in state.items()})

    def linear(self, name, x):
        return F.linear(x, self.weights[f"{name}/weight"], self.weights[f"{name}/bias"])

    def forward(self, x, t, sigma):
        orders = [list(p) for p in itertools.permutations(range(x.shape[1]))]
        # The output goes back with the inverse of the order in which the atoms came in.
        outputs = [self.ordered(x[:, p], t, sigma)[:, torch.tensor(p).argsort()] for p in orders]
        return torch.stack(outputs).mean(dim=0)

    def ordered(self, x, t, sigma):
        batch, atoms, _ = x.shape
        angle = 2 * torch.pi * x.flatten(1)
        waves = torch.cat((angle.cos(), angle.sin()), dim=1)
        types = F.one_hot(torch.zeros(batch, atoms, dtype=torch.int64), 2).to(x.dtype)
        parts = (
            self.linear("relative_coordinates_embedding_layer", waves),
            self.linear("noise_embedding_layer", sigma.unsqueeze(1)),
            self.linear("time_embedding_layer", t.unsqueeze(1)),
            self.linear("atom_type_embedding_layer", types).flatten(1),
            self.linear("lattice_parameters_embedding_layer", torch.ones_like(x[:, :1, 0])),
        )
        h = self.linear("mlp_layers/0", torch.cat(parts, dim=1))
        for layer in (1, 2):
            h = self.linear(f"mlp_layers/{layer}", F.silu(h))
        return self.linear("output_X_layer", h).reshape(x.shape)


class PerceptronField(ScoreField):
    """The perceptron as a field of its process."""

    def __init__(self, state, domain):
        super().__init__(PROCESS, domain)
        self.network = Perceptron(state)

    def score(self, x, t, classes=None):
        t = torch.as_tensor(t, dtype=x.dtype).expand(x.shape[0])
        sigma = self.sde.sigma(t)
        return self.network(x, t, sigma) / sigma.reshape(-1, 1, 1)


def recorded(name):
    """The arrays of a file in float64, and the state dict among them."""
    arrays = {k: tensor(v) for k, v in load(name, "toy").items()}
    state = {k.removeprefix("sd::"): v for k, v in arrays.items() if k.startswith("sd::")}
    return {k: v for k, v in arrays.items() if not k.startswith("sd::")}, state


def close(found, expected, tolerance=1e-10):
    """Equal, relative to the largest value."""
    found, expected = found.detach().double(), torch.as_tensor(expected).double()
    assert found.shape == expected.shape
    assert float((found - expected).abs().amax() / expected.abs().amax()) <= tolerance

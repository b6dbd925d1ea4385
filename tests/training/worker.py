"""A small training that a test runs in a process of its own, to be killed or starved there."""

from pathlib import Path

import torch
import torch._dynamo  # the first optimiser of a process imports it: better once, in the server

from scorefield import (
    EDM,
    MLP,
    BalancedWeight,
    CycleCirculation,
    DenoisingScoreMatching,
    Fit,
    GaussianMixture,
    Objective,
    Optim,
    PreconditionedField,
    fit,
)
from tests.training.disk import Operations

torch.set_num_threads(1)

STEPS = 150
LOG_EVERY = 7
CHECKPOINT_EVERY = 10


def train(folder, steps=STEPS, hidden=8, **settings) -> Fit:
    """A training with every kind of state: moments, an average, a controller, dropout."""
    truth = GaussianMixture.ring()
    network = Noisy(MLP(2, hidden=hidden, depth=1, embedding=4))
    field = PreconditionedField(network, EDM(), sigma_data=truth.std)
    cycles = CycleCirculation(weight=BalancedWeight(1e-6, 1.0, 10.0), points=16, cycles=8, every=2)
    objective = Objective(DenoisingScoreMatching(sigma_data=truth.std), [cycles])
    defaults = {
        "optim": Optim(lr=1e-2, warmup=20, decay="cosine", clip=1.0),
        "batch_size": 16,
        "log_every": LOG_EVERY,
        "checkpoint_every": CHECKPOINT_EVERY,
        "seed": 3,
        "config": {"name": "tiny"},
        "quiet": True,
        "keep": None,
    }
    return fit(
        field, truth, objective=objective, steps=steps, folder=folder, **(defaults | settings)
    )


class Noisy(torch.nn.Module):
    """A network behind dropout."""

    def __init__(self, network):
        super().__init__()
        self.event_shape = network.event_shape
        self.dropout = torch.nn.Dropout(0.1)
        self.network = network

    def forward(self, x, label):
        return self.network(self.dropout(x), label)


def main(connection, folder, fate=None, at=0, settings=None):
    """Trains, and sends how it ended: the number of disk operations, or the error.

    ``fate`` befalls the disk operation number ``at``: ``"kill"``, ``"stop"`` (asked politely), or
    ``"full"`` from there on.
    """
    operations = Operations(fate, at)
    operations.watch()
    try:
        train(Path(folder), **(settings or {}))
        connection.send(("finished", operations.count))
    except Exception as error:
        connection.send((type(error).__name__, str(error)))

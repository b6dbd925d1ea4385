r"""Training of classifiers of noisy images, which guide fields towards a class.

A classifier sees :math:`\hat x = x_0 + \lambda\varepsilon` and the noise level
:math:`\lambda = \sigma / \alpha`. By its cross-entropy over classes, points, levels and noise it
learns :math:`p(c \mid \hat x, \lambda)`: how good it can be falls with the level, down to chance.

References:
    Score-based generative modeling through stochastic differential equations (Song et al., 2021),
    appendix I.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from scorefield.data import LabelledSource
from scorefield.errors import CheckpointError, TrainingError, UserError
from scorefield.estimate import Estimate
from scorefield.networks import NoiseClassifier
from scorefield.noise import Lookahead, Noise
from scorefield.objectives import LogUniform, NoiseLaw
from scorefield.sde import SDE
from scorefield.training.checkpoint import Weights, load_weights
from scorefield.training.stored import digest_of, one_thread, read, share, store

_FORMAT = "scorefield noise classifier 1"
_LEVELS = 7
_NUMBERS_AHEAD = 2**20


@dataclass(frozen=True)
class TrainedNoiseClassifier:
    """A classifier of noisy images and what is known of it.

    Attributes:
        network: The classifier, in evaluation mode.
        accuracy: For each of some noise levels the share of held-out points that it puts into
            their class there, each point seen once.
        sizes: The arguments that the network was made with.
        training: What it was trained on and how.
    """

    network: NoiseClassifier
    accuracy: dict[float, Estimate]
    sizes: dict[str, Any]
    training: dict[str, Any]


def train_noise_classifier(
    source: LabelledSource,
    sde: SDE,
    *,
    sizes: Mapping[str, int | float] | None = None,
    law: NoiseLaw | None = None,
    steps: int = 5_000,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> TrainedNoiseClassifier:
    r"""Trains a classifier of the noisy training points of a data set.

    Adam, with a learning rate that falls to zero as a cosine. Weights, order, levels and noise are
    functions of the seed, and on a CPU one thread does all the sums, so that the same machine gives
    the same weights whatever else it is set to.

    Arguments:
        source: Images with classes.
        sde: The process, which sets the range of the noise levels.
        sizes: The sizes of the network, as arguments of
            :class:`~scorefield.networks.classifier.NoiseClassifier`.
        law: The distribution of the noise levels; uniform in their logarithm by default.
        steps: The number of steps.
        batch_size: The number of points a step.
        lr: The first learning rate.
        seed: The seed of everything random.
        device: Where it is trained; the network is returned on the CPU.

    Raises:
        ValueError: If the data are not images, there are no held-out points, or a number is not
            positive.
        TrainingError: If the loss does not stay finite.
    """
    for name, number in {"steps": steps, "batch_size": batch_size, "lr": lr}.items():
        if not number > 0:
            raise UserError(f"{name} must be positive, got {number}")
    if len(source.labelled("test")[0]) < 2:
        raise UserError(f"{source.name}: an accuracy needs held-out points")
    law = LogUniform() if law is None else law
    made: dict[str, Any] = {
        "shape": list(source.shape),
        "classes": source.classes,
        **({} if sizes is None else sizes),
    }
    network = NoiseClassifier(**made, seed=seed).to(device)
    noise, index = Noise(seed), torch.arange(batch_size)

    def draw(steps: Tensor) -> tuple[Tensor, ...]:
        at = steps.squeeze(1)
        time = law.times(sde, noise, index, steps, "classifier/time")
        level = sde.noise_level(time).float()
        z = noise.normal("classifier/perturbation", source.shape, index, steps)
        x = source.batch(noise, at, batch_size)
        noisy = x + level.reshape(*level.shape, *(1,) * (x.dim() - 2)) * z
        return noisy, level, source.batch_classes(noise, at, batch_size)

    numbers = batch_size * math.prod(source.shape)
    ahead = Lookahead(draw, max(1, min(32, steps, _NUMBERS_AHEAD // numbers)))
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with one_thread(), torch.enable_grad():
        for step in range(steps):
            x, level, labels = (d.to(device) for d in ahead(step))
            loss = F.cross_entropy(network(x, level), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
    final = float(loss.detach())
    if not math.isfinite(final):
        raise TrainingError(
            f"the noise classifier of {source.name} has the loss {final} after {steps} steps"
        )
    network.eval().requires_grad_(False)
    about = {
        "data": source.name,
        "data_sha256": digest_of(source),
        "sde": repr(sde),
        "law": repr(law),
        "seed": seed,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": lr,
    }
    low, high = math.log(sde.sigma_min), math.log(sde.sigma_max)
    levels = torch.linspace(low, high, _LEVELS, dtype=torch.float64).exp().tolist()
    accuracy = {level: accuracy_at(network, source, level, seed) for level in levels}
    return TrainedNoiseClassifier(network.cpu(), accuracy, made, about)


def accuracy_at(
    network: NoiseClassifier, source: LabelledSource, noise_level: float, seed: int = 0
) -> Estimate:
    """The share of held-out points, seen once each in noise, that are put into their class.

    Arguments:
        network: The classifier, in evaluation mode.
        source: Images with classes.
        noise_level: The noise level, in units of the data.
        seed: The seed of the noise; points have the same at every level.
    """
    x, labels = source.labelled("test")
    z = Noise(seed).normal("classifier/held out", source.shape, torch.arange(len(x)))
    noisy, level = x + noise_level * z, torch.full((len(x),), noise_level)
    device = next(network.parameters()).device
    with torch.no_grad():
        blocks = zip(noisy.split(1024), level.split(1024), strict=True)
        found = [network(u.to(device), v.to(device)).argmax(dim=1).cpu() for u, v in blocks]
    return share(torch.cat(found) == labels)


def store_noise_classifier(trained: TrainedNoiseClassifier, path: str | Path) -> None:
    """Writes a classifier into a file, whole or not at all.

    Raises:
        CheckpointError: If that fails.
    """
    about = {
        "format": _FORMAT,
        "sizes": trained.sizes,
        "training": trained.training,
        "accuracy": [[level, asdict(found)] for level, found in trained.accuracy.items()],
    }
    store(trained.network, about, Path(path))


def read_noise_classifier(path: str | Path) -> TrainedNoiseClassifier:
    """Reads a classifier and checks all of it.

    Raises:
        CheckpointError: If it cannot be read, is damaged, or is something else.
    """
    path = Path(path)
    tensors, about = read(path, _FORMAT, "noise classifier")
    try:
        network, training = NoiseClassifier(**about["sizes"]), about["training"]
        accuracy = {float(level): Estimate(**found) for level, found in about["accuracy"]}
        weights = Weights(tensors, training["steps"], None)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is not a noise classifier of this version ({type(error).__name__}: {error})"
        ) from error
    load_weights(network, weights, path)
    network.eval().requires_grad_(False)
    return TrainedNoiseClassifier(network, accuracy, about["sizes"], training)

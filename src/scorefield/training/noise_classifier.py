r"""A classifier of noisy images, which guides.

It sees :math:`\hat x = x_0 + \lambda\varepsilon` and the noise level
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

from scorefield.checks import check_count, check_positive
from scorefield.data.arrays import FiniteSource
from scorefield.estimate import Estimate
from scorefield.networks.classifier import NoiseClassifier
from scorefield.noise import Lookahead, Noise
from scorefield.objectives.denoising import LogUniform, NoiseLaw
from scorefield.sde.base import SDE
from scorefield.training.classifier import check_held_out, minimize, training_of
from scorefield.training.stored import read, share, store

_FORMAT = "scorefield noise classifier 1"
_LEVELS = 7
_NUMBERS_AHEAD = 2**20


@dataclass(frozen=True)
class TrainedNoiseClassifier:
    """As :class:`~.TrainedClassifier`, of noisy images; ``accuracy`` is by noise level."""

    network: NoiseClassifier
    accuracy: dict[float, Estimate]
    sizes: dict[str, Any]
    training: dict[str, Any]


def train_noise_classifier(
    source: FiniteSource,
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

    As :func:`~.train_classifier`, with levels and noise that are functions of the seed too; only on
    a CPU does the same machine always give the same weights.

    Arguments:
        source: Images with classes.
        sde: The process, which sets the range of the noise levels.
        sizes: The sizes of the network, as arguments of
            :class:`~.NoiseClassifier`.
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
    for name, count in {"steps": steps, "batch_size": batch_size}.items():
        check_count(name, count)
    check_positive("lr", lr)
    check_held_out(source)
    law = LogUniform() if law is None else law
    made: dict[str, Any] = {"shape": list(source.shape), "classes": source.classes, **(sizes or {})}
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

    def batch(step: int) -> tuple[Tensor, ...]:
        return tuple(drawn.to(device) for drawn in ahead(step))

    minimize(network, batch, steps, lr, f"noise classifier of {source.name}")
    low, high = map(math.log, sde.level_range)
    levels = torch.linspace(low, high, _LEVELS, dtype=torch.float64).exp().tolist()
    accuracy = {level: _accuracy_at(network, source, level, seed) for level in levels}
    training = training_of(source, seed, steps, batch_size, lr)
    about = {**training, "sde": repr(sde), "law": repr(law)}
    return TrainedNoiseClassifier(network.cpu(), accuracy, made, about)


def store_noise_classifier(trained: TrainedNoiseClassifier, path: str | Path) -> None:
    """Writes a classifier of noisy images into a file; see :func:`~.store_classifier`."""
    accuracy = [[level, asdict(found)] for level, found in trained.accuracy.items()]
    store(Path(path), _FORMAT, trained.network, accuracy, trained.sizes, trained.training)


def read_noise_classifier(path: str | Path) -> TrainedNoiseClassifier:
    """Reads a classifier of noisy images; see :func:`~.read_classifier`."""

    def accuracy(pairs: Any) -> dict[float, Estimate]:
        return {float(level): Estimate(**found) for level, found in pairs}

    return TrainedNoiseClassifier(*read(Path(path), _FORMAT, NoiseClassifier, accuracy))


def _accuracy_at(
    network: NoiseClassifier, source: FiniteSource, noise_level: float, seed: int
) -> Estimate:
    """The share of held-out points, seen once each in noise, the same at every level."""
    x, labels = source.labelled("test")
    z = Noise(seed).normal("classifier/held out", source.shape, torch.arange(len(x)))
    noisy, level = x + noise_level * z, torch.full((len(x),), noise_level)
    device = next(network.parameters()).device
    with torch.no_grad():
        blocks = zip(noisy.split(1024), level.split(1024), strict=True)
        found = [network(u.to(device), v.to(device)).argmax(dim=1).cpu() for u, v in blocks]
    return share(torch.cat(found) == labels)

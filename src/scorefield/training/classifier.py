r"""Classifiers of a labelled data set: one whose features compare samples, and one that guides.

A classifier of noisy images sees :math:`\hat x = x_0 + \lambda\varepsilon` and the noise level
:math:`\lambda = \sigma / \alpha`. By its cross-entropy over classes, points, levels and noise it
learns :math:`p(c \mid \hat x, \lambda)`: how good it can be falls with the level, down to chance.

References:
    Score-based generative modeling through stochastic differential equations (Song et al., 2021),
    appendix I.1.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.checks import check_count, check_positive
from scorefield.data.arrays import FiniteSource
from scorefield.data.source import DataSource, Split
from scorefield.errors import CheckpointError, TrainingError, UserError
from scorefield.estimate import Estimate
from scorefield.files import clean, read_file
from scorefield.networks.classifier import Classifier, NoiseClassifier
from scorefield.networks.features import Features
from scorefield.noise import Lookahead, Noise
from scorefield.objectives.denoising import LogUniform, NoiseLaw
from scorefield.progress import Stages
from scorefield.sde.base import SDE
from scorefield.training.stored import one_thread, read, share, store

FILE = "classifier.safetensors"
"""The name of the file in its folder."""

LARGEST = 64
"""The largest side, in pixels, of images that a classifier is trained on for its features."""

_FORMAT, _NOISE_FORMAT = "scorefield classifier 1", "scorefield noise classifier 1"
_STEPS, _BATCH, _RATE = 400, 128, 4e-3
# From this side on, the second convolution has a stride, and there are more steps.
_LARGE, _MORE = 16, 1000
_ROWS = 4096
_NAMED = 12
_LEVELS = 7
_NUMBERS_AHEAD = 2**20


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier and what is known of it.

    Attributes:
        network: The classifier, in evaluation mode.
        accuracy: The share of held-out points that it puts into their class.
        sizes: The arguments that the network was made with.
        training: What it was trained on and how.
    """

    network: Classifier
    accuracy: Estimate
    sizes: dict[str, Any]
    training: dict[str, Any]


@dataclass(frozen=True)
class TrainedNoiseClassifier:
    """As :class:`TrainedClassifier`, of noisy images; ``accuracy`` is by noise level."""

    network: NoiseClassifier
    accuracy: dict[float, Estimate]
    sizes: dict[str, Any]
    training: dict[str, Any]


def train_classifier(
    source: FiniteSource, seed: int = 0, stages: Stages | None = None
) -> TrainedClassifier:
    r"""Trains a classifier on the training points of a data set.

    Cross-entropy, Adam, and a learning rate that falls to zero as a cosine. Initial weights and
    the order of the points are functions of the seed, and one thread does all the sums, so that
    the same machine gives the same weights whatever else it is set to.

    Arguments:
        source: Images with classes.
        seed: The seed of weights and order.
        stages: Shows the time that is left.

    Raises:
        ValueError: If the data are not images, or there are no held-out points.
        TrainingError: If the loss does not stay finite.
    """
    sizes: dict[str, Any] = {"shape": list(source.shape), "classes": source.classes}
    large = min(source.shape[1:]) >= _LARGE
    steps = _MORE if large else _STEPS
    if large:
        sizes["stride"] = 2
    network = Classifier(**sizes, seed=seed)
    _check_held_out(source)
    labels = source.labels("train")
    noise, n = Noise(seed), len(labels)
    size = min(_BATCH, n)

    def points(split: Split, rows: Tensor) -> Tensor:
        return source.points(split, rows, noise, torch.float32)

    @cache
    def order(epoch: int) -> Tensor:
        return noise.permutation("classifier/order", n, epoch)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        epoch, k = divmod(step, n // size)
        rows = order(epoch)[k * size : (k + 1) * size]
        return points("train", rows), labels[rows]

    _minimize(network, batch, steps, _RATE, f"classifier of {source.name}", stages)
    answers = source.labels("test")
    with torch.no_grad():
        parts = torch.arange(len(answers)).split(_ROWS)
        given = torch.cat([network(points("test", rows)).argmax(dim=1) for rows in parts])
    accuracy = share(given == answers)
    training = _training(source, seed, steps, size, _RATE)
    return TrainedClassifier(network, accuracy, sizes, training)


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

    As :func:`train_classifier`, with levels and noise that are functions of the seed too; only on a
    CPU does the same machine always give the same weights.

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
    _check_held_out(source)
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

    _minimize(network, batch, steps, lr, f"noise classifier of {source.name}")
    low, high = map(math.log, sde.level_range)
    levels = torch.linspace(low, high, _LEVELS, dtype=torch.float64).exp().tolist()
    accuracy = {level: _accuracy_at(network, source, level, seed) for level in levels}
    training = _training(source, seed, steps, batch_size, lr)
    about = {**training, "sde": repr(sde), "law": repr(law)}
    return TrainedNoiseClassifier(network.cpu(), accuracy, made, about)


def has_classifier(source: DataSource) -> bool:
    """Whether :func:`classifier_features` are there for a data set: for images with classes, of up
    to :data:`LARGEST` pixels a side.
    """
    if not isinstance(source, FiniteSource) or source.classes is None or len(source.shape) != 3:
        return False
    return max(source.shape[1:]) <= LARGEST and source.count("test") >= 2


def classifier_features(
    source: FiniteSource, folder: str | Path, stages: Stages | None = None
) -> Features:
    """The last hidden layer of the data's classifier, named by its hash.

    The classifier is read from ``classifier.safetensors`` in the folder; where there is none, it
    is trained and stored there first, whole or not at all. Distances are reported under the name of
    their features, so that numbers on different features are never taken for the same.

    Arguments:
        source: Images with classes.
        folder: Where the classifier is kept; made where there is none.
        stages: Shows the time that its training takes.

    Returns:
        32 features an image, on the device of the images, called ``classifier:`` and the first 12
        digits of the SHA-256 of the file.

    Raises:
        CheckpointError: If the file cannot be read or written, is damaged, or was trained on other
            data.
        ValueError, TrainingError: As of :func:`train_classifier`.
    """
    path = Path(folder) / FILE
    clean(path.parent)
    if not path.exists():
        store_classifier(train_classifier(source, stages=stages), path)
    known = read_classifier(path)
    if known.training.get("data_sha256") != _digest_of(source):
        raise CheckpointError(
            f"{path} was trained on other data than {source.name} is: remove it, and a new one is "
            "trained"
        )
    digest = hashlib.sha256(read_file(path)).hexdigest()

    def function(samples: Tensor) -> Tensor:
        network = known.network.to(samples.device)
        with torch.no_grad():
            parts = samples.to(torch.float32).split(_ROWS)
            return torch.cat([network.features(rows) for rows in parts])

    return Features(f"classifier:{digest[:_NAMED]}", function)


def store_classifier(trained: TrainedClassifier, path: Path) -> None:
    """Writes a classifier into a file, whole or not at all.

    Raises:
        CheckpointError: If that fails.
    """
    accuracy = asdict(trained.accuracy)
    store(path, _FORMAT, trained.network, accuracy, trained.sizes, trained.training)


def read_classifier(path: Path) -> TrainedClassifier:
    """Reads a classifier and checks all of it.

    Raises:
        CheckpointError: If it cannot be read, is damaged, or is something else.
    """
    return TrainedClassifier(*read(path, _FORMAT, Classifier, lambda found: Estimate(**found)))


def store_noise_classifier(trained: TrainedNoiseClassifier, path: str | Path) -> None:
    """Writes a classifier of noisy images into a file; see :func:`store_classifier`."""
    accuracy = [[level, asdict(found)] for level, found in trained.accuracy.items()]
    store(Path(path), _NOISE_FORMAT, trained.network, accuracy, trained.sizes, trained.training)


def read_noise_classifier(path: str | Path) -> TrainedNoiseClassifier:
    """Reads a classifier of noisy images; see :func:`read_classifier`."""

    def accuracy(pairs: Any) -> dict[float, Estimate]:
        return {float(level): Estimate(**found) for level, found in pairs}

    return TrainedNoiseClassifier(*read(Path(path), _NOISE_FORMAT, NoiseClassifier, accuracy))


def _minimize(
    network: nn.Module,
    batch: Callable[[int], tuple[Tensor, ...]],
    steps: int,
    lr: float,
    called: str,
    stages: Stages | None = None,
) -> None:
    """Minimises the cross-entropy over batches of what the network takes, and last the classes."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    stages = stages or Stages(quiet=True)
    with one_thread(), torch.enable_grad():
        for step in range(steps):
            *inputs, labels = batch(step)
            loss = F.cross_entropy(network(*inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
            stages.advance(called, step + 1, steps)
    final = float(loss.detach())
    if not math.isfinite(final):
        raise TrainingError(f"the {called} has the loss {final} after {steps} steps")
    network.eval().requires_grad_(False)


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


def _check_held_out(source: FiniteSource) -> None:
    if source.count("test") < 2:
        raise UserError(
            f"{source.name}: an accuracy needs held-out points, got {source.count('test')}"
        )


def _training(
    source: FiniteSource, seed: int, steps: int, batch_size: int, lr: float
) -> dict[str, Any]:
    return {
        "data": source.name,
        "data_sha256": _digest_of(source),
        "seed": seed,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": lr,
    }


def _digest_of(source: FiniteSource) -> str:
    """A SHA-256 of all points, as they are stored, and classes."""
    digest = hashlib.sha256()
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        n, labels = source.count(split), source.labels(split)
        digest.update(f"{(n, *source.shape)}".encode())
        for rows in torch.arange(n).split(_ROWS):
            stored = source.at(split, rows)
            stored = stored.float() if stored.is_floating_point() else stored
            digest.update(stored.contiguous().numpy().tobytes())
        digest.update(f"{tuple(labels.shape)}".encode())
        digest.update(labels.contiguous().numpy().tobytes())
    return digest.hexdigest()

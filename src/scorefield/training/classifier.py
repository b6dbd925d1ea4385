"""A classifier of a labelled data set, whose features compare samples."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.data.arrays import FiniteSource
from scorefield.data.source import DataSource, Split
from scorefield.errors import CheckpointError, TrainingError, UserError
from scorefield.estimate import Estimate
from scorefield.files import clean, read_file
from scorefield.networks.classifier import Classifier
from scorefield.networks.features import Features
from scorefield.noise import Noise
from scorefield.progress import Stages
from scorefield.training.stored import one_thread, read, share, store

FILE = "classifier.safetensors"
"""The name of the file in its folder."""

LARGEST = 64
"""The largest side, in pixels, of images that a classifier is trained on for its features."""

_FORMAT = "scorefield classifier 1"
_STEPS, _BATCH, _RATE = 400, 128, 4e-3
# From this side on, the second convolution has a stride, and there are more steps.
_LARGE, _MORE = 16, 1000
_ROWS = 4096
_NAMED = 12


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
    check_held_out(source)
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

    minimize(network, batch, steps, _RATE, f"classifier of {source.name}", stages)
    answers = source.labels("test")
    with torch.no_grad():
        parts = torch.arange(len(answers)).split(_ROWS)
        given = torch.cat([network(points("test", rows)).argmax(dim=1) for rows in parts])
    accuracy = share(given == answers)
    training = training_of(source, seed, steps, size, _RATE)
    return TrainedClassifier(network, accuracy, sizes, training)


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


def minimize(
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


def check_held_out(source: FiniteSource) -> None:
    """Raises ``ValueError`` unless a data set has points for an accuracy."""
    if source.count("test") < 2:
        raise UserError(
            f"{source.name}: an accuracy needs held-out points, got {source.count('test')}"
        )


def training_of(
    source: FiniteSource, seed: int, steps: int, batch_size: int, lr: float
) -> dict[str, Any]:
    """What a classifier is trained on and how, for its file."""
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

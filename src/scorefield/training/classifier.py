"""Features learned from a labelled data set: a classifier, trained once and kept in a file.

The file says with the weights the sizes of the network, what it was trained on and how, and its
accuracy on held-out data. Distances are reported under the first digits of the
SHA-256 of the file itself, so that numbers on different features are never taken for the same.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from scorefield.data import LabelledSource
from scorefield.errors import CheckpointError, TrainingError, UserError
from scorefield.estimate import Estimate
from scorefield.networks import Classifier, Features
from scorefield.noise import Noise
from scorefield.training.checkpoint import Weights, load_weights
from scorefield.training.stored import digest_of, one_thread, read, share, store

FILE = "classifier.safetensors"
"""The name of the file in its folder."""

_FORMAT = "scorefield classifier 1"
_STEPS, _BATCH, _RATE = 400, 128, 4e-3
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


def train_classifier(source: LabelledSource, seed: int = 0) -> TrainedClassifier:
    r"""Trains a classifier on the training points of a data set.

    Cross-entropy, Adam, and a learning rate that falls to zero as a cosine. Initial weights and
    the order of the points are functions of the seed, and one thread does all the sums, so that
    the same machine gives the same weights whatever else it is set to.

    Arguments:
        source: Images with classes.
        seed: The seed of weights and order.

    Raises:
        ValueError: If the data are not images, or there are no held-out points.
        TrainingError: If the loss does not stay finite.
    """
    sizes: dict[str, Any] = {"shape": list(source.shape), "classes": source.classes}
    network = Classifier(**sizes, seed=seed)
    held_out, answers = source.labelled("test")
    if len(held_out) < 2:
        raise UserError(f"{source.name}: an accuracy needs held-out points, got {len(held_out)}")
    x, labels = source.labelled("train")
    noise, n = Noise(seed), len(x)
    batch = min(_BATCH, n)
    each = n // batch
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    with one_thread(), torch.enable_grad():
        for step in range(_STEPS):
            epoch, k = divmod(step, each)
            if k == 0:
                order = noise.permutation("classifier/order", n, epoch)
            rows = order[k * batch : (k + 1) * batch]
            loss = F.cross_entropy(network(x[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
    final = float(loss.detach())
    if not math.isfinite(final):
        raise TrainingError(
            f"the classifier of {source.name} has the loss {final} after {_STEPS} steps"
        )
    network.eval().requires_grad_(False)
    training = {
        "data": source.name,
        "data_sha256": digest_of(source),
        "seed": seed,
        "steps": _STEPS,
        "batch_size": batch,
        "learning_rate": _RATE,
    }
    with torch.no_grad():
        accuracy = share(network(held_out).argmax(dim=1) == answers)
    return TrainedClassifier(network, accuracy, sizes, training)


def classifier_features(source: LabelledSource, folder: str | Path) -> Features:
    """The last hidden layer of the data's classifier, named by its hash.

    The classifier is read from ``classifier.safetensors`` in the folder; where there is none, it
    is trained and stored there first, whole or not at all.

    Arguments:
        source: Images with classes.
        folder: Where the classifier is kept; made where there is none.

    Returns:
        32 features an image, called ``classifier:`` and the first 12 digits of the SHA-256 of the
        file.

    Raises:
        CheckpointError: If the file cannot be read or written, is damaged, or was trained on other
            data.
        ValueError: As of :func:`train_classifier`.
        TrainingError: Likewise.
    """
    path = Path(folder) / FILE
    if not path.exists():
        store_classifier(train_classifier(source), path)
    known = read_classifier(path)
    if known.training.get("data_sha256") != digest_of(source):
        raise CheckpointError(
            f"{path} was trained on other data than {source.name} is: remove it, and a new one is "
            "trained"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()

    def function(samples: Tensor) -> Tensor:
        images = samples.to(device="cpu", dtype=torch.float32)
        with torch.no_grad():
            return torch.cat([known.network.features(rows) for rows in images.split(_ROWS)])

    return Features(f"classifier:{digest[:_NAMED]}", function)


def store_classifier(trained: TrainedClassifier, path: Path) -> None:
    """Writes a classifier into a file, whole or not at all.

    Raises:
        CheckpointError: If that fails.
    """
    about = {
        "format": _FORMAT,
        "sizes": trained.sizes,
        "training": trained.training,
        "accuracy": asdict(trained.accuracy),
    }
    store(trained.network, about, path)


def read_classifier(path: Path) -> TrainedClassifier:
    """Reads a classifier and checks all of it.

    Raises:
        CheckpointError: If it cannot be read, is damaged, or is something else.
    """
    tensors, about = read(path, _FORMAT, "classifier")
    try:
        network, training = Classifier(**about["sizes"]), about["training"]
        accuracy, weights = Estimate(**about["accuracy"]), Weights(tensors, training["steps"], None)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is not a classifier of this version ({type(error).__name__}: {error})"
        ) from error
    load_weights(network, weights, path)
    network.eval().requires_grad_(False)
    return TrainedClassifier(network, accuracy, about["sizes"], training)

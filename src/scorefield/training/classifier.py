"""Features learned from a labelled data set: a classifier, trained once and kept in a file.

The file is a safetensors file; its metadata entry ``scorefield`` is JSON with the sizes of the
network, what it was trained on and how, its accuracy on held-out data, and a SHA-256 of all this
and the weights. Nothing in it is executed. Distances are reported under the first digits of the
SHA-256 of the file itself, so that numbers on different features are never taken for the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.nn import functional as F

from scorefield.data import LabelledSource
from scorefield.estimate import Estimate
from scorefield.networks import Classifier, Features
from scorefield.noise import Noise
from scorefield.training.checkpoint import Weights, load_weights
from scorefield.training.errors import CheckpointError, TrainingError
from scorefield.training.files import reason, sync_folder, write_durably

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
        raise ValueError(f"{source.name}: an accuracy needs held-out points, got {len(held_out)}")
    x, labels = source.labelled("train")
    noise, n = Noise(seed), len(x)
    batch = min(_BATCH, n)
    each = n // batch
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    with _one_thread(), torch.enable_grad():
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
        "data_sha256": _digest_of(source),
        "seed": seed,
        "steps": _STEPS,
        "batch_size": batch,
        "learning_rate": _RATE,
    }
    return TrainedClassifier(network, _accuracy(network, held_out, answers), sizes, training)


def classifier_features(source: LabelledSource, folder: str | Path) -> Features:
    """The last hidden layer of the data's classifier, under a name that says which one it is.

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
    if known.training.get("data_sha256") != _digest_of(source):
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
    tensors = {k: v.contiguous() for k, v in trained.network.state_dict().items()}
    about = {
        "format": _FORMAT,
        "sizes": trained.sizes,
        "training": trained.training,
        "accuracy": asdict(trained.accuracy),
    }
    content = _content(tensors, {**about, "sha256": _checksum(tensors, about)})
    # Several processes may come here at once: each writes a file of its own, and the last counts.
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(temporary, content)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if temporary.exists():
            temporary.unlink()
        raise CheckpointError(f"cannot write {path}: {reason(error)}") from error


def read_classifier(path: Path) -> TrainedClassifier:
    """Reads a classifier and checks all of it.

    Raises:
        CheckpointError: If it cannot be read, is damaged, or is something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = json.loads(metadata.get("scorefield", "{}"))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {reason(error)}") from error
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file") from error
    if not isinstance(about, dict) or about.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not a classifier that scorefield wrote")
    if about.pop("sha256", None) != _checksum(tensors, about):
        raise CheckpointError(f"{path} is damaged: its checksum is wrong")
    try:
        network, training = Classifier(**about["sizes"]), about["training"]
        accuracy, weights = Estimate(**about["accuracy"]), Weights(tensors, training["steps"], None)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a classifier of this version ({type(error).__name__}: {error})"
        ) from error
    load_weights(network, weights, path)
    network.eval().requires_grad_(False)
    return TrainedClassifier(network, accuracy, about["sizes"], training)


def _accuracy(network: Classifier, x: Tensor, labels: Tensor) -> Estimate:
    with torch.no_grad():
        right = (network(x).argmax(dim=1) == labels).to(torch.float64)
    n, share = len(right), float(right.mean())
    # One right and one wrong are added to the variance: of none wrong, none is not certain.
    plausible = (float(right.sum()) + 1) / (n + 2)
    return Estimate(share, math.sqrt(plausible * (1 - plausible) / n), n, "share of points", {})


def _digest_of(source: LabelledSource) -> str:
    """A SHA-256 of all points and classes."""
    digest = hashlib.sha256()
    for split in ("train", "test"):
        points, labels = source.labelled(split)
        for tensor in (points, labels):
            digest.update(f"{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _content(tensors: dict[str, Tensor], about: dict[str, Any]) -> bytes:
    return save_tensors(tensors, {"scorefield": json.dumps(about, sort_keys=True)})


def _checksum(tensors: dict[str, Tensor], about: dict[str, Any]) -> str:
    return hashlib.sha256(_content(tensors, about)).hexdigest()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums are then taken in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

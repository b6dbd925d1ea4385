"""Networks in a file with what is known of them: whole, checked, and without code.

The file is a safetensors file; its metadata entry ``scorefield`` is JSON with the format, the sizes
of the network, its training and accuracy, and a SHA-256 of all this and the weights.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Bool
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from scorefield.errors import CheckpointError
from scorefield.estimate import Estimate
from scorefield.files import read_file, reason, write_file
from scorefield.training.checkpoint import Weights, load_weights

Network = TypeVar("Network", bound=nn.Module)


def store(
    path: Path,
    form: str,
    network: nn.Module,
    accuracy: Any,
    sizes: Mapping[str, Any],
    training: Mapping[str, Any],
) -> None:
    """Writes a network and what is known of it, as JSON, into a file, whole or not at all."""
    about = {"format": form, "sizes": sizes, "training": training, "accuracy": accuracy}
    tensors = {k: v.contiguous() for k, v in network.state_dict().items()}
    content = _content(tensors, {**about, "sha256": _checksum(tensors, about)})
    try:
        write_file(path, content)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {reason(error)}") from error


def read(
    path: Path, form: str, made: Callable[..., Network], accuracy: Callable[[Any], Any]
) -> tuple[Network, Any, dict[str, Any], dict[str, Any]]:
    """The network in a file, its accuracy, sizes and training, checked.

    Arguments:
        path: The file.
        form: The format that it must have: its kind between ``scorefield`` and a number.
        made: Makes the network from its sizes.
        accuracy: Makes the accuracy from its JSON.
    """
    kind = form.removeprefix("scorefield ").rpartition(" ")[0]
    try:
        content = read_file(path)
        tensors = load_tensors(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about = json.loads(header.get("__metadata__", {}).get("scorefield", "{}"))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {reason(error)}") from error
    except (SafetensorError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file") from error
    if not isinstance(about, dict) or about.get("format") != form:
        raise CheckpointError(f"{path} is not a {kind} that scorefield wrote")
    if about.pop("sha256", None) != _checksum(tensors, about):
        raise CheckpointError(f"{path} is damaged: its checksum is wrong")
    try:
        sizes, training = about["sizes"], about["training"]
        network, known = made(**sizes), accuracy(about["accuracy"])
        weights = Weights(tensors, training["steps"], None)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is not a {kind} of this version ({type(error).__name__}: {error})"
        ) from error
    load_weights(network, weights, path)
    return network.eval().requires_grad_(False), known, sizes, training


def share(right: Bool[Tensor, " n"]) -> Estimate:
    """The share of points that are right, with its standard error."""
    n, value = len(right), float(right.to(torch.float64).mean())
    # One right and one wrong are added to the variance: of none wrong, none is not certain.
    plausible = (float(right.sum()) + 1) / (n + 2)
    return Estimate(value, math.sqrt(plausible * (1 - plausible) / n), n, "share of points", {})


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums are then taken in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _content(tensors: dict[str, Tensor], about: Mapping[str, Any]) -> bytes:
    return save_tensors(tensors, {"scorefield": json.dumps(about, sort_keys=True)})


def _checksum(tensors: dict[str, Tensor], about: Mapping[str, Any]) -> str:
    return hashlib.sha256(_content(tensors, about)).hexdigest()

"""Networks in a file with what is known of them: whole, checked, and without code.

The file is a safetensors file; its metadata entry ``scorefield`` is JSON with the format, what the
writer says of the network, and a SHA-256 of all this and the weights. Nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from scorefield.data import LabelledSource
from scorefield.errors import CheckpointError
from scorefield.estimate import Estimate
from scorefield.files import reason, write_file


def store(network: nn.Module, about: dict[str, Any], path: Path) -> None:
    """Writes a network and what is known of it into a file, whole or not at all.

    Arguments:
        network: The network.
        about: What is known of it, as JSON; with the entry ``format``.
        path: The file.

    Raises:
        CheckpointError: If that fails.
    """
    tensors = {k: v.contiguous() for k, v in network.state_dict().items()}
    content = _content(tensors, {**about, "sha256": _checksum(tensors, about)})
    try:
        write_file(path, content)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {reason(error)}") from error


def read(path: Path, form: str, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights in a file and what is known of them, checked.

    Arguments:
        path: The file.
        form: The format that it must have.
        kind: What it holds, in words.

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
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file") from error
    if not isinstance(about, dict) or about.get("format") != form:
        raise CheckpointError(f"{path} is not a {kind} that scorefield wrote")
    if about.pop("sha256", None) != _checksum(tensors, about):
        raise CheckpointError(f"{path} is damaged: its checksum is wrong")
    return tensors, about


def share(right: Bool[Tensor, " n"]) -> Estimate:
    """The share of points that are right, with its standard error."""
    n, value = len(right), float(right.to(torch.float64).mean())
    # One right and one wrong are added to the variance: of none wrong, none is not certain.
    plausible = (float(right.sum()) + 1) / (n + 2)
    return Estimate(value, math.sqrt(plausible * (1 - plausible) / n), n, "share of points", {})


def digest_of(source: LabelledSource) -> str:
    """A SHA-256 of all points and classes."""
    digest = hashlib.sha256()
    for split in ("train", "test"):
        points, labels = source.labelled(split)
        for tensor in (points, labels):
            digest.update(f"{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums are then taken in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _content(tensors: dict[str, Tensor], about: dict[str, Any]) -> bytes:
    return save_tensors(tensors, {"scorefield": json.dumps(about, sort_keys=True)})


def _checksum(tensors: dict[str, Tensor], about: dict[str, Any]) -> str:
    return hashlib.sha256(_content(tensors, about)).hexdigest()

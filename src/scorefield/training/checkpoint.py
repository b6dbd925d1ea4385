"""Checkpoints: weights that anyone can read, and the state that resumes a training.

A checkpoint is a folder ``step_XXXXXXXX`` of three files:

* ``model.safetensors``, ``ema.safetensors``: the field's state, with its own and with averaged
  weights. The metadata entry ``scorefield`` is JSON with the format's name, the step, the
  configuration, and the parts of the field (:mod:`scorefield.description`), so that the file says
  by itself what it is.
* ``state.pt``: the state of optimiser and objective, the step, and the SHA-256 of the other two;
  read with ``weights_only=True``.

A checkpoint is written under a temporary name, forced to the disk, and renamed, so that a
folder of its final name is complete. A reader trusts none the less: every byte of the three
files is covered by a checksum. Where a training goes on from an older one, those after it that
could not be read stay as ``unreadable-step_XXXXXXXX``.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from scorefield import archives
from scorefield.errors import CheckpointError, UserError
from scorefield.files import clean, delete_folder, read_file, reason, write_folder
from scorefield.world import World

_FORMAT = "scorefield checkpoint 1"
_MODEL, _EMA, STATE = "model.safetensors", "ema.safetensors", "state.pt"
_NAME = re.compile(r"step_[0-9]{8,18}")
_UNREAD = "unreadable-"
WEIGHTS = (_MODEL, _EMA)
"""The names of the files of weights in a checkpoint; that of its state is ``STATE``."""
# What reading damaged or foreign bytes as tensors or JSON can raise.
_UNREADABLE = (SafetensorError, RuntimeError, ValueError, LookupError, TypeError, OverflowError)


@dataclass(frozen=True)
class Weights:
    """The content of one file of weights.

    Attributes:
        tensors: The state of a field.
        step: The number of training steps that led to it.
        config: The configuration of the run; ``None`` where it had none.
        field: The parts of the field; ``None`` where they cannot be described, or an earlier
            version wrote the file.
    """

    tensors: dict[str, Tensor]
    step: int
    config: dict[str, Any] | None
    field: dict[str, Any] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint that has passed its checks.

    Attributes:
        path: Its folder.
        step: The number of training steps done.
        model: The weights.
        ema: The averaged weights.
        state: Everything else that a resume needs.
    """

    path: Path
    step: int
    model: Weights
    ema: Weights
    state: dict[str, Any]

    def plain(self) -> tuple[Any, ...]:
        """Its content in plain containers."""
        return str(self.path), self.step, vars(self.model), vars(self.ema), self.state

    @classmethod
    def of(cls, plain: tuple[Any, ...]) -> Checkpoint:
        """Takes back what :meth:`plain` gave."""
        path, step, model, ema, state = plain
        return cls(Path(path), step, Weights(**model), Weights(**ema), state)


def save(
    folder: Path,
    step: int,
    model: Mapping[str, Tensor],
    ema: Mapping[str, Tensor],
    state: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
    keep: int | None = None,
    field: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a checkpoint, keeps only the newest ``keep`` up to it, and returns its folder.

    Raises:
        CheckpointError: If it cannot be written; earlier checkpoints are as they were.
    """
    content = files(step, model, ema, state, config, field)
    path = folder / name_of(step)
    try:
        # Only a checkpoint that could not be read is ever written again.
        write_folder(path, content, overwrite=True)
    except OSError as error:
        raise CheckpointError(f"cannot write checkpoint {path}: {reason(error)}") from error
    if keep is not None:
        # What bears a later step is not older, whatever it is.
        for old in [p for p in paths(folder) if step_of(p) <= step][:-keep]:
            with suppress(OSError):  # another time
                delete_folder(old)
    return path


def files(
    step: int,
    model: Mapping[str, Tensor],
    ema: Mapping[str, Tensor],
    state: Mapping[str, Any],
    config: Mapping[str, Any] | None,
    field: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """The files of a checkpoint, by name."""
    found = {
        name: weights_file(tensors, step, config, field)
        for name, tensors in zip(WEIGHTS, (model, ema), strict=True)
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, "step": step, "sha256": digests, **_on_cpu(state)}, buffer)
    return {**found, STATE: buffer.getvalue()}


def name_of(step: int) -> str:
    """The name of the folder of a checkpoint."""
    return f"step_{step:08d}"


def weights_file(
    tensors: Mapping[str, Tensor],
    step: int,
    config: Mapping[str, Any] | None,
    field: Mapping[str, Any] | None = None,
) -> bytes:
    """The content of a file of weights, which :func:`read_weights` reads."""
    # One entry: the order in which safetensors writes several is not always the same.
    about = {"format": _FORMAT, "step": step, "config": config, "field": field}
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return save_tensors(whole, {"scorefield": json.dumps(about)})


def paths(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    found = (p for p in folder.iterdir() if _NAME.fullmatch(p.name))
    return sorted(found, key=step_of)


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint's folder."""
    return int(path.name.removeprefix("step_"))


def latest(folder: Path, report: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; ``report`` gets a sentence for each newer one."""
    for path in reversed(paths(folder)):
        try:
            return read(path)
        except CheckpointError as error:
            report(f"{error}; looking for an older checkpoint")
    return None


def newest(folder: Path, world: World, report: Callable[[str], None]) -> Checkpoint | None:
    """As :func:`latest`, of what killed processes left behind cleaned; the first of several
    processes reads it for all.
    """

    def found() -> tuple[Any, ...] | None:
        clean(folder)
        whole = latest(folder, report)
        return None if whole is None else whole.plain()

    plain = world.broadcast(found)
    return None if plain is None else Checkpoint.of(plain)


def set_aside(folder: Path, after: int) -> list[Path]:
    """Renames the checkpoints after a step, so that they are none any more, and says to what."""
    aside = []
    for path in paths(folder):
        if step_of(path) > after:
            new = path.with_name(f"{_UNREAD}{path.name}")
            try:
                # What an earlier mishap left under that name makes way.
                if new.exists():
                    shutil.rmtree(new)
                os.rename(path, new)
            except OSError as error:
                raise CheckpointError(f"cannot rename {path}: {reason(error)}") from error
            aside.append(new)
    return aside


def read(path: Path) -> Checkpoint:
    """Reads a checkpoint and checks all of it.

    Raises:
        CheckpointError: If a file is missing, damaged, or not part of this checkpoint.
    """
    file = path / STATE
    content = _content(file)
    try:
        state = archives.load(io.BytesIO(content))
    except UserError as error:
        raise CheckpointError(f"{file} {error}") from error
    step = _step(state, file)
    digests = state.get("sha256")
    if not isinstance(digests, dict) or not digests.keys() >= set(WEIGHTS):
        raise CheckpointError(f"{file} lacks the checksums of the weights")
    if _NAME.fullmatch(path.name) and step != step_of(path):
        raise CheckpointError(f"{path} holds step {step}: it was renamed")
    model, ema = (_weights(path / name, str(digests[name])) for name in WEIGHTS)
    for name, weights in zip(WEIGHTS, (model, ema), strict=True):
        if weights.step != step:
            raise CheckpointError(f"{path / name} is of step {weights.step}, not {step}")
    return Checkpoint(path, step, model, ema, state)


def read_weights(path: Path) -> Weights:
    """Reads a file of weights, or the averaged weights of a checkpoint, checked as a whole.

    Raises:
        CheckpointError: If it cannot be read or is something else.
    """
    return read(path).ema if path.is_dir() else _weights(path, None)


def load_weights(field: nn.Module, weights: Weights, source: Path) -> None:
    """Gives the field the weights that were read from ``source``.

    Raises:
        CheckpointError: If a tensor is missing, superfluous, or of another shape; the field is as
            it was then.
    """
    own: dict[str, Tensor] = field.state_dict()
    for name, tensor in weights.tensors.items():
        if name not in own:
            raise CheckpointError(f"{source} has a tensor {name} that the field has not")
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f"{source} has the tensor {name} in the shape {tuple(tensor.shape)}, the field "
                f"in the shape {tuple(own[name].shape)}"
            )
    for name in own:
        if name not in weights.tensors:
            raise CheckpointError(f"{source} lacks the field's tensor {name}")
    field.load_state_dict(weights.tensors)


def _on_cpu(value: Any) -> Any:
    """Nested containers with their tensors on the CPU, where any machine can read them."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, Mapping):
        return {key: _on_cpu(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_on_cpu, value))
    return value


def _content(path: Path) -> bytes:
    try:
        return read_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {reason(error)}") from error


def _weights(path: Path, digest: str | None) -> Weights:
    content = _content(path)
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise CheckpointError(f"{path} is damaged: its checksum is wrong")
    try:
        tensors = load_tensors(content)
    except _UNREADABLE as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file") from error
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    try:
        about = json.loads(json.loads(header)["__metadata__"]["scorefield"])
    except _UNREADABLE:
        about = None
    step = _step(about, path)
    config, field = about.get("config"), about.get("field")
    for name, value in (("configuration", config), ("field", field)):
        if value is not None and not isinstance(value, dict):
            raise CheckpointError(f"the {name} in {path} is not a mapping")
    return Weights(tensors, step, config, field)


def _step(about: Any, file: Path) -> int:
    """The step in the metadata of a file, if it is one of ours."""
    if not isinstance(about, dict) or about.get("format") != _FORMAT:
        raise CheckpointError(f"{file} was not written by scorefield")
    step = about.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise CheckpointError(f"{file} does not state its step")
    return step

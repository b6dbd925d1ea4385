"""What a training is, so that one is never taken up as another."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from scorefield.data.source import DataSource
from scorefield.description import describe
from scorefield.errors import CheckpointError, UserError
from scorefield.fields.base import ScoreField
from scorefield.noise import Noise
from scorefield.world import World

_POINTS = 64


def of_module(name: str, module: nn.Module) -> dict[str, str]:
    """The kinds and the settings of a module and all its parts, by dotted names.

    Of torch's own layers it is the kind: their sizes show in their weights.
    """
    found: dict[str, str] = {}
    for path, part in module.named_modules(prefix=name):
        found[path] = type(part).__name__
        if isinstance(part, _DropoutNd):
            found[f"{path}.p"] = repr(part.p)
        if type(part).__module__.startswith("torch."):
            continue
        for key, value in vars(part).items():
            if not key.startswith("_") and key != "training" and _is_plain(value):
                found[f"{path}.{key}"] = repr(value)
    return found


def parts(field: ScoreField) -> dict[str, Any] | None:
    """What a field is made of, see :func:`~scorefield.description.describe`; ``None`` of one that
    cannot be made again, which is trained all the same.
    """
    try:
        return describe(field)
    except UserError:
        return None


def of_source(source: DataSource) -> dict[str, str]:
    """The name, the shape, the number and the scale of the data."""
    return {
        "data": source.name,
        "data.shape": repr(source.shape),
        "data.size": repr(source.size),
        # Its last digits are the machine's.
        "data.std": f"{source.std:.6g}",
    }


def check_same(world: World, **facts: object) -> None:
    """Raises ``UserError`` unless all processes have the same code, and the same facts."""
    if world.size > 1:
        world.agree({"code": of_code(), **facts})


def share_weights(world: World, field: nn.Module) -> None:
    """Gives a field the weights that it has in the first process; raises ``UserError`` unless all
    processes have the same code, and weights of the same names and shapes.
    """
    if world.size > 1:
        state = field.state_dict()
        check_same(world, weights=[(name, *tensor.shape) for name, tensor in state.items()])
        world.from_first(*state.values())


def of_code() -> str:
    """A hash of this package and the version of torch."""
    found = hashlib.blake2b(torch.__version__.encode())
    root = Path(__file__).parent.parent
    for path in sorted(root.rglob("*.py")):
        found.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return found.hexdigest()


def of_weights(module: nn.Module) -> str:
    """A hash of the weights of a module, by name."""
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        numbers = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        found.update(name.encode() + numbers.numpy().tobytes())
    return found.hexdigest()


def of_points(source: DataSource, noise: Noise) -> str:
    """A hash of the mean of the data, to a millionth of their scale, of the classes of the first
    points of a training, and, unless they are drawn from a known law, of these points.
    """
    # The last digits of sums, and of what a law is made of, are the machine's.
    points = [(source.mean / source.std * 1e6).round().to(torch.int64)]
    if source.truth is None:
        points.append(source.batch(noise, 0, _POINTS))
    if source.classes is not None:
        points.append(source.batch_classes(noise, 0, _POINTS))
    content = [p.detach().cpu().contiguous().numpy().tobytes() for p in points]
    return hashlib.blake2b(b"".join(content)).hexdigest()


def check_own(mine: Mapping[str, Any], stored: object, path: Path) -> None:
    """Checks that what a checkpoint states of its training is true of one.

    Raises:
        CheckpointError: If not; it names the first difference.
    """
    if not isinstance(stored, dict):
        raise CheckpointError(f"{path} does not state its training")
    theirs = translated(stored)
    # In this order: what differs first is what the rest follows from.
    for name in {**mine, **theirs}:
        if mine.get(name) != theirs.get(name):
            raise CheckpointError(
                f"{path} belongs to another training: {name} is "
                f"{theirs.get(name, 'missing')} there and {mine.get(name, 'missing')} here"
            )


def translated(found: dict[str, Any]) -> dict[str, Any]:
    """An identity that an earlier version wrote, in today's names; today's stays what it is.

    Regularisers held their quadrature as an object and oracles under the name of the argument;
    three of them had no choice of points. Networks knew whether their blocks are computed again.
    All noise was independent, and the rates of all steps linear. Nothing was augmented.
    """
    today: dict[str, Any] = {}
    for key, value in found.items():
        path, _, name = key.rpartition(".")
        if name == "checkpointing":
            continue
        if name == "plan":
            value = re.sub(r", checkpointing=\w+", "", value)
        for kind, (added, then) in _ADDED.items():
            if str(value).startswith(f"{kind}(") and f"{added}=" not in value:
                value = f"{value[:-1]}, {added}={then!r})"
        if name == "rule" and (rule := re.match(r"Quadrature\(name=('[^']*')", value)):
            today[f"{path}.quadrature"] = rule[1]
        else:
            renamed = {"oracle": "truth", "guide": "leader"}.get(name, name)
            today[f"{path}.{renamed}" if path else key] = value
        if value in ("Asymmetry", "LoopCirculation", "BoundaryMatching"):
            today.setdefault(f"{key}.points", "'data'")
        if value == "Objective":
            today.setdefault(f"{key}.augmentation", "None")
    return today


_ADDED = {"DenoisingScoreMatching": ("pairing", "independent"), "DiscreteVP": ("betas", "linear")}
"""An argument that some classes have in addition today, and what holds of those before."""


def _is_plain(value: Any) -> bool:
    """Whether the representation of a value says all of it, and the same in every process."""
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str) or is_dataclass(value)

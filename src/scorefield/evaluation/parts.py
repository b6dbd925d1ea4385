"""Parts of a long computation, kept in files until the whole is done: a command that was killed
goes on with those that it lacks, and comes to the same result.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from scorefield import archives
from scorefield.engine import Engine
from scorefield.errors import UserError
from scorefield.estimate import Estimate, Variance
from scorefield.evaluation.records import Floor, Level
from scorefield.files import read_file, write_file
from scorefield.samplers.trajectory import Once
from scorefield.training.identity import of_code, of_weights

T = TypeVar("T")

_KINDS = (Estimate, Variance, Floor, Level)
# What of an engine a result depends on, by rounding at least.
_ENGINE = ("name", "precision", "compile", "channels_last", "deterministic")
_ABANDONED = 86_400.0  # seconds


class Parts:
    """The parts of a computation, in ``.parts`` of a folder; each is written whole or not at all.

    Arguments:
        folder: The folder.
        purpose: What is computed.
        facts: All that the parts depend on, but the weights, the code and the engine.
        engine: What it runs on; of several processes, each has its own parts.
    """

    def __init__(
        self, folder: Path, purpose: str, facts: Mapping[str, object], engine: Engine
    ) -> None:
        record, world = engine.record(), engine.world
        known = {**facts, "engine": {name: record[name] for name in _ENGINE}, "code": of_code()}
        key = world.broadcast(lambda: _hash(json.dumps(known, sort_keys=True)))
        self._root = folder / ".parts"
        self._folder = self._root / f"{purpose}-{key}"
        for other in self._root.glob("*") if world.first else ():
            with suppress(OSError):  # it is removed just now
                # Of another computation, which nobody has taken up for a day.
                if other != self._folder and time.time() - other.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(other)

    def of(self, field: nn.Module) -> Once:
        """What computes each part of a given name once for the weights that a field has."""
        return kept_in(self._folder, of_weights(field))

    def remove(self) -> None:
        """Removes them, since the whole is there."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):  # another computation has parts too, or there were none
            self._root.rmdir()


def kept_in(folder: Path, prefix: str = "") -> Once:
    """What computes each part of a given name once, and keeps it in a file of a folder."""

    def once(name: object, make: Callable[[], T]) -> T:
        file = folder / f"{_hash(f'{prefix} {name!r}')}.pt"
        # One that cannot be read is made again.
        with suppress(OSError, UserError):
            found: T = archives.load(io.BytesIO(read_file(file)), _KINDS)
            return found
        found, buffer = make(), io.BytesIO()
        torch.save(found, buffer)
        # The same computation in another process may have come to its end, and removed all.
        with suppress(FileNotFoundError):
            write_file(file, buffer.getvalue())
        return found

    return once


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

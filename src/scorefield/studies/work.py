"""The parts of a study that are done, kept on the disk so that an interrupted study continues."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from scorefield.errors import RunError
from scorefield.fields import ScoreField
from scorefield.files import write_file
from scorefield.progress import Stages

T = TypeVar("T")

_NUMPY = (np.ndarray, np.dtype, np.zeros(0).__reduce__()[0])
_DTYPES = tuple(type(np.dtype(kind)) for kind in ("f4", "f8", "i8", "bool"))


class Work:
    """The parts of a study that are done, and how far it is.

    Arguments:
        folder: Where parts are kept; nowhere by default.
        kinds: The classes that parts are made of, besides tensors, arrays and plain containers.
        stages: Shows how far the work is.
    """

    def __init__(
        self,
        folder: Path | None = None,
        kinds: Iterable[type] = (),
        stages: Stages | None = None,
    ) -> None:
        self._folder = folder
        self._kinds: list[Any] = [*_NUMPY, *_DTYPES, *kinds]
        self._stages = stages

    def part(self, name: str, compute: Callable[[], T]) -> T:
        """A part by its name: as it was kept, or computed and kept.

        Raises:
            RunError: If a kept part cannot be read.
        """
        kept: T | None = self.kept(name)
        return self.keep(name, compute()) if kept is None else kept

    def kept(self, name: str) -> Any | None:
        """A part that was kept; ``None`` if it was not."""
        file = self._file(name)
        if file is None or not file.is_file():
            return None
        try:
            with torch.serialization.safe_globals(self._kinds):
                return torch.load(file, weights_only=True)
        except Exception as error:
            raise RunError(f"{file} cannot be read: delete its folder and start again") from error

    def keep(self, name: str, value: T) -> T:
        """Keeps a part, and returns it."""
        file = self._file(name)
        if file is not None:
            content = io.BytesIO()
            torch.save(value, content)
            write_file(file, content.getvalue())
        return value

    def show(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Shows how much of a stage is done."""
        if self._stages is not None:
            self._stages.show(stage, done, total, note)

    def report(self, line: str) -> None:
        """Prints that something is done, where there are no bars to show it."""
        if self._stages is not None:
            self._stages.say(line)

    def _file(self, name: str) -> Path | None:
        key = hashlib.sha256(name.encode()).hexdigest()[:24]
        return None if self._folder is None else self._folder / f"{key}.pt"


def fingerprint(field: ScoreField) -> str:
    """A hash of the weights of a field, by which one checkpoint is distinguished from another."""
    found = hashlib.sha256()
    for name, tensor in sorted(field.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()

"""The frame of every study: settings, parts that survive an interruption, a folder of results.

A study computes a result of named parts and makes tables, arrays and figures of it. Each part and
each file is kept in a hidden work folder beside the results as soon as it is done, so that the same
command, started again, continues where it was interrupted. The work folder is found by all that the
numbers depend on. The results are written whole or not at all, and nothing is overwritten unless
``--overwrite`` is given.
"""

from __future__ import annotations

import hashlib
import io
import json
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from scorefield import __version__, archives
from scorefield.engine import Engine, exact
from scorefield.errors import RunError, UserError
from scorefield.estimate import Estimate
from scorefield.fields.base import ScoreField
from scorefield.files import (
    DOCUMENT,
    check_writable,
    delete_folder,
    open_file,
    read_file,
    write_file,
    write_folder,
)
from scorefield.median import Median
from scorefield.progress import Stages
from scorefield.runs.cells import Marked, csv_text
from scorefield.studies.settings import Settings

RECORD = "study.json"
"""The file with the settings of a study and the names of all its files."""


CPU = Engine("cpu")
"""The engine of a study unless another is chosen."""


def check_free(folder: Path, overwrite: bool) -> None:
    """Checks that results may be written into a folder, before they are computed."""
    check_writable(folder.absolute().parent)
    if not (folder.exists() or folder.is_symlink()):
        return
    if not overwrite:
        raise RunError(f"{folder} exists; overwrite it, or give another output directory")
    if folder.is_symlink() or not folder.is_dir():
        raise RunError(f"{folder} is no folder, and is not overwritten: remove it")
    results = _results(folder)
    # As they come: the folder may be a home, or a whole disk.
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        if (file.is_symlink() or not file.is_dir()) and name not in results:
            raise RunError(f"{folder} holds {name}, which is no result: it is not overwritten")


def prepare_process() -> None:
    """Sets up a process of a pool: one thread, and an interrupt is left to the process that started
    this one.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def json_bytes(record: Mapping[str, Any]) -> bytes:
    """A record as JSON."""
    return (json.dumps(record, indent=2, allow_nan=False) + "\n").encode()


def csv_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Records as CSV under the names of the first; numbers read back as they are."""
    return csv_text(list(rows)).encode()


def npz_bytes(arrays: Mapping[str, Any]) -> bytes:
    """Arrays as a compressed npz without pickles."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()


def _results(folder: Path) -> set[str]:
    """The names of the files of a study in its folder."""
    try:
        names = json.loads(read_file(folder / RECORD, DOCUMENT))["files"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return set()
    return set(map(str, names)) if isinstance(names, list) else set()


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
        """A part by its name: as it was kept, or computed and kept."""
        kept: T | None = self.kept(name)
        return self.keep(name, compute()) if kept is None else kept

    def kept(self, name: str) -> Any | None:
        """A part that was kept; ``None`` if it was not."""
        file = self._file(name)
        if file is None or not file.is_file():
            return None
        try:
            with open_file(file) as content:
                return archives.load(content, self._kinds)
        except UserError as error:
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
        """Shows how much of a stage is done, and the time that is left of it."""
        if self._stages is not None:
            self._stages.advance(stage, done, total, note)

    def report(self, line: str) -> None:
        """Prints that something is done, where there are no bars to show it."""
        if self._stages is not None:
            self._stages.report(line)

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


R = TypeVar("R")
S = TypeVar("S", bound=Settings)


class NotMade(RunError):
    """A file that could not be made, without which a study is still worth writing."""


Cell = str | int | float | Estimate | Marked | Median | None
"""What a table has in a place."""


class Table(NamedTuple):
    """What is printed: headings, a row of cells a line, and what one must know of them. Numbers are
    cells as they are: they are rounded where they are printed.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()


class Study(ABC, Generic[S, R]):
    """A study, opened: its settings and all that it works on.

    Attributes:
        kinds: The classes that its parts are made of.
        settings: The settings.
        about: What the numbers depend on besides the settings, as plain values.
    """

    kinds: ClassVar[tuple[type, ...]] = ()
    settings: S
    about: Mapping[str, Any]

    def __init__(self, settings: S) -> None:
        self.settings = settings
        self.about = {}

    @classmethod
    def open(cls, settings: S) -> Study[S, R]:
        """Opens what the settings name."""
        return cls(settings)

    def evaluated(self) -> Iterable[ScoreField]:
        """The fields that are evaluated on the device of the engine."""
        return ()

    @abstractmethod
    def compute(self, work: Work) -> R:
        """The result."""

    @abstractmethod
    def files(self, result: R, work: Work) -> Mapping[str, Callable[[], bytes]]:
        """What makes each file of the results, by its name, which may have folders; one that raises
        :class:`NotMade` is left out.
        """

    @abstractmethod
    def table(self, result: R) -> Table:
        """The numbers that matter most."""


def _computed(study: Study[Any, R], engine: Engine, work: Work) -> R:
    for field in study.evaluated():
        engine.place(field)
    with exact():
        result = study.compute(work)
    # Figures are made of what is on the CPU.
    for field in study.evaluated():
        CPU.place(field)
    return result


class Written(NamedTuple):
    """What came of a study."""

    table: Table
    files: list[Path]
    failure: NotMade | None


def run(
    study: type[Study[S, Any]],
    settings: S,
    out: Path,
    overwrite: bool = False,
    stages: Stages | None = None,
    engine: Engine = CPU,
) -> Written:
    """Makes a study and writes its folder; continues an interrupted one of the same settings. All
    is computed exactly, on the device of the engine.
    """
    engine.check()
    folder = settings.folder(out)
    check_free(folder, overwrite)
    opened = study.open(settings)
    record = {"study": study.__name__, "version": __version__, "settings": settings.plain()}
    record |= {"about": dict(opened.about)}
    key = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
    start = f".unfinished-{folder.name}-"
    place = folder.absolute().with_name(start + key)
    work = Work(place, study.kinds, stages)
    if place.is_dir():
        work.report(f"continues what was interrupted: {len(list(place.iterdir()))} parts are done")
    result = _computed(opened, engine, work)
    makers = opened.files(result, work)
    files: dict[str, bytes] = {}
    failed: dict[str, NotMade] = {}
    for done, (name, make) in enumerate(makers.items()):
        work.show("files", done, len(makers), name)
        try:
            files[name] = work.part(f"file {name}", make)
        except NotMade as error:
            failed[name] = error
    work.show("files", len(makers), len(makers))
    work.report(f"{len(files)} files")
    record["files"] = sorted([*files, RECORD])
    check_free(folder, overwrite)
    written = write_folder(folder, {**files, RECORD: json_bytes(record)}, overwrite)
    for finished in folder.parent.glob(start + "*"):
        delete_folder(finished)
    failure = None
    if failed:
        name, reason = next(iter(failed.items()))
        others = "" if len(failed) == 1 else f" and {len(failed) - 1} more"
        message = f"{folder / name}{others} could not be made: {reason}; all else is there"
        failure = NotMade(message)
    return Written(opened.table(result), written, failure)

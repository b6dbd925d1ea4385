"""The frame of every study: settings, parts that survive an interruption, a folder of results.

A study computes a result of named parts and makes tables, arrays and figures of it. Each part and
each file is kept in a hidden work folder beside the results as soon as it is done, so that the same
command, started again, continues where it was interrupted. The work folder is found by all that the
numbers depend on. The results are written whole or not at all, and nothing is overwritten unless
``--overwrite`` is given.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from scorefield import __version__
from scorefield.errors import RunError
from scorefield.files import write_folder
from scorefield.progress import Stages
from scorefield.studies.results import RECORD, check_free, json_bytes
from scorefield.studies.settings import Settings
from scorefield.studies.work import Work

R = TypeVar("R")
S = TypeVar("S", bound=Settings)


class NotMade(RunError):
    """A file that could not be made, without which a study is still worth writing."""


class Table(NamedTuple):
    """What is printed: headings, and a row of cells a line."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


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

    @classmethod
    @abstractmethod
    def open(cls, settings: S) -> Study[S, R]:
        """Opens what the settings name.

        Raises:
            ConfigError: If the settings contradict themselves.
            RunError: If what they name cannot be used.
            OSError: If a file cannot be read.
        """

    @abstractmethod
    def compute(self, work: Work) -> R:
        """The result.

        Raises:
            ValueError: If a field or the settings do not allow it.
            FloatingPointError: If a value is not finite.
        """

    @abstractmethod
    def files(self, result: R, work: Work) -> Mapping[str, Callable[[], bytes]]:
        """What makes each file of the results, by its name; a name may have folders.

        One that raises :class:`NotMade` is left out.
        """

    @abstractmethod
    def table(self, result: R) -> Table:
        """The numbers that matter most."""


@dataclass(frozen=True)
class Written:
    """What came of a study.

    Attributes:
        table: The numbers that matter most.
        files: The files.
        failure: Why one is missing; ``None`` if none is.
    """

    table: Table
    files: list[Path]
    failure: NotMade | None


def run(
    study: type[Study[S, Any]],
    settings: S,
    out: Path,
    overwrite: bool = False,
    stages: Stages | None = None,
) -> Written:
    """Makes a study and writes its folder; continues an interrupted one of the same settings.

    Arguments:
        study: The study.
        settings: The settings.
        out: The folder that they take, or the one above it.
        overwrite: Whether results may be replaced.
        stages: Shows how far the work is.

    Raises:
        ConfigError, RunError, ValueError, FloatingPointError: As of :class:`Study`.
        RunError: If there are results that are not to be overwritten.
        OSError: If a file cannot be written; nothing is changed then.
    """
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
    result = opened.compute(work)
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
        shutil.rmtree(finished)
    return Written(opened.table(result), written, _failure(folder, failed))


def _failure(folder: Path, failed: Mapping[str, NotMade]) -> NotMade | None:
    if not failed:
        return None
    name, error = next(iter(failed.items()))
    others = "" if len(failed) == 1 else f" and {len(failed) - 1} more"
    return NotMade(f"{folder / name}{others} could not be made: {error}; all else is there")

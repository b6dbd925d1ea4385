"""The teacher of a distillation: the averaged weights in a checkpoint of another training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scorefield.code import hash_of
from scorefield.config.objective import TeacherSection
from scorefield.errors import ConfigError, UserError, section_of
from scorefield.fields.base import ScoreField
from scorefield.files import absence
from scorefield.progress import warn
from scorefield.training import checkpoint as checkpoints
from scorefield.training.checkpoint import Checkpoint
from scorefield.training.described import field_of

WHERE = "objective.teacher"
"""The key of the section."""


def settled(section: TeacherSection) -> dict[str, Any]:
    """The step and the hash of the newest checkpoint of a run, unless they are given.

    Raises:
        ConfigError: If there is no run, or it has no checkpoint that can be read.
    """
    with section_of(WHERE, keys=section):
        found = _checkpoint(section)
        return {"step": found.step, "sha256": section.sha256 or _hash(found)}


def load(section: TeacherSection) -> ScoreField:
    """The field of the checkpoint, in evaluation mode.

    Raises:
        ConfigError: As of :func:`settled`; also if the weights are not those of the hash, or the
            field cannot be made again from its file.
    """
    with section_of(WHERE, keys=section):
        found = _checkpoint(section)
        there = _hash(found)
        if section.sha256 not in (None, there):
            raise UserError(
                f"sha256 is {str(section.sha256)[:12]}…, and that of the averaged weights in "
                f"{found.path} is {there[:12]}…: they are not those of the configuration"
            )
        return field_of(found.ema, found.path / checkpoints.WEIGHTS[1], section.trusted)


def _checkpoint(section: TeacherSection) -> Checkpoint:
    if section.run is None:
        raise ConfigError(section.MISSING)
    run = Path(section.run)
    folder = run / "checkpoints"
    if why := absence(run):
        raise UserError(f"run is {section.run!r}{why}")
    if not checkpoints.paths(folder):
        raise UserError(f"run is {section.run!r}, which has no checkpoint: train it first")
    if section.step is not None:
        return checkpoints.read(folder / checkpoints.name_of(section.step))
    found = checkpoints.latest(folder, warn)
    if found is None:
        raise UserError(f"run is {section.run!r}, of whose checkpoints none can be read")
    return found


def _hash(found: Checkpoint) -> str:
    return hash_of(found.path / checkpoints.WEIGHTS[1])

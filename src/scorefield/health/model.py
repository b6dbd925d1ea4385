"""The model that a user names on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from scorefield.data.source import DataSource
from scorefield.evaluation.levels import Levels, levels_of
from scorefield.fields.base import ScoreField
from scorefield.likelihood.density import CENTERED_BYTES, DataTransform
from scorefield.runs.subject import open_subject


@dataclass(frozen=True)
class Model:
    """A field, the data that it was trained on and how their bytes became points, where that is
    known, fields that it might be meant to be, by a clause on what would be otherwise, and how the
    bytes of images become its points, if they do.
    """

    field: ScoreField
    source: DataSource | None = None
    levels: Levels | None = None
    alternatives: Mapping[str, ScoreField] = field(default_factory=dict)
    transform: DataTransform | None = CENTERED_BYTES


def open_model(
    name: str, weights: Literal["ema", "raw"] = "ema", trust_code: bool = False
) -> Model:
    """The model of a name, see :func:`scorefield.runs.subject.open_model`, at points of any class.

    Raises:
        UserError: As there; and if it knows points of one class only.
    """
    subject = open_subject(name, weights, trust_code=trust_code)
    levels = None if subject.config is None else levels_of(subject.config.data)
    others = {}
    if weights == "raw" and subject.folder is not None:
        averaged = open_subject(name, "ema", trust_code=trust_code).field
        others["the averaged weights were used"] = averaged
    transform = subject.transform if subject.config is None else CENTERED_BYTES
    return Model(subject.field, subject.source, levels, others, transform)

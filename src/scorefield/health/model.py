"""The model that a user names on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scorefield.config.custom import imported
from scorefield.data.source import DataSource
from scorefield.errors import RunError, UserError
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


def open_model(name: str, weights: str = "ema", trust_code: bool = False) -> Model:
    """The model of a name: a run, a file of weights, or ``package.module:factory`` of a function
    without arguments that returns a field.

    The module is looked for where Python looks, and in the working directory: its code is executed.

    Raises:
        RunError: If there is no such run, file or function.
        UserError: If the function returns no field.
    """
    if ":" in name and not Path(name).exists():
        return Model(_made(name))
    path = Path(name)
    if not path.exists():
        raise RunError(
            f"{name} is neither a run nor a file, nor package.module:factory of a function that "
            "returns a field"
        )
    subject = open_subject(path, weights, trust_code=trust_code)  # type: ignore[arg-type]
    levels = None if subject.config is None else levels_of(subject.config.data)
    others = {}
    if weights == "raw" and subject.folder is not None:
        averaged = open_subject(path, "ema", trust_code=trust_code).field
        others["the averaged weights were used"] = averaged
    transform = subject.transform if subject.config is None else CENTERED_BYTES
    return Model(subject.field, subject.source, levels, others, transform)


def _made(name: str) -> ScoreField:
    factory = imported(name, "the model")
    made = factory() if callable(factory) and not isinstance(factory, ScoreField) else factory
    if not isinstance(made, ScoreField):
        raise UserError(
            f"{name} returns {type(made).__name__}, it must return a field: sf.wrap makes one of a "
            "network"
        )
    return made

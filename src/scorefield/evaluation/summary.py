"""What ``compute_summary.json`` must hold: all that is read from it later is checked here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from scorefield.errors import UserError
from scorefield.evaluation.catalogue import OF_LEVELS
from scorefield.files import DOCUMENT, read_file

Count = Annotated[int, Field(ge=0, le=2**62)]
Size = Annotated[int, Field(ge=1, le=2**62)]
Seed = Annotated[int, Field(ge=-(2**62), le=2**62)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Plain = bool | int | float | str | None


class _Part(BaseModel):
    """A mapping whose named values are checked; others are kept as they are."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Compute(_Part):
    parameters: Count
    steps: Count
    batch_size: Size
    images: Count | None = None
    threads: Size | None = None
    rows: Size | None = None
    seconds_per_step: Positive | None = None
    seconds_per_step_error: NonNegative | None = None
    multiply_adds_per_call: NonNegative | None = None
    multiply_adds_per_step: NonNegative | None = None
    calls_per_step: NonNegative | None = None

    @model_validator(mode="after")
    def _check_rows(self) -> _Compute:
        if self.seconds_per_step_error is not None and self.rows is None:
            raise UserError("an error of the time per step needs its number of rows")
        return self


class _Protocol(_Part):
    nfes: Annotated[list[Size], Field(min_length=1)]
    along: Size | None
    samples: Size
    pairs: Size
    sigmas: Annotated[list[Positive], Field(min_length=1)]
    points: Size
    columns: Size
    draws: Size
    seed: Seed
    # The records of the first version do not name it.
    sampler: Literal["euler", "heun"] = "heun"
    estimators: dict[str, dict[str, Plain | list[Plain]] | Plain] = {}

    @model_validator(mode="after")
    def _check_estimators(self) -> _Protocol:
        for key in {m.estimator.key for m in OF_LEVELS} & self.estimators.keys():
            if not isinstance(self.estimators[key], dict):
                raise UserError(f"the settings of the estimator {key} are no mapping")
        return self


class _Machine(_Part):
    devices: list[str] | str | None = None


class _About(_Part):
    label: Name | None = None
    description: str | None = None
    data: str | None = None
    versions: dict[str, str | None] | None = None
    machine: _Machine | None = None
    preset: str | None = None
    overrides: list[str] = []


class _Loss(_Part):
    value: float
    standard_error: NonNegative
    numerical_error: NonNegative
    n: Count
    freedom: Positive | None = None
    unit: str
    settings: dict[str, Any]


class _Summary(_Part):
    dataset: Name
    model: Name
    seed: Seed
    step: Count
    validation_loss: _Loss
    compute: _Compute
    protocol: _Protocol
    about: _About


def read_summary(path: Path) -> dict[str, Any]:
    """The content of a ``compute_summary.json``, checked.

    Raises:
        UserError: If a value is missing or of the wrong kind; it is named.
        OSError: If the file cannot be read.
    """
    try:
        content = json.loads(read_file(path, DOCUMENT))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path.name} is not JSON: {error}") from error
    try:
        _Summary.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        words = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path.name}: {place or 'the whole'}: {words}") from error
    found: dict[str, Any] = content
    return found

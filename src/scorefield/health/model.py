"""What a user names on the command line: a model, and data for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scorefield.config.build import build_source
from scorefield.config.custom import imported
from scorefield.config.resolve import ENDINGS, load_config
from scorefield.data.array_files import map_array, read_arrays
from scorefield.data.images import images
from scorefield.data.point_files import PointFile
from scorefield.data.source import DataSource
from scorefield.errors import RunError, UserError
from scorefield.evaluation.levels import Levels, levels_of
from scorefield.fields.base import ScoreField
from scorefield.likelihood.density import CENTERED_BYTES
from scorefield.runs.subject import open_subject

_ARRAYS = (".npy", ".npz")


@dataclass(frozen=True)
class Model:
    """A field, the data that it was trained on and how their bytes became points, where that is
    known, and fields that it might be meant to be, by a clause on what would be otherwise.
    """

    field: ScoreField
    source: DataSource | None = None
    levels: Levels | None = None
    alternatives: Mapping[str, ScoreField] = field(default_factory=dict)


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
    return Model(subject.field, subject.source, levels, others)


def _made(name: str) -> ScoreField:
    factory = imported(name, "the model")
    made = factory() if callable(factory) and not isinstance(factory, ScoreField) else factory
    if not isinstance(made, ScoreField):
        raise UserError(
            f"{name} returns {type(made).__name__}, it must return a field: sf.wrap makes one of a "
            "network"
        )
    return made


def open_data(name: str, shape: tuple[int, ...]) -> tuple[DataSource, Levels | None]:
    """The data of a name, for points of a shape, and how their bytes became points.

    Arguments:
        name: A preset or a configuration file, for its data; a file ending in ``.npy`` or ``.npz``
            with one array of points, floating ones as they are, or bytes of images; or any set of
            images that :func:`~scorefield.data.images.images` takes, which are in [-1, 1] then.

    Raises:
        UserError: If there are no such data, or they do not fit.
    """
    path = Path(name)
    if name.endswith(ENDINGS) or (not path.exists() and "/" in name):
        config = load_config(name)
        return build_source(config), levels_of(config.data)
    if path.suffix in _ARRAYS and (len(shape) != 3 or _floating(path)):
        return PointFile(path), None
    if len(shape) != 3:
        raise UserError(
            f"{name} would be read as images, and the model has points of shape {shape}"
        )
    channels, height, width = shape
    return images(path, size=(height, width), channels=channels, centered=True), Levels(
        CENTERED_BYTES
    )


def _floating(path: Path) -> bool:
    """Whether a file has an array of floating-point numbers."""
    try:
        arrays = [map_array(path)] if path.suffix == ".npy" else read_arrays(path).values()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return any(array.dtype.kind == "f" for array in arrays)

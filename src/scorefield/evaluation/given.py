"""The data that a user names on the command line, as points of a model."""

from __future__ import annotations

from pathlib import Path

from scorefield.config import presets
from scorefield.config.build import build_source
from scorefield.config.resolve import ENDINGS, load_config
from scorefield.data.array_files import map_array, read_arrays
from scorefield.data.images import images
from scorefield.data.point_files import PointFile
from scorefield.data.source import DataSource
from scorefield.errors import UserError, nearest
from scorefield.evaluation.levels import Levels, levels_of
from scorefield.likelihood.density import CENTERED_BYTES, DataTransform

_ARRAYS = (".npy", ".npz")


def open_data(
    name: str, shape: tuple[int, ...], transform: DataTransform | None = CENTERED_BYTES
) -> tuple[DataSource, Levels | None]:
    """The data of a name, for points of a shape, and how their bytes became points.

    Arguments:
        name: A preset or a configuration file, for its data; a file ending in ``.npy`` or ``.npz``
            with one array of points, floating ones as they are, or bytes of images; or any set of
            images that :func:`~scorefield.data.images.images` takes.
        transform: How bytes of images become points; ``None`` if they do not, as where points are
            latents.

    Raises:
        UserError: If there are no such data, or they do not fit.
    """
    path = Path(name)
    if name.endswith(ENDINGS) or (not path.exists() and "/" in name):
        config = load_config(name)
        return build_source(config), levels_of(config.data)
    if not path.exists():
        raise UserError(
            f"there are no data called {name!r}: give a preset, a set of images, or a file ending "
            f"in .npy or .npz{_nearest(path)}"
        )
    if path.suffix in _ARRAYS and (len(shape) != 3 or _floating(path)):
        return PointFile(path), None
    if len(shape) != 3:
        raise UserError(
            f"{name!r} would be read as images, and the model has points of shape {shape}"
        )
    if transform is None:
        raise UserError(
            f"{name!r} would be read as images, and the points of the model are none: give a file "
            "of floating-point numbers, .npy or .npz"
        )
    channels, height, width = shape
    centered = transform == CENTERED_BYTES
    source = images(path, size=(height, width), channels=channels, centered=centered)
    return source, Levels(transform)


def _floating(path: Path) -> bool:
    """Whether a file has an array of floating-point numbers."""
    try:
        arrays = [map_array(path)] if path.suffix == ".npy" else read_arrays(path).values()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return any(array.dtype.kind == "f" for array in arrays)


def _nearest(path: Path) -> str:
    """A clause with the presets and paths that a misspelt one most resembles."""
    there = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    near = nearest(path.name, [other.name for other in there], path.parent)
    near = near or nearest(path, presets.names())
    return f"; {near}" if near else ""

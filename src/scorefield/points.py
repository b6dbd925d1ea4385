"""Points as PyTorch's users have them: tensors, arrays, sequences, data sets, loaders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
    default_convert,
)

from scorefield.checks import check_data, check_rows
from scorefield.errors import UserError

# What a list or tuple begins with that is a point by itself, and no pair.
_PARTS = (int, float, np.number, list, tuple)

Given = Tensor | NDArray[Any] | Sequence[Any] | Dataset[Any] | DataLoader[Any]
"""What :func:`points_of` takes."""


def points_of(data: Given) -> tuple[Tensor, Tensor | None]:
    r"""The points, of shape ``(n, *shape)``, and the class of each where they have classes.

    Tensors, arrays and sequences hold one point each in their rows, data sets one in each item; a
    row of a sequence or an item may be a pair of a point and its class, an integer from 0. All are
    read into memory once, a loader's data set in its own order.

    Raises:
        ValueError: If the data are something else or have no points; if the points differ in
            shape, are neither floating-point numbers nor bytes, or are not finite; if only some
            have classes; or if a data set has no length, or a loader chooses or changes its items
            in its own way.
    """
    if isinstance(data, DataLoader):
        data = _items_of(data)
    if isinstance(data, Tensor | np.ndarray):
        points, classes = _tensor(data), None
    elif isinstance(data, list | tuple | Dataset) and not isinstance(data, IterableDataset):
        points, classes = _rows(data)
    else:
        raise UserError(
            "data are a Target, a DataSource, a tensor, an array, or a sequence, a data set with a "
            f"length or a DataLoader of points or pairs of a point and its class, not "
            f"{_kind(data)}"
        )
    if points.dtype != torch.uint8 and not points.is_floating_point():
        raise UserError(f"points are floating-point numbers or bytes, got {points.dtype}")
    check_rows("points", points)
    return points, classes


def numbers_of(name: str, data: Given) -> tuple[Tensor, Tensor | None]:
    """As :func:`points_of`, but bytes are refused, which would be numbers up to 255 beside samples
    of unit scale; ``name`` is for the error.
    """
    points, classes = (data, None) if isinstance(data, Tensor) else points_of(data)
    check_data(name, points)
    return points, classes


def _items_of(loader: DataLoader[Any]) -> Dataset[Any]:
    """The data set of a loader that does no more than to make batches of it."""
    if isinstance(loader.dataset, IterableDataset):
        return loader.dataset
    plain = isinstance(loader.sampler, RandomSampler | SequentialSampler)
    if not plain or loader.collate_fn not in (default_collate, default_convert):
        own = "collate_fn" if plain else "sampler"
        raise UserError(
            f"fit draws batches itself and would leave out the loader's own {own}: give a data "
            "set, or the points"
        )
    return loader.dataset


def _rows(items: Any) -> tuple[Tensor, Tensor | None]:
    """The points of items, and their classes if they have any."""
    try:
        count = len(items)
    except TypeError as error:
        raise UserError(f"a {type(items).__name__} has no length: give its points") from error
    points, classes = [], []
    for k in range(count):
        item = items[k]
        if isinstance(item, list | tuple) and item and not isinstance(item[0], _PARTS):
            points.append(_tensor(item[0]))
            classes += [_class(value) for value in item[1:2]]
            if len(item) > 2:
                raise UserError(f"an item is a point or a point and its class, got {len(item)}")
        else:
            points.append(_tensor(item))
    shapes = {tuple(point.shape) for point in points}
    if len(shapes) > 1:
        raise UserError(f"points have one shape, got {' and '.join(map(str, sorted(shapes)))}")
    if classes and len(classes) < len(points):
        raise UserError(f"{len(points)} points need as many classes, got {len(classes)}")
    kinds = {point.dtype for point in points}
    if torch.uint8 in kinds and len(kinds) > 1:
        raise UserError(
            f"points are all bytes or none, got {' and '.join(sorted(map(str, kinds)))}"
        )
    stacked = torch.stack(points) if points else torch.empty(0)
    return stacked, torch.tensor(classes) if classes else None


def _tensor(value: Any) -> Tensor:
    """A point, or all of them, as a tensor."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray | np.number | int | float | list | tuple):
        try:
            # What torch takes: in order, and not read-only.
            return torch.from_numpy(np.require(value, requirements=["C", "W"]))
        except (TypeError, ValueError):
            pass
    raise UserError(f"a point is a tensor or an array of numbers, got {_kind(value)}")


def _class(value: Any) -> int:
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise UserError(f"the class of a point is an integer from 0, got {_kind(value)}")
    return int(value)


def _kind(value: object) -> str:
    if isinstance(value, Tensor | np.ndarray):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, bool | int | float):
        return repr(value)
    return f"a {type(value).__name__}"

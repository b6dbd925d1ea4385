"""Data as PyTorch's users have them, made a source."""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield.data.arrays import ArraySource, LabelledSource
from scorefield.data.image_files import Images, Splits
from scorefield.data.images import ImageSource
from scorefield.data.source import DataSource, TargetSource
from scorefield.points import Given, points_of
from scorefield.targets.base import Target

Data = Target | DataSource | Given
"""What :func:`source_of` takes."""

_NAME = "points"


def source_of(data: Data) -> DataSource:
    r"""The source of data.

    Points are taken as :func:`~scorefield.points.points_of` says. Floating-point numbers are the
    points themselves; bytes :math:`p` become :math:`p / 255`, as those of image files do.

    Raises:
        ValueError: As of :func:`~scorefield.points.points_of`.
    """
    if isinstance(data, DataSource):
        return data
    if isinstance(data, Target):
        return TargetSource(data)
    points, classes = points_of(data)
    if points.dtype == torch.uint8:
        return _images(points, classes)
    if classes is None:
        return ArraySource(points, points[:0], _NAME)
    return LabelledSource(points, points[:0], classes, classes[:0], _NAME)


def _images(pixels: Tensor, classes: Tensor | None) -> ImageSource:
    none = Images(pixels[:0], None if classes is None else classes[:0])
    splits = Splits(Images(pixels, classes), none)
    count = None if classes is None else int(classes.max()) + 1
    return ImageSource(lambda: splits, _NAME, tuple(pixels.shape[1:]), count)

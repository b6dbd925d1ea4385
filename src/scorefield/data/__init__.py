"""Data sets: training points and reference points."""

from scorefield.data.arrays import ArraySource, LabelledSource, digits
from scorefield.data.images import ImageSource, image_source
from scorefield.data.source import DataSource, Split, TargetSource

__all__ = [
    "DataSource",
    "Split",
    "TargetSource",
    "ArraySource",
    "LabelledSource",
    "digits",
    "ImageSource",
    "image_source",
]

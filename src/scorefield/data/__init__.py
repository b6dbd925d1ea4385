"""Data sets: training points and reference points."""

from scorefield.data.arrays import ArraySource as ArraySource
from scorefield.data.arrays import LabelledSource as LabelledSource
from scorefield.data.arrays import digits as digits
from scorefield.data.images import ImageSource as ImageSource
from scorefield.data.images import image_source as image_source
from scorefield.data.source import DataSource as DataSource
from scorefield.data.source import Split as Split
from scorefield.data.source import TargetSource as TargetSource

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

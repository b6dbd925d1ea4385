"""Where training and reference points come from."""

from scorefield.data.arrays import ArraySource as ArraySource
from scorefield.data.labelled import LabelledSource as LabelledSource
from scorefield.data.labelled import digits as digits
from scorefield.data.source import DataSource as DataSource
from scorefield.data.source import Split as Split
from scorefield.data.source import TargetSource as TargetSource

__all__ = ["DataSource", "Split", "TargetSource", "ArraySource", "LabelledSource", "digits"]

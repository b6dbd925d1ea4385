"""What is to be known of a metric: one frozen descriptor each, of one of five kinds.

Evaluation, tables, studies, report and documentation read them; none of them names a metric.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from torch import Tensor

from scorefield.diagnostics.protocol import Profile
from scorefield.estimate import Estimate
from scorefield.evaluation.features import ImageSets
from scorefield.evaluation.protocol import Benchmark
from scorefield.fields.base import ScoreField
from scorefield.samplers.trajectory import Trajectory

Place = Literal["curve", "table", "differences", "training"]
"""Where the report shows a metric: as a curve, in the main table, among the differences between
models, and at the checkpoints along the training and at equal training time.
"""

PROBED_ABOVE, PROBES = 64, 8
"""The dimension up to which Jacobians are exact, and the number of random probes above it."""

Compare = Callable[[Tensor, Tensor], Estimate]
"""A distance between generated and real samples."""


class Finding(NamedTuple):
    """A sentence of the report's summary: its heading, and the quantity as the subject."""

    heading: str
    quantity: str


class Condition(NamedTuple):
    """Which fields and data a metric applies to, in words and as a test."""

    words: str
    holds: Callable[[ScoreField, Benchmark], bool]


ALWAYS = Condition("all fields", lambda field, benchmark: True)


@dataclass(frozen=True, eq=False, kw_only=True)
class Estimator:
    """A measurement by noise level that gives one or more metrics.

    Its plain settings are recorded with the protocol under its key; ``method`` says in a format
    string over them how it measures.
    """

    measure: Callable[[ScoreField, Benchmark], Iterable[Profile]]
    applies: Condition = ALWAYS
    key: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    method: str = ""

    def describe(self, settings: Mapping[str, Any]) -> str:
        """How it measures with these settings, of which records of other versions may lack some;
        empty where there is nothing to say.
        """
        words = {key: _words(value) for key, value in settings.items()}
        return self.method.format_map(defaultdict(lambda: "unrecorded", words))


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, eq=False, kw_only=True)
class Metric:
    """A number that an evaluation gives of a field.

    Attributes:
        name: Its name in records and tables.
        title: The heading of its figure.
        caption: What it is, in a sentence or two.
        label: Its name in tables and sentences of the report; the title by default.
        unit: Its unit; empty for a pure number.
        better: Which of two fields is the better one.
        shown: Where the report shows it.
        finding: Its sentence in the report's summary.
        formerly: Names that it had in older records.
        applies: Which fields and data it applies to, in words.
    """

    name: str
    title: str
    caption: str
    label: str = ""
    unit: str = ""
    better: Literal["lower", "higher", "neither"] = "lower"
    shown: tuple[Place, ...] = ()
    finding: Finding | None = None
    formerly: tuple[str, ...] = ()
    applies: str = ALWAYS.words

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.title[:1].lower() + self.title[1:])


@dataclass(frozen=True, eq=False, kw_only=True)
class OfLevel(Metric):
    """A property of a field at a noise level.

    Attributes:
        over_levels: How it is summed up over noise levels: by root mean square or mean.
        rounding: Below this a value is rounding, or the noise of an estimate without bias.
        radius: The radius of the loops that summaries show, in units of the noise level.
        zero: What a field is for which it vanishes.
    """

    estimator: Estimator
    over_levels: Literal["rms", "mean"] = "rms"
    rounding: float | None = 1e-5
    radius: float | None = None
    zero: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "applies", self.estimator.applies.words)


@dataclass(frozen=True, eq=False, kw_only=True)
class OfSamples(Metric):
    """A distance between generated and real samples, or from the exact distribution.

    Attributes:
        compare: The distances on a benchmark, by the name of their features, where it applies.
        floor: Whether two real sets have such a distance: the noise floor.
        total: Of a count, the setting that holds the largest possible one.
        every_budget: Whether the table shows it at every budget, or at the largest only.
        learned: Whether it is taken on learned features too, which are the ones to compare by.
    """

    compare: Callable[[Benchmark], Sequence[tuple[str, Compare]]]
    applies: str = "all data"
    floor: bool = True
    total: str = ""
    every_budget: bool = False
    learned: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class OfImages(Metric):
    """A number of generated images, by the features of an extractor.

    Attributes:
        estimate: The number; ``None`` where the data set lacks what it takes.
        holds: Whether it applies to the features of an extractor.
        warning: Why the number must not be compared as it is, in a sentence; empty elsewhere.
    """

    estimate: Callable[[ImageSets], Estimate | None]
    holds: Callable[[ImageSets], bool]
    warning: Callable[[ImageSets], str] = lambda sets: ""


@dataclass(frozen=True, eq=False, kw_only=True)
class OfPaths(Metric):
    """A property of the sampler's paths, ``None`` where they are too short."""

    read: Callable[[Trajectory], Estimate | None]


@dataclass(frozen=True, eq=False, kw_only=True)
class OfField(Metric):
    """A property of a field as a whole."""

    measure: Callable[[ScoreField, Benchmark], Estimate]

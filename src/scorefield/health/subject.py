"""What is checked: a field beside data, and the points that it is measured on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import cached_property

import torch
from torch import Tensor

from scorefield.data.source import DataSource, Split
from scorefield.engine import Engine
from scorefield.estimate import Estimate
from scorefield.evaluation.levels import Levels
from scorefield.evaluation.protocol import PRECISION, Benchmark, Protocol
from scorefield.fields.base import ScoreField
from scorefield.health.points import held_out, noise_levels, split_of
from scorefield.health.readings import Reading, readings

FEW = 4
"""The number of points of a diagnostic at its smallest size."""
_LEVELS, _ROUGH = 5, 0.2


@dataclass(frozen=True)
class Subject:
    """What is checked: a field, the data, how integers became their points if they were integers,
    other fields that might have been meant, by what would be otherwise, and the engine of the
    samples. Noise floors are kept by the size of a set.
    """

    field: ScoreField
    source: DataSource
    seed: int
    levels: Levels | None = None
    alternatives: Mapping[str, ScoreField] = dataclass_field(default_factory=dict)
    engine: Engine = dataclass_field(default_factory=Engine)
    floors: dict[int, Estimate | None] = dataclass_field(default_factory=dict)

    def readings(self) -> Iterator[Reading]:
        """All other readings of the model."""
        for words, other in self.alternatives.items():
            yield Reading("weights", words, other)
        yield from readings(self.field, self.source.std)

    @cached_property
    def held_out(self) -> int:
        """The number of points to measure on; a great number, where there is no end of them."""
        n = held_out(self.source)
        if n is None:
            return 1 << 20
        return n or int(self.source.size or 0)

    @property
    def split(self) -> Split:
        """The split that the points are from."""
        return split_of(self.source)

    @property
    def labelled(self) -> bool:
        """Whether the field is evaluated with the class of each point."""
        return self.field.classes is not None and self.source.classes is not None

    @property
    def shown(self) -> int:
        """How many samples the page shows: a sheet of images, or a cloud of points."""
        return 36 if len(self.field.domain.shape) == 3 else 1000

    def points(self, n: int) -> Tensor:
        """Some of the points to measure on."""
        return self.source.reference(min(n, self.held_out), self.seed, self.split, torch.float64)

    def classes(self, n: int) -> Tensor | None:
        """Their classes, if the field is evaluated with them."""
        if not self.labelled:
            return None
        return self.source.reference_classes(min(n, self.held_out), self.seed, self.split)

    def benchmark(self, size: int) -> Benchmark:
        """The data under the protocol of a size: a few points at each level, and Jacobians at all
        of them.
        """
        n = min(FEW << size, self.held_out)
        protocol = Protocol(sigmas=self.sigmas, samples=max(n, 2), points=n,
                            columns=2 * n * self.field.domain.dim, seed=self.seed)  # fmt: skip
        # Probes add as much to the error of a few points as these have.
        precision = max(PRECISION, _ROUGH / 2 ** (size / 2))
        return Benchmark(self.source, protocol, split=self.split, labelled=self.labelled,
                         precision=precision)  # fmt: skip

    @cached_property
    def sigmas(self) -> tuple[float, ...]:
        """The noise levels of the diagnostics."""
        levels = noise_levels(self.field, self.source.std)
        return levels[2 : 2 + 2 * _LEVELS : 2][:_LEVELS]

    def most(self, first: int) -> int:
        """How often a number of points can be doubled."""
        return max(0, (self.held_out // first).bit_length() - 1)

"""The measures of a score error that are compared: each by noise level, at common points."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from scorefield.comparison.groups import over_levels
from scorefield.diagnostics.exterior import relative_asymmetry
from scorefield.diagnostics.fokker_planck import fokker_planck_error
from scorefield.diagnostics.observable import observable_error
from scorefield.diagnostics.protocol import Protocol
from scorefield.diagnostics.score_error import score_error
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue.curl import RELATIVE_ASYMMETRY
from scorefield.evaluation.catalogue.metric import OfLevel
from scorefield.evaluation.catalogue.score import FOKKER_PLANCK, OBSERVABLE_ERROR, SCORE_ERROR
from scorefield.evaluation.records import Level
from scorefield.fields.base import ScoreField
from scorefield.targets.base import Target

MEASURES: tuple[OfLevel, ...] = (SCORE_ERROR, RELATIVE_ASYMMETRY, OBSERVABLE_ERROR, FOKKER_PLANCK)
_COMPUTE = (score_error, relative_asymmetry, observable_error)


def middles(low: float, high: float, count: int) -> list[float]:
    """The middles of so many bands of noise levels, of equal width in the logarithm."""
    place = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return (math.log(low) + math.log(high / low) * place).exp().tolist()


def errors_by_level(field: ScoreField, truth: Target, protocol: Protocol) -> tuple[Level, ...]:
    """All measures of the error of a field at all noise levels."""
    profiles = [compute(field, truth, protocol) for compute in _COMPUTE]
    profiles.append(fokker_planck_error(field, truth, protocol))
    return tuple(
        Level(metric.name, sigma, estimate)
        for metric, profile in zip(MEASURES, profiles, strict=True)
        for sigma, estimate in profile
    )


def over_all(levels: Sequence[Level], metric: OfLevel) -> Estimate:
    """A measure over all noise levels, as the catalogue sums it up."""
    found = over_levels([level for level in levels if level.metric == metric.name])
    assert found is not None
    return found

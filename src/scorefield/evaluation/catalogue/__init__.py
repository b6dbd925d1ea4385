"""The catalogue of metrics: one entry each, in the order in which they are shown.

A metric is added by its estimator and an entry in one of the files of this folder, which ends with
the list of its entries; evaluation, tables, studies, report and documentation follow from it.
"""

from __future__ import annotations

from typing import Any

from scorefield.evaluation.catalogue import curl, images, samples, score
from scorefield.evaluation.catalogue.metric import Metric

OF_FIELD, OF_SAMPLES, OF_PATHS = samples.OF_FIELD, samples.OF_SAMPLES, samples.OF_PATHS
OF_IMAGES = images.OF_IMAGES
OF_LEVELS = (*score.OF_SCORE, *curl.OF_CURL, *score.BETWEEN_LEVELS)

CATALOGUE: tuple[Metric, ...] = (*OF_FIELD, *OF_LEVELS, *OF_SAMPLES, *OF_IMAGES, *OF_PATHS)
"""Every metric of an evaluation."""

TARGET = samples.SLICED_WASSERSTEIN
"""The distance in which targets of the sample quality are stated."""
VALIDATION = samples.VALIDATION_LOSS
"""The one number of a field that needs neither samples nor a known distribution."""

_BY_NAME = {name: m for m in CATALOGUE for name in (m.name, *m.formerly)}


def find(name: str) -> Metric | None:
    """The metric of a name, a former one included; ``None`` for one of another version."""
    return _BY_NAME.get(name)


def current_name(name: str) -> str:
    """The name that a metric has today."""
    metric = find(name)
    return name if metric is None else metric.name


def estimator_settings() -> dict[str, Any]:
    """The settings of all estimators by noise level, as plain values, stored with the protocol."""
    found = {m.estimator.key: dict(m.estimator.settings) for m in OF_LEVELS if m.estimator.key}
    return {"most_coordinates": curl.COORDINATES, **found}

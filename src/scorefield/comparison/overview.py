"""The numbers of one evaluation, as few as show how good the run is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scorefield.comparison.groups import distance_key, over_levels
from scorefield.comparison.marks import difference_of, explained, of_number
from scorefield.comparison.paired import Pair
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue import OF_IMAGES, OF_LEVELS, OF_SAMPLES, VALIDATION
from scorefield.evaluation.catalogue.metric import Metric, OfSamples
from scorefield.evaluation.records import Distance, Evaluation
from scorefield.runs.cells import Marked


def overview(evaluation: Evaluation, compared: Sequence[Pair] = ()) -> list[dict[str, Any]]:
    """A row a number: distances of samples by each method and number of network calls, those of
    real samples next to them where there are any; the validation loss; and each diagnostic over
    all its noise levels, at the radius at which it is summed up; each with its mark, where there
    are differences from the first model.

    Of the distances, those that the catalogue shows at the largest number of calls only are of that
    alone.
    """
    samplers = dict.fromkeys(d.sampler for d in evaluation.distances if d.sampler)
    rows = []
    for metric in (*OF_SAMPLES, *OF_IMAGES):
        every = isinstance(metric, OfSamples) and metric.every_budget
        found = [
            d
            for sampler in samplers
            for d in sorted(evaluation.by(sampler), key=lambda d: (d.features, d.budget))
            if d.metric == metric.name
        ]
        several = len({d.features for d in found}) > 1 or metric in OF_IMAGES
        most = {(d.sampler, d.features): d.budget for d in found}
        rows += [
            _of_samples(metric, d, f" on {d.features}" if several else "", compared)
            for d in found
            if every or d.budget == most[d.sampler, d.features]
        ]
    loss = difference_of(VALIDATION, compared)
    rows.append(_row(VALIDATION, "", "all noise levels", evaluation.validation, loss))
    for metric in OF_LEVELS:
        levels = [
            v for v in evaluation.profile(metric.name) if metric.radius in (None, v.scale_delta)
        ]
        summary = over_levels(levels)
        if summary is not None:
            difference = difference_of(metric, compared)
            rows.append(_row(metric, "", _words(len(levels)), summary, difference))
    return rows


def _of_samples(metric: Metric, d: Distance, on: str, compared: Sequence[Pair]) -> dict[str, Any]:
    real = None
    if d.floor is not None:
        real = Estimate(d.floor.mean, d.floor.mean_error, d.floor.pairs)
    difference = next((p.difference for p in compared if p.key == distance_key(d)), None)
    return _row(metric, on, f"{d.nfe} calls, {d.sampler}", d.estimate, difference, real)


def _row(
    metric: Metric,
    on: str,
    at: str,
    value: Estimate,
    difference: Estimate | None,
    real: Estimate | None = None,
) -> dict[str, Any]:
    return {
        "quantity": f"{metric.label}{on}",
        "at": at,
        "value": Marked(value, of_number(metric, value, difference).words),
        "of real samples": real,
    }


def _words(levels: int) -> str:
    return f"{levels} noise levels" if levels > 1 else "1 noise level"


def notes(evaluation: Evaluation, compared: Sequence[Pair] = ()) -> list[str]:
    """What marks mean, where there are any; and why numbers of images must not be compared as they
    are, each reason once.
    """
    found = {
        f"{metric.label}: {d.estimate.settings['warning']}": None
        for metric in OF_IMAGES
        for d in evaluation.distances
        if d.metric == metric.name and d.estimate.settings.get("warning")
    }
    return [*(explained(p.baseline.label) for p in compared[:1]), *found]

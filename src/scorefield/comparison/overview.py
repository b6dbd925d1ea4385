"""The numbers of one evaluation, as few as show how good the run is."""

from __future__ import annotations

from typing import Any

from scorefield.comparison.groups import over_levels
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue import OF_IMAGES, OF_LEVELS, OF_SAMPLES, VALIDATION
from scorefield.evaluation.catalogue.metric import OfSamples
from scorefield.evaluation.records import Distance, Evaluation


def overview(evaluation: Evaluation) -> list[dict[str, Any]]:
    """A row a number: distances of samples by each method and number of network calls, those of
    real samples next to them where there are any; the validation loss; and each diagnostic over
    all its noise levels, at the radius at which it is summed up.

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
            _of_samples(metric.label, d, several)
            for d in found
            if every or d.budget == most[d.sampler, d.features]
        ]
    rows.append(_row(VALIDATION.label, "all noise levels", evaluation.validation))
    for metric in OF_LEVELS:
        levels = [
            v for v in evaluation.profile(metric.name) if metric.radius in (None, v.scale_delta)
        ]
        summary = over_levels(levels)
        if summary is not None:
            rows.append(_row(metric.label, _words(len(levels)), summary))
    return rows


def _of_samples(label: str, d: Distance, several: bool) -> dict[str, Any]:
    real = None
    if d.floor is not None:
        real = Estimate(d.floor.mean, d.floor.mean_error, d.floor.pairs)
    on = f" on {d.features}" if several else ""
    return _row(f"{label}{on}", f"{d.nfe} calls, {d.sampler}", d.estimate, real)


def _row(quantity: str, at: str, value: Estimate, real: Estimate | None = None) -> dict[str, Any]:
    return {"quantity": quantity, "at": at, "value": value, "of real samples": real}


def _words(levels: int) -> str:
    return f"{levels} noise levels" if levels > 1 else "1 noise level"


def warnings(evaluation: Evaluation) -> list[str]:
    """Why numbers of images must not be compared as they are, each reason once."""
    found = {
        f"{metric.label}: {d.estimate.settings['warning']}": None
        for metric in OF_IMAGES
        for d in evaluation.distances
        if d.metric == metric.name and d.estimate.settings.get("warning")
    }
    return list(found)

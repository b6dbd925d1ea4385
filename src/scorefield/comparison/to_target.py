"""How many network calls a model needs to come within a multiple of the noise floor.

Targets are multiples of the distance that two real sets of the same size have between them, in the
sliced Wasserstein distance: 1 is what a perfect model reaches on average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scorefield.comparison.groups import Group, over_seeds, spread
from scorefield.estimate import Estimate
from scorefield.evaluation.records import Distance, Evaluation

METRIC = "sliced_wasserstein"

TARGETS = (1.5, 2.0, 3.0, 5.0)
"""The targets, in multiples of the noise floor."""

_NUMBERS = ("mean", "std", "standard_error", "low", "high")

SUMMARY_COLUMNS = (
    "dataset",
    "model_id",
    "sampler",
    "metric_name",
    "features",
    "target",
    "target_value",
    *(f"steps_to_target_{name}" for name in _NUMBERS),
    *(f"latency_sec_at_target_step_{name}" for name in _NUMBERS),
    "num_success",
    "num_beyond_doubt",
    "num_seeds",
)
"""The columns of :func:`summary_rows`; means are empty unless every seed reaches the target."""


@dataclass(frozen=True)
class Reached:
    """Where a run comes within a target.

    Attributes:
        evaluation: The run.
        target: The target, in multiples of the floor.
        floor: The distance at the noise floor.
        features: What the distance is taken on.
        sampler: The sampler.
        distance: The distance at the fewest measured network calls that suffice; ``None`` where
            none does.
    """

    evaluation: Evaluation
    target: float
    floor: float
    features: str
    sampler: str
    distance: Distance | None

    @property
    def beyond_doubt(self) -> bool:
        """Whether the upper end of the distance's interval, the floor's error included, is below
        the target.
        """
        ratio = None if self.distance is None else self.distance.ratio
        return ratio is not None and ratio.interval()[1] <= self.target


def reached(members: Sequence[Group], targets: Sequence[float]) -> list[Reached]:
    """Where every run of every model comes within every target; nothing of runs whose distance
    has no noise floor.
    """
    found = []
    for g in members:
        for target in targets:
            for e in g.members:
                ladder = [
                    d
                    for d in sorted(e.distances, key=lambda d: d.nfe)
                    if d.metric == METRIC and d.ratio is not None
                ]
                if not ladder:
                    continue
                first = next((d for d in ladder if _within(d, target)), None)
                one = ladder[0]
                assert one.floor is not None  # its ratio is known
                found.append(Reached(e, target, one.floor.mean, one.features, one.sampler, first))
    return found


def rows(found: Sequence[Reached]) -> list[dict[str, Any]]:
    """One record a run and target; empty cells where it is not reached."""
    return [_row(r) for r in found]


def summary_rows(found: Sequence[Reached]) -> list[dict[str, Any]]:
    """One record a model and target.

    Means are over all seeds and given only where all of them reach the target: a mean over the
    successful ones would favour a model that often fails.
    """
    by_model: dict[tuple[str, str, float], list[Reached]] = {}
    for r in found:
        key = (r.evaluation.dataset, r.evaluation.model, r.target)
        by_model.setdefault(key, []).append(r)
    return [_summary(runs) for runs in by_model.values()]


def _within(d: Distance, target: float) -> bool:
    return d.ratio is not None and d.ratio.value <= target


def _row(r: Reached) -> dict[str, Any]:
    d = r.distance
    low, high = ("", "") if d is None else d.estimate.interval()
    latency = None if d is None else d.latency
    return {
        "dataset": r.evaluation.dataset,
        "model_id": r.evaluation.model,
        "seed": r.evaluation.seed,
        "sampler": r.sampler,
        "metric_name": METRIC,
        "features": r.features,
        "target": r.target,
        "target_value": r.target * r.floor,
        "steps_to_target": "" if d is None else d.nfe,
        "value_at_target_step": "" if d is None else d.estimate.value,
        "value_standard_error": "" if d is None else d.estimate.standard_error,
        "value_low": low,
        "value_high": high,
        "below_target_beyond_doubt": "yes" if r.beyond_doubt else "no",
        "latency_sec_at_target_step": "" if latency is None else latency.value,
        "latency_standard_error": "" if latency is None else latency.standard_error,
    }


COLUMNS = (
    "dataset",
    "model_id",
    "seed",
    "sampler",
    "metric_name",
    "features",
    "target",
    "target_value",
    "steps_to_target",
    "value_at_target_step",
    "value_standard_error",
    "value_low",
    "value_high",
    "below_target_beyond_doubt",
    "latency_sec_at_target_step",
    "latency_standard_error",
)
"""The columns of :func:`rows`."""


def _summary(runs: Sequence[Reached]) -> dict[str, Any]:
    one = runs[0]
    reaching = [r.distance for r in runs if r.distance is not None]
    row: dict[str, Any] = {
        "dataset": one.evaluation.dataset,
        "model_id": one.evaluation.model,
        "sampler": one.sampler,
        "metric_name": METRIC,
        "features": one.features,
        "target": one.target,
        "target_value": one.target * one.floor,
        "num_success": len(reaching),
        "num_beyond_doubt": sum(r.beyond_doubt for r in runs),
        "num_seeds": len(runs),
    }
    if len(reaching) < len(runs):
        return row
    row |= spread([Estimate(float(d.nfe), 0.0, 0) for d in reaching], "steps_to_target")
    times = [d.latency for d in reaching if d.latency is not None]
    if len(times) == len(reaching):
        row |= spread(times, "latency_sec_at_target_step")
    return row


def mean_calls(runs: Sequence[Reached]) -> Estimate | None:
    """The mean over seeds of the network calls that are needed; ``None`` unless every seed reaches
    the target.
    """
    reaching = [r.distance for r in runs if r.distance is not None]
    if len(reaching) < len(runs):
        return None
    return over_seeds([Estimate(float(d.nfe), 0.0, 0) for d in reaching])

"""How many network calls a model needs to come within a multiple of the noise floor.

Targets are multiples of the distance that two real sets of the same size have between them, in the
distance that the catalogue names for it: 1 is what a perfect model reaches on average.

And how much training it needs to do so: the first of the checkpoints along the training that is
within the target at their budget of network calls, in steps, images, seconds, multiply-adds and
network calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scorefield.comparison.groups import Group, spread
from scorefield.comparison.resources import per_step
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue import TARGET
from scorefield.evaluation.columns import Schema, derived, uncertain
from scorefield.evaluation.records import Distance, Evaluation, Milestone

TARGETS = (1.5, 2.0, 3.0, 5.0)
"""The targets, in multiples of the noise floor."""


@dataclass(frozen=True)
class Reached:
    """Where a run comes within a target: at ``distance``, that of the fewest calls that suffice,
    and along its training first at ``milestone``.
    """

    evaluation: Evaluation
    target: float
    floor: float
    features: str
    sampler: str
    distance: Distance | None
    milestone: Milestone | None = None

    @property
    def beyond_doubt(self) -> bool:
        """Whether the upper end of the ratio's interval is below the target."""
        ratio = None if self.distance is None else self.distance.ratio
        return ratio is not None and ratio.interval()[1] <= self.target


def reached(members: Sequence[Group], targets: Sequence[float]) -> list[list[Reached]]:
    """The runs of every model with every target, of those whose distance has a noise floor."""
    every = [[_reached(e, target) for e in g.members] for g in members for target in targets]
    return [runs for found in every if (runs := [r for r in found if r is not None])]


def _reached(e: Evaluation, target: float) -> Reached | None:
    ladder = [
        (d, d.ratio.value, d.floor.mean)
        for d in sorted(e.by(), key=lambda d: d.nfe)
        if d.metric == TARGET.name and d.ratio is not None and d.floor is not None
    ]
    if not ladder:
        return None
    one, _, floor = ladder[0]
    first = next((d for d, ratio, _ in ladder if ratio <= target), None)
    met = next((m for m in e.milestones if _within(m, one, target)), None)
    return Reached(e, target, floor, one.features, one.sampler, first, met)


def _within(milestone: Milestone, like: Distance, target: float) -> bool:
    """Whether a checkpoint comes within a target in the same distance as others."""
    found = (
        d for d in milestone.distances if (d.metric, d.features) == (like.metric, like.features)
    )
    ratio = next((d.ratio for d in found), None)
    return ratio is not None and ratio.value <= target


def calls(runs: Sequence[Reached]) -> list[Estimate] | None:
    """The network calls that are needed, one number a seed; ``None`` unless every seed reaches the
    target: a mean over the successful ones would favour a model that often fails.
    """
    reaching = [r.distance for r in runs if r.distance is not None]
    if len(reaching) < len(runs):
        return None
    return [Estimate(float(d.nfe), 0.0, 0) for d in reaching]


def _times(runs: Sequence[Reached]) -> list[Estimate] | None:
    times = [r.distance.latency for r in runs if r.distance and r.distance.latency is not None]
    return times if len(times) == len(runs) else None


def _sampling(r: Reached) -> float | None:
    """The multiply-adds of a sample of the fewest calls."""
    each = per_step(r.evaluation, "multiply_adds_per_call")
    return None if each is None or r.distance is None else each * r.distance.nfe


def _trained(key: str) -> Callable[[Reached], float | None]:
    """What the training up to the milestone takes, of what is stated for a step."""

    def amount(r: Reached) -> float | None:
        each = per_step(r.evaluation, key)
        return None if each is None or r.milestone is None else each * r.milestone.step

    return amount


def _seconds(r: Reached) -> float | None:
    time = None if r.milestone is None else r.milestone.seconds
    return None if time is None else time.value


_TRAINED: dict[str, Callable[[Reached], float | None]] = {
    "train_steps_to_target": lambda r: None if r.milestone is None else float(r.milestone.step),
    "train_images_to_target": _trained("batch_size"),
    "train_seconds_to_target": _seconds,
    "train_multiply_adds_to_target": _trained("multiply_adds_per_step"),
    "train_calls_to_target": _trained("calls_per_step"),
}
"""What a run needs of training to come within a target."""


def _every(get: Callable[[Reached], float | None]) -> Callable[[Sequence[Reached]], Any]:
    """A number a seed, if all have one."""

    def found(runs: Sequence[Reached]) -> list[Estimate] | None:
        values = [v for r in runs if (v := get(r)) is not None]
        return [Estimate(v, 0.0, 0) for v in values] if len(values) == len(runs) else None

    return found


TARGET_COLUMNS = Schema(
    derived("dataset", get=lambda r: r.evaluation.dataset),
    derived("model_id", get=lambda r: r.evaluation.model),
    derived("seed", get=lambda r: r.evaluation.seed),
    derived("sampler", get=lambda r: r.sampler),
    derived("metric_name", get=lambda r: TARGET.name),
    derived("features", get=lambda r: r.features),
    derived("target", get=lambda r: r.target),
    derived("target_value", get=lambda r: r.target * r.floor),
    derived("steps_to_target", get=lambda r: r.distance and r.distance.nfe),
    uncertain(
        "value_at_target_step",
        "value_standard_error",
        "value_low",
        "value_high",
        get=lambda r: r.distance and r.distance.estimate,
    ),
    derived("below_target_beyond_doubt", get=lambda r: "yes" if r.beyond_doubt else "no"),
    uncertain(
        "latency_sec_at_target_step",
        "latency_standard_error",
        get=lambda r: r.distance and r.distance.latency,
    ),
    derived("multiply_adds_at_target_step", get=_sampling),
    *(derived(name, get=get) for name, get in _TRAINED.items()),
)
"""The table of :class:`Reached`, a row a run and target; empty cells where it is not reached."""

SUMMARY_COLUMNS = Schema(
    derived("dataset", get=lambda runs: runs[0].evaluation.dataset),
    derived("model_id", get=lambda runs: runs[0].evaluation.model),
    derived("sampler", get=lambda runs: runs[0].sampler),
    derived("metric_name", get=lambda runs: TARGET.name),
    derived("features", get=lambda runs: runs[0].features),
    derived("target", get=lambda runs: runs[0].target),
    derived("target_value", get=lambda runs: runs[0].target * runs[0].floor),
    spread("steps_to_target", calls),
    spread("latency_sec_at_target_step", _times),
    spread("multiply_adds_at_target_step", _every(_sampling)),
    *(spread(name, _every(get)) for name, get in _TRAINED.items()),
    derived("num_success", get=lambda runs: sum(r.distance is not None for r in runs)),
    derived("num_beyond_doubt", get=lambda runs: sum(r.beyond_doubt for r in runs)),
    derived("num_seeds", get=len),
)
"""The table of :func:`reached`, a row a model and target."""

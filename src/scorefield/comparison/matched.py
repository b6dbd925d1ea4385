"""Models at equal training cost: the newest checkpoint within a budget that all can afford.

The budget is what the cheapest model's training takes, and fractions of it: of time, of images, of
multiply-adds or of network calls. No other run takes the place of one that cannot be matched: it is
named as such.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from operator import attrgetter

from scorefield.comparison.groups import Group, Key, common, distance_key, joined, spread
from scorefield.comparison.paired import Pair, compare
from scorefield.comparison.resources import RESOURCES, TIME, Resource, per_step
from scorefield.comparison.timing import Costs
from scorefield.estimate import Estimate
from scorefield.evaluation.columns import Column, Schema, derived, uncertain
from scorefield.evaluation.records import Distance, Milestone

FRACTIONS = (1.0, 0.5, 0.25)
"""The budgets, in fractions of what the cheapest training takes."""

MATCHED = "newest checkpoint within the budget"

_HOUR = 3600.0
_UNLIKE = 0.1
"""How much less than another a model may have used to be compared with it."""
_ROUNDING = 1 + 1e-9
_OF_KEY = ("sampler", "nfe_budget", "nfe", "metric_name", "features")


@dataclass(frozen=True)
class Selection:
    """One checkpoint a seed within a budget of a resource, or none and why, as ``mode``."""

    group: Group
    resource: Resource
    fraction: float
    budget: float | None
    per_step: Estimate | None
    milestones: dict[int, Milestone]
    mode: str

    @property
    def steps(self) -> float | None:
        """The number of steps behind the checkpoints, in the mean over seeds."""
        if not self.milestones:
            return None
        return sum(m.step for m in self.milestones.values()) / len(self.milestones)

    @property
    def amount(self) -> Estimate | None:
        """What was used of the resource, in the mean over seeds."""
        if self.steps is None or self.per_step is None:
            return None
        return self.per_step.scaled(self.steps)

    @property
    def used(self) -> float | None:
        """The fraction of the budget that was used."""
        if self.amount is None or self.budget is None:
            return None
        return self.amount.value / self.budget

    def distances(self) -> list[Distance]:
        """What was measured, over seeds."""
        found = [{distance_key(d): d for d in m.distances} for m in self.milestones.values()]
        over = map(joined, common(found) if found else [])
        return [d for d in over if d is not None]

    def numbers(self) -> dict[int, dict[Key, Estimate]]:
        """What was measured, by seed."""
        return {
            seed: {distance_key(d): d.estimate for d in m.distances}
            for seed, m in self.milestones.items()
        }


def shared_budget(
    members: Sequence[Group], costs: Costs, resource: Resource = TIME
) -> float | None:
    """The least that a model's training takes of a resource; ``None`` where one is not known."""
    found = [t.value for g in members if (t := resource.training(g, costs)) is not None]
    return min(found) if len(found) == len(members) else None


def select(
    members: Sequence[Group],
    costs: Costs,
    fractions: Sequence[float] = FRACTIONS,
    resources: Sequence[Resource] = RESOURCES,
) -> list[Selection]:
    """The checkpoints of all models at each fraction of the shared budget of each resource."""
    wholes = {r.name: shared_budget(members, costs, r) for r in resources}
    return [
        _select(g, r, fraction, None if whole is None else whole * fraction, costs)
        for r in resources
        for whole in [wholes[r.name]]
        for fraction in fractions
        for g in members
    ]


def matched_pairs(selections: Sequence[Selection]) -> list[Pair]:
    """Every model against the first, where what is behind their checkpoints is nearly equal."""
    found = []
    for key in dict.fromkeys((s.resource.name, s.fraction) for s in selections):
        first, *others = [s for s in selections if (s.resource.name, s.fraction) == key]
        for other in others:
            used = (first.used or 0, other.used or 0)
            if min(used) > 0 and min(used) >= (1 - _UNLIKE) * max(used):
                both = (other.numbers(), first.numbers())
                found += compare(other.group, first.group, *both, *key)
    return found


def matched_records(
    selections: Sequence[Selection],
) -> list[tuple[Selection, Distance | None]]:
    """What every model has for every budget, a record a distance; one for a model without."""
    records: list[tuple[Selection, Distance | None]] = []
    for s in selections:
        records += [(s, d) for d in s.distances()] or [(s, None)]
    return records


def budget_records(
    members: Sequence[Group], costs: Costs
) -> list[tuple[Group, Costs, float | None]]:
    """What the training of every model takes, and the time that all can afford, in seconds."""
    budget = shared_budget(members, costs)
    return [(g, costs, budget) for g in members]


def _select(
    group: Group, resource: Resource, fraction: float, budget: float | None, costs: Costs
) -> Selection:
    per_step = resource.of_step(group, costs)

    def none(why: str) -> Selection:
        return Selection(group, resource, fraction, budget, per_step, {}, f"not matched: {why}")

    if budget is None or per_step is None:
        return none(f"{resource.words} is not known for every model")
    chosen: dict[int, Milestone] = {}
    for e in group.members:
        if not e.milestones:
            return none(f"no checkpoints of seed {e.seed} were measured along the training")
        within = [m for m in e.milestones if m.step * per_step.value <= budget * _ROUNDING]
        if not within:
            return none(f"seed {e.seed} has no checkpoint within the budget")
        chosen[e.seed] = within[-1]
    return Selection(group, resource, fraction, budget, per_step, chosen, MATCHED)


def _device(group: Group) -> str:
    """The kind of device and the number of threads that the trainings ran on."""
    found = []
    for e in group.members:
        machine = e.about.get("machine") or {}
        devices = machine.get("devices") or ["cpu"]
        threads = e.compute.get("threads")
        name = " ".join(map(str, devices)) if isinstance(devices, list) else str(devices)
        plural = "" if threads == 1 else "s"
        found.append(f"{name}, {threads} thread{plural}" if threads is not None else name)
    return "; ".join(dict.fromkeys(found))


def _hours(time: Estimate | None) -> Estimate | None:
    return None if time is None else time.scaled(1 / _HOUR, "h")


def _recorded(key: str) -> Column:
    """The column of what the records of evaluations state of a step or a call."""
    return derived(key, get=lambda r: per_step(r[0].first, key))


BUDGET_COLUMNS = Schema(
    derived("dataset", get=lambda r: r[0].dataset),
    derived("model_id", get=lambda r: r[0].model),
    derived("parameters", get=lambda r: r[0].first.compute.get("parameters")),
    derived("steps", get=lambda r: r[0].first.step),
    derived("images", get=lambda r: r[0].first.compute.get("images")),
    uncertain(
        "seconds_per_step",
        "seconds_per_step_standard_error",
        get=lambda r: r[1].seconds.get(r[0].model),
    ),
    uncertain(
        "model_mean_hours",
        "model_hours_standard_error",
        "model_hours_low",
        "model_hours_high",
        get=lambda r: _hours(r[1].training(r[0])),
    ),
    derived("shared_budget_hours", get=lambda r: None if r[2] is None else r[2] / _HOUR),
    *map(_recorded, ("multiply_adds_per_call", "multiply_adds_per_step", "calls_per_step")),
    derived("device", get=lambda r: _device(r[0])),
    derived(
        "time_from",
        get=lambda r: "steps timed side by side" if r[1].apart else "the trainings",
    ),
    derived("num_seeds", get=lambda r: len(r[0].seeds)),
)
"""The table of :func:`budget_records`."""


def _whole(s: Selection) -> float | None:
    """The whole shared budget."""
    return None if s.budget is None else s.budget / s.fraction


def _in_hours(s: Selection, budget: float | None) -> float | None:
    return None if budget is None or s.resource is not TIME else budget / _HOUR


def _estimates(record: tuple[Selection, Distance | None]) -> list[Estimate] | None:
    s, d = record
    return None if d is None else [numbers[distance_key(d)] for numbers in s.numbers().values()]


def _error_from(members: Sized) -> str:
    return "seeds" if len(members) > 1 else "samples"


MATCHED_COLUMNS = Schema(
    derived("dataset", get=lambda r: r[0].group.dataset),
    derived("model_id", get=lambda r: r[0].group.model),
    derived(*_OF_KEY, get=lambda r: r[1] and attrgetter(*_OF_KEY)(distance_key(r[1]))),
    derived("matched_by", get=lambda r: r[0].resource.name),
    derived("budget_fraction", get=lambda r: r[0].fraction),
    derived("shared_budget", get=lambda r: _whole(r[0])),
    derived("budget_unit", get=lambda r: r[0].resource.unit),
    derived("shared_budget_hours", get=lambda r: _in_hours(r[0], _whole(r[0]))),
    derived("selection_mode", get=lambda r: r[0].mode),
    derived("selected_run_count", get=lambda r: len(r[0].milestones)),
    derived("num_seeds", get=lambda r: len(r[0].group.seeds)),
    derived("selected_step_mean", get=lambda r: r[0].steps),
    uncertain(
        "selected_hours_mean",
        "selected_hours_standard_error",
        get=lambda r: _hours(r[0].amount) if r[0].resource is TIME else None,
    ),
    derived("budget_used", get=lambda r: r[0].used),
    spread("value", _estimates),
    derived(
        "numerical_error",
        "unit",
        get=lambda r: r[1] and (r[1].estimate.numerical_error, r[1].estimate.unit),
    ),
    derived("error_from", get=lambda r: r[1] and _error_from(r[0].milestones)),
    uncertain("ratio_to_floor", "ratio_standard_error", get=lambda r: r[1] and r[1].ratio),
)
"""The table of :func:`matched_records`; the columns of the numbers are empty where there are
none.
"""

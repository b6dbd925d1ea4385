"""Models at equal training time: the newest checkpoint within a budget that all can afford.

The budget is the time that the cheapest model's training takes, and fractions of it. A model
whose steps are dearer is then judged as it was after fewer steps. No other run takes the place of
one that cannot be matched: it is named as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scorefield.comparison.costs import Costs
from scorefield.comparison.groups import Group, Key, distance_key, over_seeds, spread
from scorefield.comparison.paired import Pair, compare
from scorefield.estimate import Estimate
from scorefield.evaluation.records import Distance, Milestone
from scorefield.runs.cells import known

FRACTIONS = (1.0, 0.5, 0.25)
"""The budgets, in fractions of the time that the cheapest training takes."""

MATCHED = "newest checkpoint within the budget"

BUDGET_COLUMNS = (
    "dataset",
    "model_id",
    "parameters",
    "steps",
    "images",
    "seconds_per_step",
    "seconds_per_step_standard_error",
    "model_mean_hours",
    "model_hours_standard_error",
    "model_hours_low",
    "model_hours_high",
    "shared_budget_hours",
    "device",
    "time_from",
    "num_seeds",
)
"""The columns of :func:`budget_rows`."""

MATCHED_COLUMNS = (
    "dataset",
    "model_id",
    "sampler",
    "nfe_budget",
    "nfe",
    "metric_name",
    "features",
    "budget_fraction",
    "shared_budget_hours",
    "selection_mode",
    "selected_run_count",
    "num_seeds",
    "selected_step_mean",
    "selected_hours_mean",
    "selected_hours_standard_error",
    "budget_used",
    "value_mean",
    "value_std",
    "value_standard_error",
    "value_low",
    "value_high",
    "numerical_error",
    "unit",
    "error_from",
    "ratio_to_floor",
    "ratio_standard_error",
)
"""The columns of :func:`matched_rows`; those of the numbers are empty where there are none."""

_HOUR = 3600.0
_UNLIKE = 0.1
"""How much less training time than another a model may have used to be compared with it."""
_ROUNDING = 1 + 1e-9


@dataclass(frozen=True)
class Selection:
    """What a model has to show for a training time.

    Attributes:
        group: The model.
        fraction: The fraction of the shared budget.
        budget: The training time, in seconds; ``None`` where none is shared.
        step_time: The time of a step of this model.
        milestones: The checkpoint that was taken, by seed; empty where the model cannot be matched.
        mode: How they were taken, or why none was.
    """

    group: Group
    fraction: float
    budget: float | None
    step_time: Estimate | None
    milestones: dict[int, Milestone]
    mode: str

    @property
    def steps(self) -> float | None:
        """The number of steps behind the checkpoints, in the mean over seeds."""
        if not self.milestones:
            return None
        return sum(m.step for m in self.milestones.values()) / len(self.milestones)

    @property
    def seconds(self) -> Estimate | None:
        """The training time that was used, in the mean over seeds."""
        if self.steps is None or self.step_time is None:
            return None
        return self.step_time.scaled(self.steps)

    @property
    def used(self) -> float | None:
        """The fraction of the training time that was used."""
        if self.seconds is None or self.budget is None:
            return None
        return self.seconds.value / self.budget

    def distances(self) -> list[Distance]:
        """What was measured, over seeds."""
        found = [{distance_key(d): d for d in m.distances} for m in self.milestones.values()]
        if not found:
            return []
        common = [key for key in found[0] if all(key in other for other in found)]
        return [_over_seeds([one[key] for one in found]) for key in common]

    def numbers(self) -> dict[int, dict[Key, Estimate]]:
        """What was measured, by seed."""
        return {
            seed: {distance_key(d): d.estimate for d in m.distances}
            for seed, m in self.milestones.items()
        }


def shared_budget(members: Sequence[Group], costs: Costs) -> float | None:
    """The least training time among the models of a data set, in seconds; ``None`` where that of
    one is not known.
    """
    times = [costs.training(g) for g in members]
    known_times = [t.value for t in times if t is not None]
    return min(known_times) if len(known_times) == len(members) else None


def select(
    members: Sequence[Group], costs: Costs, fractions: Sequence[float] = FRACTIONS
) -> list[Selection]:
    """The checkpoints of all models at each fraction of the shared budget."""
    whole = shared_budget(members, costs)
    return [
        _select(g, fraction, None if whole is None else whole * fraction, costs)
        for fraction in fractions
        for g in members
    ]


def matched_pairs(selections: Sequence[Selection]) -> list[Pair]:
    """Every model against the first at equal training time, where both could be matched and the
    times behind their checkpoints differ by a tenth at most.
    """
    found = []
    for fraction in dict.fromkeys(s.fraction for s in selections):
        first, *others = [s for s in selections if s.fraction == fraction]
        for other in others:
            if not _alike(first, other):
                continue
            found += compare(other.group, first.group, other.numbers(), first.numbers(), fraction)
    return found


def budget_rows(members: Sequence[Group], costs: Costs) -> list[dict[str, Any]]:
    """One record a model: what its training takes, and the time that all can afford."""
    budget = shared_budget(members, costs)
    rows = []
    for g in members:
        compute = g.first.compute
        total, step = costs.training(g), costs.seconds.get(g.model)
        hours = None if total is None else total.scaled(1 / _HOUR, "h")
        low, high = ("", "") if hours is None else hours.interval()
        rows.append(
            {
                "dataset": g.dataset,
                "model_id": g.model,
                "parameters": known(compute.get("parameters")),
                "steps": g.first.step,
                "images": known(compute.get("images")),
                "seconds_per_step": "" if step is None else step.value,
                "seconds_per_step_standard_error": "" if step is None else step.standard_error,
                "model_mean_hours": "" if hours is None else hours.value,
                "model_hours_standard_error": "" if hours is None else hours.standard_error,
                "model_hours_low": low,
                "model_hours_high": high,
                "shared_budget_hours": "" if budget is None else budget / _HOUR,
                "device": _device(g),
                "time_from": "steps timed side by side" if costs.apart else "the trainings",
                "num_seeds": len(g.seeds),
            }
        )
    return rows


def matched_rows(selections: Sequence[Selection]) -> list[dict[str, Any]]:
    """One record a model, budget and distance; one without numbers for a model that could not be
    matched.
    """
    rows = []
    for s in selections:
        used = s.seconds
        head = {
            "dataset": s.group.dataset,
            "model_id": s.group.model,
            "budget_fraction": s.fraction,
            "shared_budget_hours": "" if s.budget is None else s.budget / s.fraction / _HOUR,
            "selection_mode": s.mode,
            "selected_run_count": len(s.milestones),
            "num_seeds": len(s.group.seeds),
            "selected_step_mean": known(s.steps),
            "selected_hours_mean": "" if used is None else used.value / _HOUR,
            "selected_hours_standard_error": "" if used is None else used.standard_error / _HOUR,
            "budget_used": known(s.used),
        }
        found = s.distances()
        rows += [{**head, **_cells(d, s)} for d in found] or [head]
    return rows


def _select(group: Group, fraction: float, budget: float | None, costs: Costs) -> Selection:
    step_time = costs.seconds.get(group.model)

    def none(why: str) -> Selection:
        return Selection(group, fraction, budget, step_time, {}, f"not matched: {why}")

    if budget is None or step_time is None:
        return none("the time of a training step is not known for every model")
    chosen: dict[int, Milestone] = {}
    for e in group.members:
        if not e.milestones:
            return none(f"no checkpoints of seed {e.seed} were measured along the training")
        within = [m for m in e.milestones if m.step * step_time.value <= budget * _ROUNDING]
        if not within:
            return none(f"seed {e.seed} has no checkpoint within the budget")
        chosen[e.seed] = within[-1]
    return Selection(group, fraction, budget, step_time, chosen, MATCHED)


def _alike(a: Selection, b: Selection) -> bool:
    if a.used is None or b.used is None:
        return False
    return min(a.used, b.used) >= (1 - _UNLIKE) * max(a.used, b.used)


def _over_seeds(found: Sequence[Distance]) -> Distance:
    one = found[0]
    estimate = over_seeds([d.estimate for d in found])
    return Distance(one.sampler, one.budget, one.nfe, one.metric, one.features, estimate, one.floor)


def _cells(d: Distance, s: Selection) -> dict[str, Any]:
    key = distance_key(d)
    estimates = [numbers[key] for numbers in s.numbers().values()]
    ratio = d.ratio
    return {
        "sampler": d.sampler,
        "nfe_budget": known(key.nfe_budget),
        "nfe": known(key.nfe),
        "metric_name": d.metric,
        "features": d.features,
        **spread(estimates),
        "numerical_error": d.estimate.numerical_error,
        "unit": d.estimate.unit,
        "error_from": "seeds" if len(estimates) > 1 else "samples",
        "ratio_to_floor": "" if ratio is None else ratio.value,
        "ratio_standard_error": "" if ratio is None else ratio.standard_error,
    }


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

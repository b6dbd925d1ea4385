"""What a report that is meant to be quoted must not hold: a number without an interval."""

from __future__ import annotations

from collections.abc import Sequence

from scorefield.comparison.groups import Group
from scorefield.comparison.tables import Comparison
from scorefield.errors import RunError


def refuse(comparisons: Sequence[Comparison]) -> None:
    """Refuses tables in which a number has no interval, or models are not measured alike.

    Every model has at least two seeds, the same as the first, evaluated after the same number of
    steps; and the time of a training step and that of every generation of samples are known
    with an error.

    Raises:
        RunError: Naming the first offender.
    """
    for comparison in comparisons:
        base = comparison.members[0]
        for g in comparison.members:
            _check_seeds(g, base)
            _check_times(g, comparison)


def _check_seeds(g: Group, base: Group) -> None:
    name = f"{g.dataset}/{g.model}"
    if len(g.seeds) < 2:
        raise RunError(
            f"{name} has the single seed {g.seeds[0]}, and what varies between trainings has no "
            "interval: train and evaluate a second seed, or report without --strict"
        )
    if g.seeds != base.seeds:
        raise RunError(
            f"{name} has the seeds {_list(g.seeds)} and {base.model} the seeds "
            f"{_list(base.seeds)}: differences are taken over the same seeds, train and evaluate "
            "those that are missing"
        )
    steps = {e.step for e in g.members}
    if len(steps) > 1:
        raise RunError(
            f"the seeds of {name} were evaluated after different numbers of steps, {_list(steps)}: "
            "finish the trainings and evaluate them again"
        )


def _check_times(g: Group, comparison: Comparison) -> None:
    if g.model not in comparison.costs.seconds:
        raise RunError(
            f"the time of a training step of {g.dataset}/{g.model} has no error: sweep the models "
            "of the data set together with --eval, which times them side by side"
        )
    for e in g.members:
        for d in e.distances:
            if d.latency is None:
                raise RunError(
                    f"{e.folder}: the time of sampling at {d.nfe} network calls has no error, "
                    "since it takes too few steps: leave that budget out"
                )


def _list(numbers: Sequence[int] | set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))

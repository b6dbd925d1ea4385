"""How a model compares with the first of its data set: better, worse, or not distinguishable.

Marks are given by the 95 % interval of the mean difference over common seeds, and only where there
is one; the page of a report and the tables of the command line have the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from scorefield.comparison.groups import RMS, Group, by_dataset, groups, in_order, readable
from scorefield.comparison.paired import Pair, excludes_zero, pairs
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue.metric import Metric, OfLevel
from scorefield.evaluation.protocol import differences_of
from scorefield.evaluation.records import SUMMARY, Evaluation


class Mark(NamedTuple):
    """How a model compares with the first: a kind, which has a colour, and words."""

    kind: str = ""
    words: str = ""


BETTER, WORSE = Mark("better", "better"), Mark("worse", "worse")
SAME, BASE, NONE = Mark("same", "not distinguishable"), Mark("base", "reference"), Mark()


def explained(base: str) -> str:
    """What marks mean, as a sentence."""
    return (
        f"A model is better or worse than {base} where the 95 % interval of the mean "
        "difference over common seeds excludes zero, and not distinguishable elsewhere."
    )


def mark_of(difference: Estimate | None, less_is_better: bool = True) -> Mark:
    """The mark of a difference from the first model; none where there is no difference."""
    if difference is None:
        return NONE
    if not excludes_zero(difference):
        return SAME
    return BETTER if (difference.value < 0) == less_is_better else WORSE


def of_number(metric: Metric | None, value: Estimate | None, difference: Estimate | None) -> Mark:
    """The mark of a number: what a field is for which it vanishes, or that of its difference from
    the number of the first model. Of what has no metric in the catalogue, less is better.
    """
    if isinstance(metric, OfLevel) and is_zero(metric, value):
        return Mark("better", metric.zero)
    if difference is None or (metric is not None and metric.better == "neither"):
        return NONE
    return mark_of(difference, metric is None or metric.better == "lower")


def of_model(metric: Metric, g: Group, base: Group, compared: Sequence[Pair]) -> Mark:
    """The mark of a model in a metric: of samples at the largest number of calls of the first
    model, of fields over all noise levels.
    """
    value = g.over_levels(metric.name, metric.radius) if isinstance(metric, OfLevel) else None
    own = [p for p in compared if p.model.model == g.model]
    found = of_number(metric, value, difference_of(metric, own))
    return BASE if found == NONE and g is base and compared else found


def difference_of(metric: Metric, compared: Sequence[Pair]) -> Estimate | None:
    """Of the differences of a model, that of the number that stands for a metric."""
    return next((p.difference for p in compared if _stands(p, metric)), None)


def is_zero(metric: OfLevel, estimate: Estimate | None) -> bool:
    """Whether a metric that vanishes for some fields is no more than rounding."""
    return bool(metric.zero) and estimate is not None and estimate.value < (metric.rounding or 0)


def compared_with_first(own: Evaluation) -> list[Pair]:
    """The differences between the model of an evaluation and the first of the models that were
    evaluated by the same protocol on the same data, over common seeds; none for the first itself.
    """
    base, *others = siblings(own)
    return pairs([base, *(g for g in others if g.model == own.model)])


def marks_of(metric: Metric, evaluations: Sequence[Evaluation]) -> dict[tuple[str, str], Mark]:
    """The marks of models in a metric, by data set and model; none on data sets whose models were
    evaluated by different protocols.
    """
    found = {}
    for dataset, members in by_dataset(groups(in_order(evaluations))).items():
        base, *others = (e.protocol for g in members for e in g.members)
        if not any(differences_of(base, other) for other in others):
            compared = pairs(members)
            for g in members:
                found[dataset, g.model] = of_model(metric, g, members[0], compared)
    return found


def siblings(own: Evaluation) -> list[Group]:
    """The models of the data set of an evaluation that were evaluated by the same protocol, in the
    order of a report; its own alone where its folder is not among others.
    """
    assert own.folder is not None  # it was read from there
    folder, place = own.folder.absolute(), (own.dataset, own.model, f"seed{own.seed}")
    if folder.parts[-3:] != place:
        return groups([own])
    found = sorted(f.parents[1] for f in folder.parents[1].glob(f"*/seed*/eval/{SUMMARY}"))
    others = [e for e in readable(folder.parents[1], found) if e.folder != folder]
    alike = [e for e in others if not differences_of(own.protocol, e.protocol)]
    return groups(in_order([own, *alike]))


def _stands(p: Pair, metric: Metric) -> bool:
    k, one = p.key, p.baseline.first
    if k.metric_name != metric.name:
        return False
    if isinstance(metric, OfLevel):
        return k.sigma_bin == RMS and k.scale_delta in (None, metric.radius)
    return k.nfe_budget in (None, one.budgets[-1]) and k.sampler in ("", one.protocol["sampler"])

"""The results, in sentences that go as far as the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scorefield.comparison.groups import RMS, Group
from scorefield.comparison.marks import is_zero
from scorefield.comparison.paired import Pair
from scorefield.comparison.resources import TIME
from scorefield.comparison.tables import Comparison
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue import CATALOGUE, OF_LEVELS, OF_SAMPLES, TARGET
from scorefield.evaluation.catalogue.metric import Finding, Metric, OfLevel, OfSamples
from scorefield.evaluation.records import Distance
from scorefield.report.words import MOST_NAMED, distinguishable, in_words, listed


def findings(comparison: Comparison, reference: Group | None) -> list[tuple[str, str]]:
    """The results on one data set: pairs of a heading and a sentence or two."""
    said: dict[str, list[str]] = {}
    for heading, text in _sentences(comparison, reference):
        said.setdefault(heading, []).append(text)
    return [(heading, " ".join(texts)) for heading, texts in said.items() if any(texts)]


def headline(members: Sequence[Group]) -> str:
    """The answer in one sentence: are the samples right, and are the fields gradients?"""
    parts = []
    found = _distances(members, TARGET)
    if found:
        nfe = next(iter(found.values())).nfe
        every = [_distances(members, m) for m in OF_SAMPLES if m.finding and m.floor]
        off = [m for m in found if any(distinguishable(d[m]) for d in every if m in d)]
        if len(found) == 1:
            (one,) = found
            who = f"samples of {one} are {'' if off else 'not '}distinguishable from real ones"
        elif not off:
            who = "no model's samples are distinguishable from real ones"
        elif len(off) == len(found):
            who = "every model's samples are distinguishable from real ones"
        else:
            who = f"only {_names(off)} {_is(off)} distinguishable from real data"
        parts.append(f"at {nfe} network calls {who}")
    for metric in OF_LEVELS:
        values = _summaries(members, metric) if metric.zero else {}
        none = _rounding(values, metric)
        if len(values) == 1:
            parts.append(f"{next(iter(values))} is {'' if none else 'not '}{metric.zero}")
        elif none:
            parts.append(f"only {_names(none)} {_is(none)} {metric.zero}")
        elif values:
            parts.append(f"no field is {metric.zero}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _sentences(comparison: Comparison, reference: Group | None) -> Iterator[tuple[str, str]]:
    """Headings and sentences; one heading may come several times."""
    for metric in OF_SAMPLES:
        if metric.finding:
            yield metric.finding.heading, _of_samples(comparison, metric, metric.finding)
    yield "Few network calls", _few_calls(comparison.members, reference)
    for level in OF_LEVELS:
        if level.finding:
            yield level.finding.heading, _of_level(comparison, level, level.finding)
    yield "Equal training time", _matched(comparison)
    yield "Cost", _costs(comparison)
    if not comparison.pairs and len(comparison.members) > 1:
        yield (
            "What one training shows",
            "Differences between single trainings have no interval: what another seed would "
            "change is not in the errors here, which are those of finitely many samples and "
            "points. To compare models, train each with several seeds.",
        )


def _of_samples(comparison: Comparison, metric: OfSamples, finding: Finding) -> str:
    """A distance at the largest budget: in multiples of the noise floor where it has one."""
    members = comparison.members
    budget = members[0].first.budgets[-1]
    found = {g.label: d for g in members if (d := g.distance(metric.name, budget)) is not None}
    if not found:
        return ""
    one = next(iter(found.values()))
    if metric.total:
        total = one.estimate.settings.get(metric.total, "an unrecorded number")
        counts = {m: d.estimate for m, d in found.items()}
        return f"At {one.nfe} network calls {finding.quantity}, of {total}: {_each(counts)}."
    found = {m: d for m, d in found.items() if d.floor is not None}
    if not found:
        return ""
    ratios = {m: d.ratio for m, d in found.items() if d.ratio is not None}
    values = _each({m: ratios.get(m, d.estimate) for m, d in found.items()})
    unit = ", in multiples of that between two real sets of the same size," if ratios else ""
    off = [m for m, d in found.items() if distinguishable(d)]
    within = [m for m in found if m not in off]
    text = f"At {one.nfe} network calls {finding.quantity} is{unit} {values}. "
    apart = "distinguishable from real data"
    if len(found) == 1:
        text += f"By this distance, and with so many samples, it is {'' if off else 'not '}{apart}."
    elif not off:
        text += f"By this distance, and with so many samples, none is {apart}."
    elif not within:
        text += f"By this distance all are {apart}."
    else:
        text += f"{_names(off)} {_is(off)} {apart}, {_names(within)} {_is(within)} not."
    return f"{text} {_against_first(comparison, metric)}".strip()


def _of_level(comparison: Comparison, metric: OfLevel, finding: Finding) -> str:
    """A metric over all noise levels; what is rounding is named as such."""
    values = _summaries(comparison.members, metric)
    if not values:
        return ""
    none = _rounding(values, metric)
    unit = f" {metric.unit}" if metric.unit else ""
    some = {m: e for m, e in values.items() if m not in none}
    each = [f"{in_words(e)}{unit} for {m}" for m, e in _ends(some).items()]
    join = "{} to {}" if len(some) > MOST_NAMED else listed(each)
    parts = [f"{finding.quantity} is {join.format(*each)}"] if each else []
    if none:
        largest = f"{max(abs(values[m].value) for m in none):.0e}".replace("e-0", "e−")
        parts.append(f"{_names(none)} {_is(none)} {metric.zero} up to rounding ({largest})")
    return f"{'; '.join(parts)}. {_against_first(comparison, metric, none)}".strip()


def _distances(members: Sequence[Group], metric: Metric) -> dict[str, Distance]:
    """A distance at the largest budget, by label, where it has a floor."""
    budget = members[0].first.budgets[-1]
    found = {g.label: d for g in members if (d := g.distance(metric.name, budget)) is not None}
    return {m: d for m, d in found.items() if d.floor is not None}


def _summaries(members: Sequence[Group], metric: OfLevel) -> dict[str, Estimate]:
    """A metric over its noise levels, by label."""
    over = ((g.label, g.over_levels(metric.name, metric.radius)) for g in members)
    return {label: e for label, e in over if e is not None}


def _rounding(values: dict[str, Estimate], metric: OfLevel) -> list[str]:
    """The models whose values are no more than rounding."""
    return [m for m, e in values.items() if is_zero(metric, e)]


def _ends(values: dict[str, Estimate]) -> dict[str, Estimate]:
    """The values, or of many the least and the largest."""
    if len(values) <= MOST_NAMED:
        return values
    ordered = sorted(values.items(), key=lambda item: item[1].value)
    return dict((ordered[0], ordered[-1]))


def _each(values: dict[str, Estimate]) -> str:
    """The value of each model, or of many the range."""
    each = [f"{in_words(e)} for {m}" for m, e in _ends(values).items()]
    return " to ".join(each) if len(values) > MOST_NAMED else listed(each)


def _names(labels: Sequence[str]) -> str:
    """The models, or of many how many they are."""
    return listed(labels) if len(labels) <= MOST_NAMED else f"{len(labels)} models"


def _is(labels: Sequence[str]) -> str:
    return "is" if len(labels) == 1 else "are"


def _against_first(comparison: Comparison, metric: Metric, but: Sequence[str] = ()) -> str:
    """Who differs from the baseline, over all noise levels or at the largest budget."""
    budget = comparison.members[0].first.budgets[-1]
    found = {
        p.model.label: p
        for p in comparison.pairs
        if p.key.metric_name == metric.name
        and (p.key.sigma_bin == RMS or (p.key.sigma_bin is None and p.key.nfe_budget == budget))
        and p.model.label not in but
    }
    return _paired(found, comparison.members[0].label)


def _paired(found: dict[str, Pair], base: str) -> str:
    """Who has less and who more than the baseline, with the interval of the difference."""
    apart = [m for m, p in found.items() if p.excludes_zero]
    same = [m for m in found if m not in apart]
    if not found:
        return ""
    if not apart:
        return f"Seed by seed {_names(same)} {_is(same)} not distinguishable from {base}."
    parts = []
    for word in ("less", "more"):
        some = [m for m in apart if (found[m].difference.value < 0) == (word == "less")]
        if some:
            each = [f"{m} ({_difference(found[m])})" for m in some]
            who = listed(each) if len(each) <= MOST_NAMED else _names(some)
            parts.append(f"{who} {'has' if len(some) == 1 else 'have'} {word} than {base}")
    if same:
        parts.append(f"{_names(same)} {_is(same)} not distinguishable from it")
    return f"Seed by seed {'; '.join(parts)}."


def _difference(pair: Pair) -> str:
    """The interval of the difference, and the factor where it has one."""
    low, high = (f"{v:+.2g}".replace("-", "−") for v in pair.difference.interval())
    return f"{low} to {high}" + (f", {pair.ratio[0]:.3g} times" if pair.ratio else "")


def _few_calls(members: Sequence[Group], exact: Group | None) -> str:
    budget = members[0].first.budgets[0]
    truth = None if exact is None else exact.distance(TARGET.name, budget)
    if truth is None or truth.ratio is None or not distinguishable(truth):
        return ""
    found = [g.distance(TARGET.name, budget) for g in members]
    ratios = [d.ratio.value for d in found if d is not None and d.ratio is not None]
    ends = " to ".join(dict.fromkeys((f"{min(ratios):.0f}", f"{max(ratios):.0f}")))
    text = (
        f"At {truth.nfe} calls even the exact field is at {in_words(truth.ratio)} times the floor, "
        f"the trained {'ones' if len(members) > 1 else 'one'} at {ends} times"
    )
    # The samplers' share is known for the exact field only.
    alike = all(0.5 < ratio / truth.ratio.value < 2 for ratio in ratios)
    return text + (": most of this is the error of the sampler." if alike else ".")


def _matched(comparison: Comparison) -> str:
    """Who is better when all are given the time of the cheapest training."""
    parts = []
    for metric in CATALOGUE:
        found = {
            p.model.label: p
            for p in comparison.matched_pairs
            if p.matched_by == TIME.name
            and p.budget_fraction == 1
            and p.key.metric_name == metric.name
        }
        if found and "training" in metric.shown:
            text = _paired(found, comparison.members[0].label)
            parts.append(f"in the {metric.label}: {text[:1].lower()}{text[1:]}")
    return " ".join(f"Given the time of the cheapest training, {part}" for part in parts)


def _costs(comparison: Comparison) -> str:
    base, *others = comparison.members
    ratios = comparison.costs.ratios
    each = {g.label: ratios[g.model] for g in others if g.model in ratios}
    return f"A training step takes, in multiples of {base.label}'s: {_each(each)}." if each else ""

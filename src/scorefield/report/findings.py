"""What came out, in sentences that say what the numbers allow."""

from __future__ import annotations

from collections.abc import Sequence

from scorefield.comparison.groups import RMS, Group
from scorefield.comparison.paired import Pair
from scorefield.comparison.tables import Comparison
from scorefield.estimate import Estimate
from scorefield.evaluation.records import Distance
from scorefield.report.words import listed, spoken, told_apart

ROUNDING = 1e-5
"""A relative asymmetry below this is the rounding of float32."""


def findings(comparison: Comparison, reference: Group | None) -> list[tuple[str, str]]:
    """What came out on one data set: pairs of a heading and a sentence or two.

    That a model differs from the first is said only where the 95 % interval of their difference
    over common seeds leaves zero out; of single trainings nothing of the kind is said.

    Arguments:
        comparison: The trained models; the first is the baseline.
        reference: The exact field, where there is one.
    """
    members = comparison.members
    said = [
        ("Samples", _samples(comparison)),
        ("Few network calls", _few_calls(members, reference)),
        ("Gradient or not", _integrability(comparison)),
        ("Around the torus", _winding(comparison)),
        ("From one noise level to the next", _evolution(comparison)),
        ("Distance from the true score", _score_error(comparison)),
        ("Equal training time", _matched(comparison)),
        ("Cost", _costs(members, comparison.costs.ratios)),
        ("What one training tells", _single(comparison)),
    ]
    return [(heading, text) for heading, text in said if text]


def headline(members: Sequence[Group]) -> str:
    """The answer in one sentence: are the samples right, and are the fields gradients?"""
    found = _distances(members)
    parts = []
    if found:
        nfe = next(iter(found.values())).nfe
        laws = _distances(members, "total_variation")
        off = [m for m in found if any(told_apart(d[m]) for d in (found, laws) if m in d)]
        if not off:
            parts.append(f"at {nfe} network calls no model's samples can be told from real ones")
        elif len(off) == len(found):
            parts.append(f"at {nfe} network calls every model's samples can be told from real ones")
        else:
            parts.append(f"at {nfe} network calls only {listed(off)} can be told from real data")
    values = _summaries(members, "relative_asymmetry")
    still = [m for m, e in values.items() if e.value < ROUNDING]
    if still:
        parts.append(f"only {listed(still)} {_is(still)} a gradient")
    elif values:
        parts.append("no field is a gradient")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _distances(members: Sequence[Group], metric: str = "sliced_wasserstein") -> dict[str, Distance]:
    """A distance at the largest budget, by label, where it has a floor."""
    budget = members[0].first.budgets[-1]
    found = {g.label: g.distance(metric, budget) for g in members}
    return {m: d for m, d in found.items() if d is not None and d.floor is not None}


def _summaries(members: Sequence[Group], metric: str) -> dict[str, Estimate]:
    """A diagnostic's root mean square over noise levels, by label."""
    found = {g.label: g.over_levels(metric) for g in members}
    return {m: e for m, e in found.items() if e is not None}


def _is(labels: Sequence[str]) -> str:
    return "is" if len(labels) == 1 else "are"


def _samples(comparison: Comparison) -> str:
    members = comparison.members
    found = _distances(members)
    if not found:
        return ""
    nfe = next(iter(found.values())).nfe
    ratios = [f"{m} {spoken(d.ratio)}" for m, d in found.items() if d.ratio is not None]
    off = [m for m, d in found.items() if told_apart(d)]
    within = [m for m in found if m not in off]
    text = (
        f"At {nfe} network calls the sliced Wasserstein distance of generated from real samples "
        f"is, in multiples of that between two real sets of the same size, {listed(ratios)}. "
    )
    if not off:
        text += "By this distance, and with so many samples, no model can be told from real data. "
    elif not within:
        text += "By this distance all can be told from real data. "
    else:
        text += f"{listed(off)} can be told from real data, {listed(within)} cannot. "
    text += _against_first(comparison, "sliced_wasserstein", "closer", "further off")
    return " ".join(filter(None, (text.strip(), _exact_law(members), _coverage(members))))


def _exact_law(members: Sequence[Group]) -> str:
    """The total variation from the law of the data, where its cells are known."""
    found = _distances(members, "total_variation")
    if not found:
        return ""
    told = [f"{m} {spoken(d.estimate)}" for m, d in found.items()]
    floor = next(iter(found.values())).floor
    assert floor is not None
    off = [m for m, d in found.items() if told_apart(d)]
    verdict = f"{listed(off)} can be told from it" if off else "none can be told from it"
    return (
        f"The total variation from the exact law over a grid is {listed(told)}, where as many "
        f"samples of the law have {floor.mean:.3f} on average: {verdict}."
    )


def _coverage(members: Sequence[Group]) -> str:
    budget = members[0].first.budgets[-1]
    found = {g.label: g.distance("mode_coverage", budget) for g in members}
    counts = {m: d.estimate for m, d in found.items() if d is not None}
    if not counts:
        return ""
    own = members[0].first.distance("mode_coverage", budget)
    assert own is not None  # a distance over seeds is one that every seed has
    total = int(own.estimate.settings["modes"])
    if all(e.value == total for e in counts.values()):
        return f"Every model covers all {total} modes."
    told = listed([f"{m} {e.value:g}" for m, e in counts.items()])
    return f"Of {total} modes are covered: {told}."


def _pairs(pairs: Sequence[Pair], metric: str, budget: int | None) -> dict[str, Pair]:
    """The differences in a metric, over all noise levels or at a budget, by label."""
    return {
        p.model.label: p
        for p in pairs
        if p.key.metric_name == metric
        and (p.key.sigma_bin == RMS or (p.key.sigma_bin is None and p.key.nfe_budget == budget))
    }


def _against_first(comparison: Comparison, metric: str, less: str, more: str) -> str:
    budget = comparison.members[0].first.budgets[-1]
    found = _pairs(comparison.pairs, metric, budget)
    return _paired(found, comparison.members[0].label, less, more)


def _paired(found: dict[str, Pair], base: str, less: str, more: str) -> str:
    """Who differs from the baseline, with the interval of the difference."""
    if not found:
        return ""

    def told(models: Sequence[str], word: str) -> str:
        each = [f"{m} ({_difference(found[m])})" for m in models]
        return f"{listed(each)} {_is(models)} {word} than {base}"

    apart = [m for m, p in found.items() if p.excludes_zero]
    below = [m for m in apart if found[m].difference.value < 0]
    above = [m for m in apart if m not in below]
    same = [m for m in found if m not in apart]
    parts = []
    if below:
        parts.append(told(below, less))
    if above:
        parts.append(told(above, more))
    if same and not apart:
        return f"Seed by seed no model differs from {base} by more than chance explains."
    if same:
        parts.append(f"{listed(same)} cannot be told from it")
    return f"Seed by seed {'; '.join(parts)}."


def _difference(pair: Pair) -> str:
    low, high = (f"{v:+.2g}".replace("-", "−") for v in pair.difference.interval())
    return f"{low} to {high}"


def _few_calls(members: Sequence[Group], exact: Group | None) -> str:
    budget = members[0].first.budgets[0]
    truth = None if exact is None else exact.distance("sliced_wasserstein", budget)
    if truth is None or truth.ratio is None or not told_apart(truth):
        return ""
    found = [g.distance("sliced_wasserstein", budget) for g in members]
    ratios = [d.ratio.value for d in found if d is not None and d.ratio is not None]
    ends = [f"{min(ratios):.0f}", f"{max(ratios):.0f}"]
    text = (
        f"At {truth.nfe} calls even the exact field is {spoken(truth.ratio)} times the floor away, "
        f"the trained ones {' to '.join(dict.fromkeys(ends))} times"
    )
    # The samplers' share is known for the exact field only.
    alike = all(0.5 < ratio / truth.ratio.value < 2 for ratio in ratios)
    return text + (": most of that is the error of the sampler." if alike else ".")


def _integrability(comparison: Comparison) -> str:
    members = comparison.members
    values = _summaries(members, "relative_asymmetry")
    base = members[0].label
    if base not in values:
        return ""
    zero = [m for m, e in values.items() if e.value < ROUNDING]
    found = _pairs(comparison.pairs, "relative_asymmetry", None)
    told = [m for m in values if m not in zero and (m == base or m not in found)]
    text = (
        "The relative asymmetry of the Jacobian (0 for a gradient, 1 for a rotation; root mean "
        f"square over noise levels) is {listed([f'{spoken(values[m])} for {m}' for m in told])}"
    )
    parts, same = [], []
    for m, p in found.items():
        if m in zero:
            continue
        if not p.excludes_zero or p.ratio is None:
            same.append(m)
            continue
        less = p.difference.value < 0
        times = 1 / p.ratio[0] if less else p.ratio[0]
        word = "less" if less else "more"
        parts.append(f"{m} has {_times(times)} times {word} ({_difference(p)})")
    if zero:
        largest = max(values[m].value for m in zero)
        parts.append(
            f"{listed(zero)} {_is(zero)} a gradient up to rounding ({largest:.0e})".replace(
                "e-0", "e−"
            )
        )
    if same:
        parts.append(f"{listed(same)} cannot be told from {base}, seed by seed")
    return text + ("; " if parts else "") + "; ".join(parts) + "."


def _winding(comparison: Comparison) -> str:
    """What the log-density gains in a turn around a torus."""
    around = _summaries(comparison.members, "winding")
    if not around:
        return ""
    text = (
        "Around straight loops that cannot be shrunk the score gains, root mean square over "
        f"points, directions and noise levels, {_nats(around)}"
    )
    harmonic = _summaries(comparison.members, "harmonic_part")
    if harmonic:
        text += f"; the harmonic part, which no curl explains, is {_nats(harmonic)} a turn"
    return (
        f"{text}. {_against_first(comparison, 'winding', 'winding less', 'winding more')}".strip()
    )


def _nats(values: dict[str, Estimate]) -> str:
    return listed([f"{spoken(e)} nats for {m}" for m, e in values.items()])


def _evolution(comparison: Comparison) -> str:
    """Whether the scores of different noise levels fit together."""
    parts = []
    for metric, name, unit in (
        (
            "fokker_planck",
            "The residual of the Fokker–Planck equation",
            "in units of the noise for each unit of ln σ",
        ),
        (
            "consistency",
            "The mean square distance of the field from the mean of what it says at the end of its "
            "own trajectories",
            "in squared units of the noise",
        ),
    ):
        values = _summaries(comparison.members, metric)
        if values:
            told = listed([f"{m} {spoken(e)}" for m, e in values.items()])
            parts.append(f"{name}, {unit} (root mean square over noise levels): {told}.")
            parts.append(_against_first(comparison, metric, "closer", "further off"))
    return " ".join(filter(None, parts))


def _times(x: float) -> str:
    return f"{x:.2f}" if x < 10 else f"{x:.3g}"


def _score_error(comparison: Comparison) -> str:
    values = _summaries(comparison.members, "score_error")
    if not values:
        return ""
    ranked = sorted(values, key=lambda m: values[m].value)
    text = (
        "The error of the score in units of the noise (root mean square over points and noise "
        "levels): " + listed([f"{m} {spoken(values[m])}" for m in ranked]) + ". "
    )
    return (text + _against_first(comparison, "score_error", "closer", "further off")).strip()


def _matched(comparison: Comparison) -> str:
    """Who is better when all are given the time of the cheapest training."""
    base = comparison.members[0].label
    whole = [p for p in comparison.matched_pairs if p.budget_fraction == 1]
    distances = {p.model.label: p for p in whole if p.key.metric_name == "sliced_wasserstein"}
    losses = _pairs(whole, "validation_loss", None)
    if not distances or not losses:
        return ""
    return (
        "Given the time of the cheapest training, in the sliced Wasserstein distance: "
        f"{_lower(_paired(distances, base, 'closer', 'further off'))} In the validation loss: "
        f"{_lower(_paired(losses, base, 'lower', 'higher'))}"
    )


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _single(comparison: Comparison) -> str:
    if comparison.pairs or len(comparison.members) < 2:
        return ""
    return (
        "Differences between single trainings have no interval: what another seed would change is "
        "not in the errors here, which are those of finitely many samples and points. To compare "
        "models, train each with several seeds."
    )


def _costs(members: Sequence[Group], costs: dict[str, Estimate]) -> str:
    base = members[0].label
    others = [g for g in members if g.model in costs and g.label != base]
    if not others:
        return ""
    told = listed([f"{g.label} {spoken(costs[g.model])}" for g in others])
    return f"A training step takes, in multiples of {base}'s: {told}."

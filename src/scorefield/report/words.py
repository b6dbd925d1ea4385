"""Numbers and findings in words, as the page says them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scorefield.estimate import Estimate, format_uncertain
from scorefield.experiments.records import Level
from scorefield.experiments.tables import Group

DIFFERENT = 3.0
"""How many standard errors apart two numbers count as different: 0.3 % of differences between
equal numbers are larger."""


class Number(NamedTuple):
    """A number as it is set: ``value`` ± ``error``, times ten to the ``exponent``."""

    value: str
    error: str
    exponent: int | None = None


def number(estimate: Estimate) -> Number:
    """The number and its error, with two digits of the error."""
    if estimate.standard_error == 0:
        return Number(f"{estimate.value:.4g}".replace("e-0", "e-"), "")
    text = format_uncertain(estimate.value, estimate.standard_error)
    exponent = None
    if text.startswith("("):
        text, _, power = text[1:].partition(")e")
        exponent = int(power)
    value, _, error = text.partition(" ± ")
    return Number(value.replace("-", "−"), error, exponent)


def spoken(estimate: Estimate) -> str:
    """The number and its 95 % interval, as a sentence has it."""
    low, high = estimate.interval()
    if estimate.standard_error == 0:
        return f"{estimate.value:.3g}"
    if abs(estimate.value) < 1e-3:
        return f"{estimate.value:.0e}".replace("e-0", "e-").replace("-", "−")
    digits = max(0, 1 - math.floor(math.log10(max(high - low, 1e-12) / 2)))
    digits = min(digits, 4)
    texts = [f"{v:.{digits}f}".replace("-", "−") for v in (estimate.value, low, high)]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"


def listed(items: Sequence[str]) -> str:
    """``a, b and c``."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def over_levels(levels: Sequence[Level]) -> Estimate | None:
    r"""The root mean square of a diagnostic over its noise levels.

    All levels share their points, so that their errors are added as if they were fully
    correlated, which no correlation exceeds. ``None`` where there is no level.
    """
    if not levels:
        return None
    estimates = [level.estimate for level in levels]
    square = sum(e.value**2 for e in estimates) / len(estimates)
    value = math.sqrt(square)
    if value == 0:
        error = math.sqrt(sum(e.standard_error**2 for e in estimates) / len(estimates))
    else:
        weighted = sum(abs(e.value) * e.standard_error for e in estimates)
        error = weighted / (len(estimates) * value)
    n = min(e.n for e in estimates)
    return Estimate(value, error, n, estimates[0].unit, {"levels": len(levels)})


def differ(a: Estimate, b: Estimate) -> bool:
    """Whether two numbers are further apart than their errors explain.

    Errors are added as if independent: common points and noise make the real ones smaller.
    """
    return abs(a.value - b.value) > DIFFERENT * math.hypot(a.standard_error, b.standard_error)


def quotient(a: Estimate, b: Estimate) -> Estimate:
    """``a / b`` with the error of both, as if independent."""
    value = a.value / b.value
    error = math.hypot(a.standard_error, value * b.standard_error) / abs(b.value)
    return Estimate(value, error, min(a.n, b.n))


def findings(
    members: Sequence[Group], reference: Group | None, costs: dict[str, Estimate]
) -> list[tuple[str, str]]:
    """What came out on one data set: pairs of a heading and a sentence or two.

    Arguments:
        members: The trained models; the first is the baseline.
        reference: The exact field, where there is one.
        costs: The time of a training step relative to the baseline's, by model.
    """
    said = [
        ("Samples", _samples(members)),
        ("Few network calls", _few_calls(members, reference)),
        ("Gradient or not", _integrability(members)),
        ("Distance from the true score", _score_error(members)),
        ("Cost", _costs(members, costs)),
    ]
    return [(heading, text) for heading, text in said if text]


def _samples(members: Sequence[Group]) -> str:
    budget = members[0].first.budgets[-1]
    found = [(g, g.distance("sliced_wasserstein", budget)) for g in members]
    ratios = {g.label: d.ratio for g, d in found if d is not None and d.ratio is not None}
    if not ratios:
        return ""
    nfe = found[0][1].nfe if found[0][1] is not None else budget
    inside = [m for m, r in ratios.items() if r.value - 1 <= DIFFERENT * r.standard_error]
    outside = [m for m in ratios if m not in inside]
    floor = "two real sets of the same size have between them"
    text = (
        f"At {nfe} network calls, the sliced Wasserstein distance of generated from real samples "
        f"is, in multiples of what {floor}: "
        + listed([f"{m} {spoken(r)}" for m, r in ratios.items()])
        + ". "
    )
    if not outside:
        text += "By this distance no model can be told from real data at this sample size."
    elif not inside:
        text += "All of them can be told from real data."
    else:
        text += f"{listed(inside)} cannot be told from real data, {listed(outside)} can."
    text += " " + _against_first(members, {g.label: d.estimate for g, d in found if d is not None})
    coverage = {g.label: g.distance("mode_coverage", budget) for g in members}
    counts = {m: d.estimate for m, d in coverage.items() if d is not None}
    if counts:
        modes = next(iter(counts.values())).settings.get("modes", "")
        total = int(modes) if modes else None
        missing = [m for m, e in counts.items() if total is not None and e.value < total]
        if total is not None and not missing:
            text += f" Every model covers all {total} modes."
        elif total is not None:
            text += (
                " Modes covered, of "
                + f"{total}: "
                + listed([f"{m} {counts[m].value:g}" for m in counts])
            )
            text += "."
    return text


def _against_first(members: Sequence[Group], values: dict[str, Estimate]) -> str:
    base = members[0].label
    if base not in values or len(values) < 2:
        return ""
    others = {m: e for m, e in values.items() if m != base}
    better = [
        m for m, e in others.items() if differ(e, values[base]) and e.value < values[base].value
    ]
    worse = [
        m for m, e in others.items() if differ(e, values[base]) and e.value > values[base].value
    ]
    if not better and not worse:
        return f"No model differs from {base} by more than the errors."
    parts = []
    if better:
        parts.append(f"{listed(better)} {'is' if len(better) == 1 else 'are'} closer than {base}")
    if worse:
        parts.append(
            f"{listed(worse)} {'is' if len(worse) == 1 else 'are'} further off than {base}"
        )
    same = [m for m in others if m not in better and m not in worse]
    if same:
        parts.append(f"{listed(same)} cannot be told from it")
    return "; ".join(parts).capitalize()[:1] + "; ".join(parts)[1:] + "."


def _few_calls(members: Sequence[Group], reference: Group | None) -> str:
    budget = members[0].first.budgets[0]
    if reference is None:
        return ""
    exact = reference.distance("sliced_wasserstein", budget)
    if exact is None or exact.ratio is None:
        return ""
    ratios = [
        d.ratio.value
        for g in members
        if (d := g.distance("sliced_wasserstein", budget)) is not None and d.ratio is not None
    ]
    return (
        f"At {exact.nfe} calls even the exact field is {spoken(exact.ratio)} floors away, the "
        f"trained ones {min(ratios):.3g} to {max(ratios):.3g}: what is seen there is the error of "
        "the sampler, not of a model."
        if exact.ratio.value > 3
        else ""
    )


def _integrability(members: Sequence[Group]) -> str:
    found = {g.label: over_levels(g.profile("relative_asymmetry")) for g in members}
    values = {m: e for m, e in found.items() if e is not None}
    base = members[0].label
    if base not in values:
        return ""
    text = (
        f"The relative asymmetry of the Jacobian (0 for a gradient, 1 for a rotation; root mean "
        f"square over noise levels) is {spoken(values[base])} for {base}"
    )
    zero = [m for m, e in values.items() if e.value < 1e-5]
    parts, same = [], []
    for m, e in values.items():
        if m == base or m in zero:
            continue
        if not differ(e, values[base]):
            same.append(m)
        elif e.value < values[base].value:
            parts.append(f"{m} has {spoken(quotient(values[base], e))} times less")
        else:
            parts.append(f"{m} has {spoken(quotient(e, values[base]))} times more")
    if zero:
        largest = max(values[m].value for m in zero)
        parts.append(
            f"{listed(zero)} {'is' if len(zero) == 1 else 'are'} a gradient up to rounding "
            f"({largest:.0e})".replace("e-0", "e−")
        )
    if same:
        parts.append(f"{listed(same)} cannot be told from {base}")
    return text + ("; " if parts else "") + "; ".join(parts) + "."


def _score_error(members: Sequence[Group]) -> str:
    found = {g.label: over_levels(g.profile("score_error")) for g in members}
    values = {m: e for m, e in found.items() if e is not None}
    if not values:
        return ""
    ranked = sorted(values, key=lambda m: values[m].value)
    text = (
        "The error of the score in units of the noise (root mean square over points and noise "
        "levels): " + listed([f"{m} {spoken(values[m])}" for m in ranked]) + ". "
    )
    return text + _against_first(members, values)


def _costs(members: Sequence[Group], costs: dict[str, Estimate]) -> str:
    base = members[0].label
    others = [g for g in members if g.model in costs and g.label != base]
    if not others:
        return ""
    told = listed([f"{g.label} {spoken(costs[g.model])}" for g in others])
    return f"A training step takes, in multiples of {base}'s: {told}."

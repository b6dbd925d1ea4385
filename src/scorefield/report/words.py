"""Numbers and findings in words, as the page says them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scorefield.estimate import Estimate, format_uncertain
from scorefield.experiments.records import Distance, Level
from scorefield.experiments.tables import Group

DIFFERENT = 3.0
"""How many standard errors apart two numbers count as different: 0.3 % of differences between
equal numbers are larger."""

ROUNDING = 1e-5
"""A relative asymmetry below this is the rounding of float32."""


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
        parts = [
            f"{v:.1e}".replace("e-0", "e-").replace("-", "−") for v in (estimate.value, low, high)
        ]
        return f"{parts[0]} ({parts[1]} to {parts[2]})"
    digits = max(0, -math.floor(math.log10(max(high - low, 1e-12) / 2)))
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


def told_apart(distance: Distance) -> bool:
    """Whether a distance to real samples is larger than those between two real sets."""
    return distance.excess is None or distance.excess > DIFFERENT


def headline(members: Sequence[Group]) -> str:
    """The answer in one sentence: are the samples right, and are the fields gradients?"""
    found = _distances(members)
    parts = []
    if found:
        nfe = next(iter(found.values())).nfe
        off = [m for m, d in found.items() if told_apart(d)]
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


def _distances(members: Sequence[Group]) -> dict[str, Distance]:
    """The sliced Wasserstein distance at the largest budget, by label, where it has a floor."""
    budget = members[0].first.budgets[-1]
    found = {g.label: g.distance("sliced_wasserstein", budget) for g in members}
    return {m: d for m, d in found.items() if d is not None and d.floor is not None}


def _summaries(members: Sequence[Group], metric: str) -> dict[str, Estimate]:
    """A diagnostic's root mean square over noise levels, by label."""
    found = {g.label: over_levels(g.profile(metric)) for g in members}
    return {m: e for m, e in found.items() if e is not None}


def _is(labels: Sequence[str]) -> str:
    return "is" if len(labels) == 1 else "are"


def _samples(members: Sequence[Group]) -> str:
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
    text += _against_first(members, {m: d.estimate for m, d in found.items()})
    return f"{text} {_coverage(members)}".strip()


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


def _against_first(members: Sequence[Group], values: dict[str, Estimate]) -> str:
    base = members[0].label
    if base not in values or len(values) < 2:
        return ""
    apart = [m for m in values if m != base and differ(values[m], values[base])]
    better = [m for m in apart if values[m].value < values[base].value]
    worse = [m for m in apart if m not in better]
    same = [m for m in values if m != base and m not in apart]
    if not apart:
        return f"No model differs from {base} by more than the errors."
    parts = []
    if better:
        parts.append(f"{listed(better)} {_is(better)} closer than {base}")
    if worse:
        parts.append(f"{listed(worse)} {_is(worse)} further off than {base}")
    if same:
        parts.append(f"{listed(same)} cannot be told from it")
    return "; ".join(parts) + "."


def _few_calls(members: Sequence[Group], exact: Group | None) -> str:
    budget = members[0].first.budgets[0]
    truth = None if exact is None else exact.distance("sliced_wasserstein", budget)
    if truth is None or truth.ratio is None or not told_apart(truth):
        return ""
    found = [g.distance("sliced_wasserstein", budget) for g in members]
    ratios = [d.ratio.value for d in found if d is not None and d.ratio is not None]
    text = (
        f"At {truth.nfe} calls even the exact field is {spoken(truth.ratio)} times the floor away, "
        f"the trained ones {min(ratios):.0f} to {max(ratios):.0f} times"
    )
    # The samplers' share is known for the exact field only.
    alike = all(0.5 < ratio / truth.ratio.value < 2 for ratio in ratios)
    return text + (": most of that is the error of the sampler." if alike else ".")


def _integrability(members: Sequence[Group]) -> str:
    values = _summaries(members, "relative_asymmetry")
    base = members[0].label
    if base not in values:
        return ""
    text = (
        f"The relative asymmetry of the Jacobian (0 for a gradient, 1 for a rotation; root mean "
        f"square over noise levels) is {spoken(values[base])} for {base}"
    )
    zero = [m for m, e in values.items() if e.value < ROUNDING]
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
            f"{listed(zero)} {_is(zero)} a gradient up to rounding ({largest:.0e})".replace(
                "e-0", "e−"
            )
        )
    if same:
        parts.append(f"{listed(same)} cannot be told from {base}")
    return text + ("; " if parts else "") + "; ".join(parts) + "."


def _score_error(members: Sequence[Group]) -> str:
    values = _summaries(members, "score_error")
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

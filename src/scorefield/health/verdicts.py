"""What the numbers of a check show, as sentences, the most serious first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from scorefield.health.fit import LOST
from scorefield.health.plan import Done, Number

Grade = Literal["fault", "notice", "good"]

_EVIDENT = 0.02
"""The relative asymmetry from which a field is no gradient in more than rounding."""
_WORSE = 1 + LOST
"""From how many times the trivial denoiser's loss a model does not fit."""
_RESIDUAL, _APART = 0.5, 1.0
"""The residual of the Fokker–Planck equation, in units of the noise per unit of ln sigma, from
which it is a notice, and a fault: in one unit of ln sigma what two noise levels predict then
differs by half the noise, and by the whole of it."""
_SLOPE = 0.1
"""How far the slope of the noise on its prediction may be from one."""


class Verdict(NamedTuple):
    """A sentence: what it is about, how serious it is, and its words."""

    about: str
    grade: Grade
    words: str


def verdicts(done: Mapping[str, Done], failed: Mapping[str, str]) -> list[Verdict]:
    """All that the measured numbers show, and what could not be measured, by its title, with the
    reasons.
    """
    found = [
        *_fit(done),
        *_gradient(done),
        *_levels(done),
        *_memory(done),
        *(
            Verdict(title, "fault", f"{_capital(title)} could not be measured: {why}")
            for title, why in failed.items()
        ),
    ]
    order = ("fault", "notice", "good")
    return sorted(found, key=lambda verdict: order.index(verdict.grade))


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _numbers(done: Mapping[str, Done], measurement: str, name: str = "") -> list[Number]:
    if measurement not in done:
        return []
    wanted = name or measurement
    return [n for n in done[measurement].found.numbers if n.name == wanted]


def _fit(done: Mapping[str, Done]) -> Iterator[Verdict]:
    """Whether the claim fits: other readings, the trivial denoiser, randomness, clipping."""
    if "fit" not in done:
        return
    kept = done["fit"].found.kept
    best = next((reading for reading in kept["readings"] if reading["certain"]), None)
    if best is not None:
        yield Verdict(
            best["kind"],
            "fault",
            f"The claim does not fit: it would if {best['words']}. At noise level "
            f"{best['sigma']:.3g} the correlation of the predicted noise with the noise is "
            f"{best['claimed']:.2f} as claimed, and {best['found']:.2f} then.",
        )
    if kept["random"] > 0:
        yield Verdict(
            "randomness",
            "fault",
            "The field is random: two evaluations at the same points differ. Dropout is active, or "
            "noise is drawn inside; is the network in evaluation mode?",
        )
    if kept.get("saturated", 0.0) > 0:
        yield Verdict(
            "clipping",
            "fault",
            f"The denoised points are clipped: {kept['saturated']:.0%} of their coordinates at the "
            "higher noise levels have exactly the largest or the smallest value. A clipped "
            "denoiser is not the network's field, and its Jacobian has zeros where it clips.",
        )
    if kept.get("together", 0.0) > 0:
        yield Verdict(
            "batch",
            "fault",
            "The value at a point depends on the other points of its batch: is a batch "
            "normalisation in training mode?",
        )
    losses = _numbers(done, "fit", "loss")
    least = _numbers(done, "fit", "trivial")
    bad = [
        loss.sigma
        for loss, other in zip(losses, least, strict=True)
        if loss.interval()[0] > _WORSE * other.interval()[1]
    ]
    # A network that predicts the data loses much at the lowest levels, whatever it has learned.
    high = [loss.sigma for loss in losses[len(losses) // 2 :] if loss.sigma in bad]
    if best is None and (len(bad) > len(losses) // 2 or len(high) > len(losses) // 4):
        yield Verdict(
            "fit",
            "fault",
            f"The model does not fit the data: at {len(bad)} of {len(losses)} noise levels its "
            "loss is above that of the linear denoiser with the data's mean and covariance by "
            f"half or more, and none of {kept['tried']} other readings of it explains that.",
        )
    elif best is None:
        there = " that there was time for" if kept.get("left") else ""
        words = (
            f"The claim fits: none of {kept['tried']} other readings{there} is significantly better"
        )
        if bad:
            levels = ", ".join(f"{sigma:.3g}" for sigma in bad)
            yield Verdict("fit", "notice", f"{words}. At noise level {levels} its loss is above "
                          "that of a linear denoiser by half or more.")  # fmt: skip
        else:
            yield Verdict("fit", "good", f"{words}.")
    slopes = [
        n for n in _numbers(done, "fit", "slope")
        if n.interval()[0] > 1 + _SLOPE or n.interval()[1] < 1 - _SLOPE
    ]  # fmt: skip
    if slopes and best is None:
        levels = ", ".join(f"{n.sigma:.3g} ({n.estimate})" for n in slopes)
        yield Verdict(
            "calibration",
            "notice",
            "The predicted noise is not calibrated: the slope of the noise on it is not 1 at noise "
            f"level {levels}.",
        )


def _gradient(done: Mapping[str, Done]) -> Iterator[Verdict]:
    """Whether the score is a gradient."""
    found = _numbers(done, "relative_asymmetry")
    if not found:
        return
    worst = max(found, key=lambda n: n.estimate.value)
    low, high = (100 * v for v in worst.interval())
    where = f"{100 * worst.estimate.value:.2g} % of the whole at noise level {worst.sigma:.3g}"
    if low > 100 * _EVIDENT:
        yield Verdict(
            "gradient",
            "fault" if low > 25 else "notice",
            f"The score is not a gradient: the antisymmetric part of its Jacobian is up to {where} "
            f"({low:.2g} to {high:.2g} %).",
        )
    else:
        yield Verdict(
            "gradient", "good",
            f"The score is a gradient within {max(high, 0):.2g} %: the antisymmetric part of its "
            f"Jacobian is at most {where}.",
        )  # fmt: skip


def _levels(done: Mapping[str, Done]) -> Iterator[Verdict]:
    """Whether the noise levels agree with each other."""
    found = _numbers(done, "fokker_planck")
    if not found:
        return
    worst = max(found, key=lambda n: n.interval()[0])
    low, high = worst.interval()
    words = (
        f"the residual of the Fokker–Planck equation is up to {worst.estimate.value:.2g} "
        f"({low:.2g} to {high:.2g}), at noise level {worst.sigma:.3g}, in units of the noise per "
        "unit of ln σ"
    )
    if low > _RESIDUAL:
        grade: Grade = "fault" if low > _APART else "notice"
        yield Verdict("levels", grade, f"The noise levels do not agree: {words}.")
    else:
        yield Verdict("levels", "good", f"The noise levels agree: {words}.")


def _memory(done: Mapping[str, Done]) -> Iterator[Verdict]:
    """Whether the training set is memorised."""
    last = [name for name in done if name.startswith("samples_")]
    copies = [n for name in last for n in _numbers(done, name, "copies")]
    real = [n for name in last for n in _numbers(done, name, "copies_held_out")]
    if not copies:
        return
    own, other = copies[0].estimate, real[0].estimate
    gap = own.value - other.value
    error = (own.standard_error**2 + other.standard_error**2) ** 0.5
    words = (
        f"{100 * own.value:.0f} % of the samples lie far nearer to one training point than to any "
        f"other, compared with {100 * other.value:.0f} % of held-out points"
    )
    if gap > 3 * error and gap > 0.05:
        yield Verdict("memory", "fault", f"The training set is memorised: {words}.")
    else:
        yield Verdict("memory", "good", f"No sign of memorisation: {words}.")


def headline(found: Sequence[Verdict]) -> str:
    """One sentence over all."""
    if not found:
        return "Nothing was measured: the time was too short for the first measurement."
    faults = [v for v in found if v.grade == "fault"]
    if not faults:
        return "No evidence was found against this model being what it claims to be."
    return faults[0].words.split(":")[0].rstrip(".") + "."

"""What is measured of a model, each measurement at sizes that double its points.

The estimators are those of the evaluation's catalogue; only the number of points is chosen here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from scorefield.engine import device_of
from scorefield.errors import UserError
from scorefield.evaluation.catalogue import OF_LEVELS
from scorefield.evaluation.catalogue.metric import OfLevel
from scorefield.evaluation.levels import within_cells
from scorefield.evaluation.protocol import Benchmark
from scorefield.health import fit
from scorefield.health.oddities import oddities
from scorefield.health.plan import Found, Measurement, Number, Part
from scorefield.health.points import Points, noise_levels
from scorefield.health.readings import Reading
from scorefield.health.samples import CALLS, FIRST, compare_samples
from scorefield.health.subject import FEW, Subject
from scorefield.likelihood.compute import log_prob

MEASURED = (
    "relative_asymmetry",
    "fokker_planck",
    "path_gap",
    "loop_circulation",
    "consistency",
    "score_error",
    "distance_to_ideal",
)
"""The metrics by noise level that a check measures, in the order of worth."""

_DENSITIES, _EXACT = 4, 8


def measurements(subject: Subject) -> Iterator[Measurement]:
    """All that is measured, in the order of worth."""
    yield Measurement(
        "fit", "fit of the claim to the data", lambda k: _Fit(subject, k).parts(), subject.most(64)
    )
    small = subject.benchmark(0)
    chosen = [next(m for m in OF_LEVELS if m.name == name) for name in MEASURED]
    first, *others = (
        Measurement(metric.name, metric.label, partial(_of_level, subject, metric),
                    subject.most(FEW))
        for metric in chosen
        if metric.estimator.applies.holds(subject.field, small)
    )  # fmt: skip
    yield first
    for calls in CALLS:
        yield Measurement(
            f"samples_{calls}",
            f"samples at {calls} network calls",
            lambda k, calls=calls: [partial(compare_samples, subject, calls, k)],  # type: ignore[misc]
            subject.most(FIRST),
            (f"samples_{CALLS[0]}", calls / CALLS[0]),
        )
    yield from others
    yield Measurement(
        "likelihood",
        "log-density",
        lambda k: [partial(_likelihood, subject, k)],
        subject.most(_DENSITIES),
    )


class _Fit:
    """The losses by noise level, and what other readings gain, one reading a part."""

    def __init__(self, subject: Subject, size: int) -> None:
        self.subject = subject
        self.readings = list(subject.readings())
        self.sigmas = noise_levels(subject.field, subject.source.std)
        self.n = min(64 << size, subject.held_out)
        self.gains: list[fit.Gain] = []

    def parts(self) -> list[Part]:
        return [self._claim, *(partial(self._other, k) for k in range(len(self.readings)))]

    def _claim(self) -> Found:
        field, source, sigmas = self.subject.field, self.subject.source, self.sigmas
        self.points = Points.of(field, source, self.n, self.subject.seed)
        self.claimed = fit.look(Reading("claim", "", field), self.points, sigmas)
        self.odd = oddities(field, self.points, sigmas[len(sigmas) // 2])
        numbers = []
        for level in self.claimed.levels():
            numbers += [
                Number("loss", "denoising loss", level.loss, level.sigma, least=0),
                Number("trivial", "loss of the trivial denoiser", level.trivial, level.sigma,
                       least=0),
                Number("correlation", "correlation of the noise and its prediction",
                       level.correlation, level.sigma, least=-1, most=1),
                Number("slope", "slope of the noise on its prediction", level.slope, level.sigma),
            ]  # fmt: skip
        return Found(tuple(numbers), self._kept(len(self.readings)))

    def _other(self, k: int) -> Found:
        """What a reading gains, and those before it."""
        gain = fit.gain_of(self.readings[k], self.claimed, self.points, self.sigmas)
        if gain is not None:
            self.gains.append(gain)
        return Found((), self._kept(len(self.readings) - 1 - k))

    def _kept(self, left: int) -> dict[str, Any]:
        tried = len(self.gains)
        best = [
            {
                "kind": gain.reading.kind,
                "words": gain.reading.words,
                "gain": gain.mean.value,
                "standard_error": gain.mean.standard_error,
                "sigma": gain.sigma,
                "claimed": gain.claimed,
                "found": gain.found,
                "certain": gain.beyond(tried),
            }
            for gain in sorted(self.gains, key=lambda gain: -gain.mean.value)[:5]
        ]
        counts = {"tried": tried, "left": left, "points": len(self.points.clean)}
        return {"readings": best, **counts, **self.odd._asdict()}


def _of_level(subject: Subject, metric: OfLevel, size: int) -> list[Part]:
    """A metric at one noise level after another."""
    # What is averaged as such is an unbiased square, which may be negative.
    least = 0.0 if metric.over_levels == "rms" else -math.inf

    def at(benchmark: Benchmark) -> Found:
        (sigma,) = benchmark.protocol.sigmas
        try:
            profiles = list(metric.estimator.measure(subject.field, benchmark))
        except UserError as error:
            # What it says of the diagnostic is in the title.
            cause = error.__cause__ if isinstance(error.__cause__, UserError) else error
            raise UserError(f"at noise level {sigma:.3g}, {cause}") from error
        return Found(
            tuple(
                Number(metric.name, metric.label, replace(e, unit=profile.unit), sigma, least)
                for profile in profiles
                if profile.name == metric.name
                and metric.radius in (None, profile.settings.get("radius"))
                for e in profile.estimates
            )
        )

    whole = subject.benchmark(size)
    levels = (
        replace(whole, protocol=replace(whole.protocol, sigmas=(sigma,)))
        for sigma in subject.sigmas
    )
    return [partial(at, b) for b in levels if metric.estimator.applies.holds(subject.field, b)]


def _likelihood(subject: Subject, size: int) -> Found:
    """Log-densities of held-out points; of bytes that got noise, in bits per dimension."""
    n, levels = min(_DENSITIES << size, subject.held_out), subject.levels
    x = subject.points(n)
    if levels is not None:
        x = within_cells(x, levels, subject.seed)
    x = x.to(device_of(subject.field))
    trace: Any = "exact" if subject.field.domain.dim <= _EXACT else "probes"
    found = log_prob(subject.field, x, rtol=1e-3, atol=1e-3, trace=trace, n_probes=2,
                     seed=subject.seed, classes=subject.classes(n))  # fmt: skip
    if levels is not None:
        value = found.bits_per_dim(levels.transform).mean()
        return Found((Number("bits_per_dim", "bits per dimension", replace(value, settings={})),))
    per_dim = found.mean().scaled(-1 / subject.field.domain.dim, "nats/dim")
    return Found((Number("nats_per_dim", "minus log-density per dimension",
                         replace(per_dim, settings={})),))  # fmt: skip

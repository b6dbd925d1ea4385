"""What is measured of a model, each measurement at sizes that double its points.

The estimators are those of the evaluation's catalogue; only the number of points is chosen here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from scorefield.data.source import DataSource, Split
from scorefield.engine import Engine, device_of
from scorefield.errors import UserError
from scorefield.estimate import Estimate, proportion
from scorefield.evaluation.catalogue import OF_LEVELS
from scorefield.evaluation.catalogue.metric import OfLevel
from scorefield.evaluation.levels import Levels, within_cells
from scorefield.evaluation.protocol import PRECISION, Benchmark, Protocol
from scorefield.fields.base import ScoreField
from scorefield.health import fit
from scorefield.health.oddities import oddities
from scorefield.health.plan import Found, Measurement, Number, Part
from scorefield.health.readings import Reading, readings
from scorefield.likelihood.compute import log_prob
from scorefield.metrics.sets import noise_floor
from scorefield.metrics.sliced import sliced_wasserstein
from scorefield.samplers.solvers import Heun

MEASURED = (
    "relative_asymmetry",
    "fokker_planck",
    "path_gap",
    "consistency",
    "score_error",
    "distance_to_ideal",
)
"""The metrics by noise level that a check measures, in the order of worth."""
CALLS = (10, 20, 40)
"""The numbers of network calls at which samples are compared with the data."""
NEAR = 1 / 3
"""A sample is a copy if its nearest training point is nearer than this share of the distance to the
second nearest."""

_LEVELS, _FEW, _SAMPLES, _DENSITIES = 5, 4, 64, 4
_PAIRS, _EXACT, _ROUGH = 8, 8, 0.2


@dataclass(frozen=True)
class Subject:
    """What is checked: a field, the data, how integers became their points if they were integers,
    other fields that might have been meant, by what would be otherwise, and the engine of the
    samples. Noise floors are kept by the size of a set.
    """

    field: ScoreField
    source: DataSource
    seed: int
    levels: Levels | None = None
    alternatives: Mapping[str, ScoreField] = dataclass_field(default_factory=dict)
    engine: Engine = dataclass_field(default_factory=Engine)
    floors: dict[int, Estimate | None] = dataclass_field(default_factory=dict)

    def readings(self) -> Iterator[Reading]:
        """All other readings of the model."""
        for words, other in self.alternatives.items():
            yield Reading("weights", words, other)
        yield from readings(self.field, self.source.std)

    @cached_property
    def held_out(self) -> int:
        """The number of points to measure on; a great number, where there is no end of them."""
        n = fit.held_out(self.source)
        if n is None:
            return 1 << 20
        return n or int(self.source.size or 0)

    @property
    def split(self) -> Split:
        """The split that the points are from."""
        return fit.split_of(self.source)

    @property
    def labelled(self) -> bool:
        """Whether the field is evaluated with the class of each point."""
        return self.field.classes is not None and self.source.classes is not None

    @property
    def shown(self) -> int:
        """How many samples the page shows: a sheet of images, or a cloud of points."""
        return 36 if len(self.field.domain.shape) == 3 else 1000

    def points(self, n: int) -> Tensor:
        """Some of the points to measure on."""
        return self.source.reference(min(n, self.held_out), self.seed, self.split, torch.float64)

    def classes(self, n: int) -> Tensor | None:
        """Their classes, if the field is evaluated with them."""
        if not self.labelled:
            return None
        return self.source.reference_classes(min(n, self.held_out), self.seed, self.split)

    def benchmark(self, size: int) -> Benchmark:
        """The data under the protocol of a size: a few points at each level, and Jacobians at all
        of them.
        """
        n = min(_FEW << size, self.held_out)
        protocol = Protocol(sigmas=self.sigmas, samples=max(n, 2), points=n,
                            columns=2 * n * self.field.domain.dim, seed=self.seed)  # fmt: skip
        # Probes add as much to the error of a few points as these have.
        precision = max(PRECISION, _ROUGH / 2 ** (size / 2))
        return Benchmark(self.source, protocol, split=self.split, labelled=self.labelled,
                         precision=precision)  # fmt: skip

    @cached_property
    def sigmas(self) -> tuple[float, ...]:
        """The noise levels of the diagnostics."""
        levels = fit.noise_levels(self.field, self.source.std)
        return levels[2 : 2 + 2 * _LEVELS : 2][:_LEVELS]

    def most(self, first: int) -> int:
        """How often a number of points can be doubled."""
        return max(0, (self.held_out // first).bit_length() - 1)


def measurements(subject: Subject) -> Iterator[Measurement]:
    """All that is measured, in the order of worth."""
    yield Measurement(
        "fit", "fit of the claim to the data", lambda k: _Fit(subject, k).parts(), subject.most(64)
    )
    small = subject.benchmark(0)
    chosen = [next(m for m in OF_LEVELS if m.name == name) for name in MEASURED]
    first, *others = (
        Measurement(metric.name, metric.label, partial(_of_level, subject, metric),
                    subject.most(_FEW))
        for metric in chosen
        if metric.estimator.applies.holds(subject.field, small)
    )  # fmt: skip
    yield first
    for calls in CALLS:
        yield Measurement(
            f"samples_{calls}",
            f"samples at {calls} network calls",
            lambda k, calls=calls: [partial(_samples, subject, calls, k)],  # type: ignore[misc]
            subject.most(_SAMPLES),
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
        self.sigmas = fit.noise_levels(subject.field, subject.source.std)
        self.n = min(64 << size, subject.held_out)
        self.gains: list[fit.Gain] = []

    def parts(self) -> list[Part]:
        return [self._claim, *(partial(self._other, k) for k in range(len(self.readings)))]

    def _claim(self) -> Found:
        field, source, sigmas = self.subject.field, self.subject.source, self.sigmas
        self.points = fit.Points.of(field, source, self.n, self.subject.seed)
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


def _samples(subject: Subject, calls: int, size: int) -> Found:
    """Samples, their distance to held-out points in units of that between two real sets, and how
    many of them are copies of training points.
    """
    n = min(_SAMPLES << size, subject.held_out)
    sampler = Heun.for_nfe(calls)
    with subject.engine.running():
        drawn = sampler.sample(subject.field, n, seed=subject.seed, classes=subject.classes(n))
    drawn = drawn.cpu().to(torch.float64)
    real = subject.points(n)
    distance = sliced_wasserstein(drawn.flatten(1), real.flatten(1))
    title = f"sliced Wasserstein distance of samples, {calls} calls"
    numbers = [Number(f"distance_{calls}", title, replace(distance, settings={}), least=0)]
    kept: dict[str, Any] = {"calls": sampler.nfe, "n": n}
    if n not in subject.floors:
        subject.floors[n] = floor(subject, n)
    least = subject.floors[n]
    if least is not None:
        title = f"sliced Wasserstein distance of two sets of {n} real points"
        numbers.append(Number(f"floor_{calls}", title, replace(least, settings={}), least=0))
    if calls == CALLS[-1]:
        kept["samples"] = drawn[: subject.shown].to(torch.float32)
        if subject.source.size is not None and subject.split == "test":
            numbers += _copies(subject, drawn, real)
    return Found(tuple(numbers), kept)


def _copies(subject: Subject, drawn: Tensor, real: Tensor) -> list[Number]:
    """The share of copies of training points among samples, and among held-out points."""
    assert subject.source.size is not None
    train = subject.source.reference(subject.source.size, subject.seed, "train").flatten(1)
    numbers = []
    for name, title, points in (
        ("copies", "samples that are copies of training points", drawn),
        ("copies_held_out", "held-out points that look like copies", real),
    ):
        two = torch.cdist(points.flatten(1).float(), train.float()).topk(2, largest=False).values
        k = int((two[:, 0] < NEAR * two[:, 1]).sum())
        value, low, high = proportion(k, len(points))
        error = (high - low) / 3.92
        share = Estimate(value, error, len(points))
        numbers.append(Number(name, title, share, least=0, most=1))
    return numbers


def floor(subject: Subject, n: int) -> Estimate | None:
    """The sliced Wasserstein distance between two real sets of a size, where there are enough."""
    if subject.source.truth is None and subject.held_out < 2 * n:
        return None
    law = noise_floor(
        lambda x, y: sliced_wasserstein(x.flatten(1), y.flatten(1)),
        subject.source.truth or _Held(subject),
        n, _PAIRS, seed=-1 - subject.seed,
    )  # fmt: skip
    return law.mean


@dataclass(frozen=True)
class _Held:
    """The points to measure on, as a finite set of real samples."""

    subject: Subject

    @property
    def size(self) -> int:
        return self.subject.held_out

    def reference(self, n: int, seed: int) -> Tensor:
        """So many of them."""
        subject = self.subject
        return subject.source.reference(n, seed, subject.split, torch.float64)

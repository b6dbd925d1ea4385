"""Measuring a field on a benchmark: every metric of the catalogue that applies to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from scorefield.data import DataSource
from scorefield.diagnostics import Profile
from scorefield.errors import UserError
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue import OF_LEVELS, OF_PATHS, OF_SAMPLES, VALIDATION
from scorefield.evaluation.protocol import Benchmark, OnProgress, Protocol
from scorefield.evaluation.records import Distance, Floor, Level
from scorefield.fields import ScoreField
from scorefield.metrics import noise_floor
from scorefield.noise import Noise
from scorefield.samplers.trajectory import Trajectory

Floors = Mapping[tuple[str, str], Floor]
"""The noise floor of each distance that has one, by its name and that of its features."""


def measure_levels(field: ScoreField, benchmark: Benchmark) -> tuple[Level, ...]:
    """The metrics by noise level that apply to a field, all on the same noisy points.

    Raises:
        ValueError: If the data has too few points, or a value is not finite.
    """
    levels: list[Level] = []
    for estimator in dict.fromkeys(m.estimator for m in OF_LEVELS):
        if estimator.applies.holds(field, benchmark):
            for profile in estimator.measure(field, benchmark):
                levels += levels_of(profile)
    return tuple(levels)


def levels_of(profile: Profile) -> list[Level]:
    """The records of a profile, one a noise level."""
    settings = profile.settings
    lengths = settings.get("lengths")
    return [
        Level(
            profile.name,
            sigma,
            replace(e, unit=profile.unit, settings={**settings, **e.settings}),
            settings.get("radius"),
            lengths[0] if lengths else None,
        )
        for sigma, e in profile
    ]


def measure_samples(
    field: ScoreField,
    benchmark: Benchmark,
    floors: Floors,
    on_progress: OnProgress = lambda words: None,
) -> tuple[Distance, ...]:
    """The distances of generated from real samples at each budget of network calls, and how long
    and how curved the sampler's paths are.

    Raises:
        ValueError: If the data has too few held-out samples.
        FloatingPointError: If samples diverge.
    """
    protocol, found = benchmark.protocol, []
    compared = [(m.name, on, f) for m in OF_SAMPLES for on, f in m.compare(benchmark)]
    for budget in protocol.nfes:
        on_progress(f"samples at {budget} network calls")
        sampler = protocol.method(budget)
        paths = Trajectory(field, sampler, protocol.samples, protocol.seed)
        measured = [(name, on, f(paths.samples, benchmark.real)) for name, on, f in compared]
        measured += [(m.name, "", e) for m in OF_PATHS if (e := m.read(paths)) is not None]
        found += [
            Distance(
                protocol.sampler, budget, sampler.nfe, name, on, e, floors.get((name, on)),
                paths.latency,
            )
            for name, on, e in measured
        ]  # fmt: skip
    return tuple(found)


def measure_checkpoint(
    field: ScoreField, benchmark: Benchmark, floors: Floors
) -> tuple[Distance, ...]:
    """What is measured of a checkpoint along the training: the distances at the one budget that
    the protocol names for it, and the validation loss.

    Raises:
        ValueError: If the protocol names no budget, or the data has too few held-out samples.
        FloatingPointError: If samples diverge.
    """
    along = benchmark.protocol.along
    if along is None:
        raise UserError("this protocol leaves the checkpoints along the training out")
    at_one = replace(benchmark, protocol=replace(benchmark.protocol, nfes=(along,)))
    loss = VALIDATION.measure(field, benchmark)
    return (
        *measure_samples(field, at_one, floors),
        Distance("", 0, 0, VALIDATION.name, "", loss),
    )


def validate(field: ScoreField, benchmark: Benchmark) -> Estimate:
    """The validation loss of a field; see the catalogue's entry."""
    return VALIDATION.measure(field, benchmark)


def measure_floors(benchmark: Benchmark) -> dict[tuple[str, str], Floor]:
    """The distance between two real sets of the size at which a model is measured.

    For a law the sets are independent draws. For a finite data set they are disjoint random
    subsets of its training items and the held-out samples together.

    Raises:
        ValueError: If a finite data set has too few items for two such sets.
    """
    p = benchmark.protocol
    real = benchmark.truth if benchmark.truth is not None else _Pool(benchmark.source, p)
    floors = {}
    for metric in OF_SAMPLES:
        for on, distance in metric.compare(benchmark) if metric.floor else ():
            # Not the seed of the real samples, which would make them one of the pairs.
            law = noise_floor(distance, real, p.samples, p.pairs, seed=-1 - p.seed)
            floor = Floor(law.mean.value, law.mean.standard_error, law.sd, law.pairs)
            floors[metric.name, on] = floor
    return floors


class _Pool:
    """The training items and the held-out samples of a finite data set, together."""

    def __init__(self, source: DataSource, protocol: Protocol) -> None:
        assert source.size is not None
        train = source.reference(source.size, protocol.seed, "train")
        test = source.reference(protocol.samples, protocol.seed, "test")
        self._items = torch.cat((train, test))
        self._name = source.name

    @property
    def size(self) -> int:
        return len(self._items)

    def reference(self, n: int, seed: int) -> Tensor:
        if n > len(self._items):
            raise UserError(
                f"{self._name} has {len(self._items)} items in all, the noise floor of "
                f"{n // 2} samples needs {n}"
            )
        return self._items[Noise(seed).permutation("noise floor", len(self._items))[:n]]

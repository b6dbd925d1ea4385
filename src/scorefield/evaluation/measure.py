"""What is measured of a field under a protocol: metrics by noise level, samples, noise floors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from scorefield.data.source import DataSource
from scorefield.engine import Engine, device_of
from scorefield.errors import UserError
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue import OF_LEVELS, OF_PATHS, OF_SAMPLES, VALIDATION
from scorefield.evaluation.catalogue.metric import Estimator
from scorefield.evaluation.protocol import Benchmark, Protocol
from scorefield.evaluation.records import Distance, Floor, Level
from scorefield.evaluation.sampling import following
from scorefield.fields.base import ScoreField
from scorefield.metrics.sets import noise_floor
from scorefield.noise import Noise
from scorefield.progress import Stages
from scorefield.samplers.base import Sampler
from scorefield.samplers.trajectory import Once, Trajectory, directly
from scorefield.world import ALONE, World

Floors = Mapping[tuple[str, str], Floor]
"""The noise floor of each distance that has one, by its name and that of its features."""


def measure_levels(
    field: ScoreField,
    benchmark: Benchmark,
    stages: Stages | None = None,
    world: World = ALONE,
    once: Once = directly,
    only: Collection[str] | None = None,
) -> tuple[Level, ...]:
    """The metrics by noise level that apply to a field, all on the same noisy points; each process
    measures at some of the levels, and ``once`` gets what an estimator finds there.

    Estimators are those of the keys ``only``, or all.
    """
    sigmas, stages = benchmark.protocol.sigmas, stages or Stages(quiet=True)
    shares = [share for k in range(world.size) if (share := sigmas[k :: world.size])]
    tasks = [partial(_at_levels, field, benchmark, share, stages, once, only) for share in shares]
    parts = world.each(tasks)
    found = sorted(
        (place for part in parts for place in part),
        key=lambda place: (*place[:2], sigmas.index(place[2].sigma)),
    )
    return tuple(level for *_, level in found)


def _at_levels(
    field: ScoreField,
    benchmark: Benchmark,
    sigmas: tuple[float, ...],
    stages: Stages,
    once: Once,
    only: Collection[str] | None,
) -> list[tuple[int, int, Level]]:
    """The metrics at some of the levels, after the numbers of the estimator and of its profile."""
    levels: list[tuple[int, int, Level]] = []
    here = replace(benchmark, protocol=replace(benchmark.protocol, sigmas=sigmas))
    estimators = dict.fromkeys(m.estimator for m in OF_LEVELS)
    applied = [e for e in estimators if e.applies.holds(field, here)]
    for k, estimator in enumerate(applied):
        if only is not None and estimator.key not in only:
            continue
        found = once(("levels", k, sigmas), partial(_profiles, estimator, field, here))
        levels += ((k, number, level) for number, level in found)
        stages.advance("diagnostics", k + 1, len(applied))
    return levels


def _profiles(
    estimator: Estimator, field: ScoreField, benchmark: Benchmark
) -> list[tuple[int, Level]]:
    """What an estimator finds at the levels, after the number of its profile."""
    levels = []
    for number, profile in enumerate(estimator.measure(field, benchmark)):
        for sigma, e in profile:
            settings = {**profile.settings, **e.settings}
            level = Level(
                profile.name,
                sigma,
                replace(e, unit=profile.unit, settings=settings),
                profile.settings.get("radius"),
                profile.settings.get("lengths", (None,))[0],
            )
            levels.append((number, level))
    return levels


def measure_samples(
    field: ScoreField,
    benchmark: Benchmark,
    floors: Floors,
    stages: Stages | None = None,
    engine: Engine | None = None,
    once: Once = directly,
    methods: Mapping[int, Sampler] | None = None,
    name: str | None = None,
) -> tuple[Distance, ...]:
    """The distances of generated from real samples at each budget, and the paths' properties; they
    are drawn on an engine, which has the field, if one is given, and ``once`` gets blocks of them.

    Samples are drawn by the sampler of the protocol at its budgets, or by ``methods``, of a
    ``name``, at theirs.
    """
    protocol, found, stages = benchmark.protocol, [], stages or Stages(quiet=True)
    world = ALONE if engine is None else engine.world
    compared = [(m.name, on, f) for m in OF_SAMPLES for on, f in m.compare(benchmark)]
    if methods is None:
        methods, name = {b: protocol.method(b) for b in protocol.nfes}, protocol.sampler
    assert name is not None
    for budget, sampler in methods.items():
        calls = sampler.nfe
        assert calls is not None  # an adaptive method keeps to no budget
        stage = f"samples at {budget} network calls"
        stages.note(stage)
        with nullcontext() if engine is None else engine.running():
            watched = following(stages, stage)
            paths = Trajectory(
                field,
                sampler,
                protocol.samples,
                protocol.seed,
                watched,
                world,
                once,
                benchmark.sample_classes,
            )
        # Where the field is, distances are found faster.
        pair = [x.to(device_of(field)) for x in (paths.samples, benchmark.real)]
        tasks = [
            partial(once, (metric, on, calls), partial(f, *pair)) for metric, on, f in compared
        ]
        distances = world.each(tasks)
        measured = [(metric, on, d) for (metric, on, _), d in zip(compared, distances, strict=True)]
        measured += [(m.name, "", e) for m in OF_PATHS if (e := m.read(paths)) is not None]
        found += [
            Distance(
                name, budget, calls, metric, on, e, floors.get((metric, on)), paths.latency
            )
            for metric, on, e in measured
        ]  # fmt: skip
    return tuple(found)


def measure_checkpoint(
    field: ScoreField,
    benchmark: Benchmark,
    floors: Floors,
    engine: Engine | None = None,
    once: Once = directly,
) -> tuple[Distance, ...]:
    """The distances at the protocol's budget for checkpoints, and the validation loss."""
    along = benchmark.protocol.along
    if along is None:
        raise UserError("this protocol leaves the checkpoints along the training out")
    at_one = replace(benchmark, protocol=replace(benchmark.protocol, nfes=(along,)))
    world = ALONE if engine is None else engine.world
    (validation,) = world.each([partial(once, "validation", partial(validate, field, benchmark))])
    loss = Distance("", 0, 0, VALIDATION.name, "", validation)
    return (*measure_samples(field, at_one, floors, engine=engine, once=once), loss)


def validate(field: ScoreField, benchmark: Benchmark) -> Estimate:
    """The validation loss of a field; see the catalogue's entry."""
    return VALIDATION.measure(field, benchmark)


def measure_floors(
    benchmark: Benchmark,
    stages: Stages | None = None,
    world: World = ALONE,
    device: torch.device | str = "cpu",
    once: Once = directly,
) -> dict[tuple[str, str], Floor]:
    """The distances between two real sets: draws of a law, or disjoint items of a finite set;
    computed on a device.
    """
    p, stages = benchmark.protocol, stages or Stages(quiet=True)
    real = benchmark.truth if benchmark.truth is not None else _Pool(benchmark.source, p)
    wanted = [(m.name, on, f) for m in OF_SAMPLES if m.floor for on, f in m.compare(benchmark)]

    def distance(k: int, *pair: Tensor) -> Estimate:
        return wanted[k][2](*(x.to(device) for x in pair))

    def floor(k: int) -> Floor:
        # Not the seed of the real samples, which would make them one of the pairs.
        law = noise_floor(partial(distance, k), real, p.samples, p.pairs, seed=-1 - p.seed)
        stages.advance("noise floor", k + 1, len(wanted), wanted[k][0])
        return Floor(law.mean.value, law.mean.standard_error, law.sd, law.pairs)

    tasks = [
        partial(once, ("floor", name, on), partial(floor, k))
        for k, (name, on, _) in enumerate(wanted)
    ]
    floors = world.each(tasks)
    return {(name, on): law for (name, on, _), law in zip(wanted, floors, strict=True)}


class _Pool:
    """The training items and the held-out samples of a finite data set, together."""

    def __init__(self, source: DataSource, protocol: Protocol) -> None:
        assert source.size is not None
        train = source.reference(source.size, protocol.seed, "train")
        test = source.reference(protocol.samples, protocol.seed, "test")
        self._items, self._name = torch.cat((train, test)), source.name
        self.size = len(self._items)

    def reference(self, n: int, seed: int) -> Tensor:
        if n > self.size:
            raise UserError(
                f"{self._name} has {self.size} items in all, the noise floor of {n // 2} samples "
                f"needs {n}"
            )
        return self._items[Noise(seed).permutation("noise floor", self.size)[:n]]

"""Evaluating a run: every metric of the catalogue that applies is measured, and written down."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from scorefield.config.build import build_engine, build_sampler
from scorefield.config.document import differences, shown
from scorefield.data.arrays import LabelledSource
from scorefield.data.source import DataSource
from scorefield.engine import Engine, device_of
from scorefield.errors import RunError, UserError
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue import (
    OF_LEVELS,
    OF_PATHS,
    OF_SAMPLES,
    VALIDATION,
    estimator_settings,
)
from scorefield.evaluation.description import about, compute, training_time
from scorefield.evaluation.protocol import Benchmark, Protocol, protocol_of
from scorefield.evaluation.records import Distance, Evaluation, Floor, Level, Milestone
from scorefield.evaluation.sampling import following
from scorefield.fields.base import ScoreField
from scorefield.metrics.sets import noise_floor
from scorefield.networks.features import Features
from scorefield.noise import Noise
from scorefield.progress import Stages
from scorefield.runs.classes import check_unconditional
from scorefield.runs.run import Run
from scorefield.samplers.trajectory import Trajectory
from scorefield.training.classifier import classifier_features
from scorefield.training.identity import check_same
from scorefield.world import ALONE, World

Floors = Mapping[tuple[str, str], Floor]
"""The noise floor of each distance that has one, by its name and that of its features."""


def measure_levels(
    field: ScoreField,
    benchmark: Benchmark,
    stages: Stages | None = None,
    world: World = ALONE,
) -> tuple[Level, ...]:
    """The metrics by noise level that apply to a field, all on the same noisy points; each process
    measures at some of the levels.
    """
    sigmas, stages = benchmark.protocol.sigmas, stages or Stages(quiet=True)
    shares = [share for k in range(world.size) if (share := sigmas[k :: world.size])]
    parts = world.each([partial(_at_levels, field, benchmark, share, stages) for share in shares])
    found = sorted(
        (place for part in parts for place in part),
        key=lambda place: (*place[:2], sigmas.index(place[2].sigma)),
    )
    return tuple(level for *_, level in found)


def _at_levels(
    field: ScoreField, benchmark: Benchmark, sigmas: tuple[float, ...], stages: Stages
) -> list[tuple[int, int, Level]]:
    """The metrics at some of the levels, after the numbers of the estimator and of its profile."""
    levels = []
    here = replace(benchmark, protocol=replace(benchmark.protocol, sigmas=sigmas))
    estimators = dict.fromkeys(m.estimator for m in OF_LEVELS)
    applied = [e for e in estimators if e.applies.holds(field, here)]
    for k, estimator in enumerate(applied):
        for number, profile in enumerate(estimator.measure(field, here)):
            for sigma, e in profile:
                settings = {**profile.settings, **e.settings}
                level = Level(
                    profile.name,
                    sigma,
                    replace(e, unit=profile.unit, settings=settings),
                    profile.settings.get("radius"),
                    profile.settings.get("lengths", (None,))[0],
                )
                levels.append((k, number, level))
        stages.advance("diagnostics", k + 1, len(applied))
    return levels


def measure_samples(
    field: ScoreField,
    benchmark: Benchmark,
    floors: Floors,
    stages: Stages | None = None,
    engine: Engine | None = None,
) -> tuple[Distance, ...]:
    """The distances of generated from real samples at each budget, and the paths' properties; they
    are drawn on an engine, which has the field, if one is given.
    """
    protocol, found, stages = benchmark.protocol, [], stages or Stages(quiet=True)
    world = ALONE if engine is None else engine.world
    compared = [(m.name, on, f) for m in OF_SAMPLES for on, f in m.compare(benchmark)]
    for budget in protocol.nfes:
        stage = f"samples at {budget} network calls"
        stages.note(stage)
        sampler = protocol.method(budget)
        with nullcontext() if engine is None else engine.running():
            watched = following(stages, stage)
            paths = Trajectory(field, sampler, protocol.samples, protocol.seed, watched, world)
        # Where the field is, distances are found faster.
        pair = [x.to(device_of(field)) for x in (paths.samples, benchmark.real)]
        distances = world.each([partial(f, *pair) for *_, f in compared])
        measured = [(name, on, d) for (name, on, _), d in zip(compared, distances, strict=True)]
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
    field: ScoreField, benchmark: Benchmark, floors: Floors, engine: Engine | None = None
) -> tuple[Distance, ...]:
    """The distances at the protocol's budget for checkpoints, and the validation loss."""
    along = benchmark.protocol.along
    if along is None:
        raise UserError("this protocol leaves the checkpoints along the training out")
    at_one = replace(benchmark, protocol=replace(benchmark.protocol, nfes=(along,)))
    world = ALONE if engine is None else engine.world
    (validation,) = world.each([partial(validate, field, benchmark)])
    loss = Distance("", 0, 0, VALIDATION.name, "", validation)
    return (*measure_samples(field, at_one, floors, engine=engine), loss)


def validate(field: ScoreField, benchmark: Benchmark) -> Estimate:
    """The validation loss of a field; see the catalogue's entry."""
    return VALIDATION.measure(field, benchmark)


def measure_floors(
    benchmark: Benchmark,
    stages: Stages | None = None,
    world: World = ALONE,
    device: torch.device | str = "cpu",
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

    floors = world.each([partial(floor, k) for k in range(len(wanted))])
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


def evaluate(
    run: Run,
    nfes: Sequence[int] | None = None,
    *,
    protocol: Protocol | None = None,
    floors: Floors | None = None,
    overwrite: bool = False,
    stages: Stages | None = None,
    engine: Engine | None = None,
) -> Evaluation:
    """Evaluates the newest checkpoint of a run, with the averaged weights, and writes the result.

    What the run's evaluation of this checkpoint holds already is not measured again: it is extended
    by the budgets that it lacks. An evaluation of an earlier checkpoint gives way.

    Samples are drawn by the sampler of the protocol, whatever sampler the configuration names.
    Where the protocol names a budget for them and there are several, every checkpoint is measured
    at it. A field that knows classes is evaluated for points of any.

    Arguments:
        nfes: The budgets of network calls; those of the protocol by default.
        protocol: By default that of the section ``eval`` of the configuration.
        floors: The noise floors under this protocol, where they are known already.
        overwrite: Whether to replace the evaluation that is there, whatever it is.
        stages: Shows what is measured, and the time that is left of it.
        engine: What it runs on; that of the configuration by default. Samples are drawn in its
            precision, all else is computed exactly.

    Raises:
        UserError: If the engine's device is not on this machine.
        RunError: If there is no checkpoint, a budget is not positive, one class only is known, or
            the evaluation that is there cannot be read or is by another protocol.
        ValueError: If the data has too few samples, or a measurement is not finite.
        FloatingPointError: If samples diverge.
    """
    stages = stages or Stages(quiet=True)
    protocol = protocol_of(run.config) if protocol is None else protocol
    if nfes is not None:
        protocol = replace(protocol, nfes=tuple(nfes))
    if not protocol.nfes or min(protocol.nfes) < 1:
        raise RunError(
            f"nfe is {','.join(map(str, protocol.nfes))}: it must be one or more budgets of at "
            "least 1, since sampling takes a network call"
        )
    protocol = replace(protocol, nfes=tuple(sorted(set(protocol.nfes))))
    engine = build_engine(run.config) if engine is None else engine
    engine.check()
    found = run.checkpoint()
    # Derivatives in x are several times cheaper where none in the weights are recorded.
    field = engine.place(run.field("ema", found.step).requires_grad_(False))
    check_unconditional(run.config, field)
    world = engine.world
    check_same(world, checkpoint=found.step, protocol=protocol)
    with world.first_goes_first():
        benchmark = benchmark_of(run, protocol)
    terms = {
        **protocol.record(),
        "data": run.config.data.model_dump(mode="json"),
        "weights": "ema",
        "features": [f.name for f in benchmark.features],
        "estimators": estimator_settings(),
    }
    if engine.precision != "float32":
        terms["precision"] = engine.precision
    kept = None if overwrite else _kept(run, found.step, terms)
    left = [nfe for nfe in protocol.nfes if kept is None or nfe not in kept.budgets]
    if kept is not None and not left:
        stages.note("evaluated already at these numbers of network calls")
        return kept
    own, used = build_sampler(run.config.sampler), protocol.method(protocol.nfes[0])
    words = f"samples are drawn by {protocol.sampler}, the sampler of the protocol"
    # The number of steps is that of the budget.
    if type(own) is not type(used) or {**vars(own), "steps": 0} != {**vars(used), "steps": 0}:
        words += f"; the configuration's own ({run.config.sampler.kind}) is not used"
    stages.note(words)
    if kept is not None:
        return _written(run, _extended(kept, field, benchmark, left, stages, engine), world)
    if floors is None:
        stages.note("noise floor")
        floors = measure_floors(benchmark, stages, world, engine.torch_device)
    distances = measure_samples(field, benchmark, floors, stages, engine)
    steps = [step for step in run.steps() if step <= found.step]
    milestones = []
    for k, step in enumerate(steps if protocol.along is not None and len(steps) > 1 else ()):
        stages.note(f"checkpoint of step {step}")
        then = engine.place(run.field("ema", step).requires_grad_(False))
        measured = measure_checkpoint(then, benchmark, floors, engine)
        milestones.append(Milestone(step, training_time(run, step), measured))
        stages.advance("checkpoints", k + 1, len(steps))
    stages.note("diagnostics")
    levels = measure_levels(field, benchmark, stages, world)
    stages.note("validation loss")
    (validation,) = world.each([partial(validate, field, benchmark)])
    evaluation = Evaluation(
        dataset=run.dataset,
        model=run.model_id,
        seed=run.config.seed,
        step=found.step,
        distances=distances,
        levels=levels,
        validation=validation,
        compute=compute(run, field, found.step),
        protocol=terms,
        about={**about(run), "engine": engine.record()},
        folder=run.folder,
        milestones=tuple(milestones),
    )
    return _written(run, evaluation, world, overwrite)


def _kept(run: Run, step: int, terms: Mapping[str, object]) -> Evaluation | None:
    """The evaluation of a checkpoint that is there, which must be by the same protocol."""
    there = Evaluation.find(run.folder)
    if there is None or there.step != step:
        return None
    here = json.loads(json.dumps({**terms, "nfes": there.protocol["nfes"]}))
    for key, old, new in differences(there.protocol, here):
        raise RunError(
            f"{run.folder} was evaluated by another protocol: {key} is {shown(old)} there and "
            f"{shown(new)} here; --overwrite replaces that evaluation"
        )
    return there


def _extended(
    kept: Evaluation,
    field: ScoreField,
    benchmark: Benchmark,
    nfes: Sequence[int],
    stages: Stages,
    engine: Engine,
) -> Evaluation:
    """An evaluation with more budgets."""
    more = replace(benchmark, protocol=replace(benchmark.protocol, nfes=tuple(nfes)))
    floors = {(d.metric, d.features): d.floor for d in kept.distances if d.floor is not None}
    return _joined(kept, measure_samples(field, more, floors, stages, engine))


def _joined(evaluation: Evaluation, distances: Iterable[Distance]) -> Evaluation:
    """An evaluation with the distances at budgets that it lacks."""
    budgets = evaluation.budgets
    others = [d for d in distances if d.budget not in budgets]
    found = tuple(sorted((*evaluation.distances, *others), key=lambda d: d.budget))
    joined = replace(evaluation, distances=found)
    return replace(joined, protocol={**evaluation.protocol, "nfes": joined.budgets})


def _written(run: Run, evaluation: Evaluation, world: World, overwrite: bool = False) -> Evaluation:
    """Writes an evaluation, with what another process has added to the run's own meanwhile."""
    if not world.first:
        return evaluation
    there = None if overwrite else _kept(run, evaluation.step, evaluation.protocol)
    if there is not None:
        evaluation = _joined(evaluation, there.distances)
    evaluation.write(run.folder)
    return evaluation


def benchmark_of(run: Run, protocol: Protocol) -> Benchmark:
    """A run's data under a protocol. For data with classes, the features of the classifier that
    all runs of the data set share are among those compared; it is trained if it is not there.
    """
    source = run.source()
    learned: tuple[Features, ...] = ()
    if isinstance(source, LabelledSource):
        learned = (classifier_features(source, run.folder.parent.parent),)
    return Benchmark(source, protocol, learned)

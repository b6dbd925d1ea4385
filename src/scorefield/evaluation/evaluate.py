"""Evaluating a run: every metric of the catalogue that applies is measured, and written down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from scorefield.config.build import build_engine, build_sampler
from scorefield.config.document import shown
from scorefield.data.arrays import FiniteSource
from scorefield.engine import Engine
from scorefield.errors import RunError
from scorefield.evaluation.catalogue import estimator_settings
from scorefield.evaluation.description import about, compute, training_time
from scorefield.evaluation.measure import (
    Floors,
    measure_checkpoint,
    measure_floors,
    measure_levels,
    measure_samples,
    validate,
)
from scorefield.evaluation.parts import Parts
from scorefield.evaluation.protocol import Benchmark, Protocol, differences_of, protocol_of
from scorefield.evaluation.records import Distance, Evaluation, Level, Milestone
from scorefield.fields.base import ScoreField
from scorefield.networks.features import Features
from scorefield.progress import Stages
from scorefield.runs.classes import always_labelled
from scorefield.runs.run import Run
from scorefield.samplers.trajectory import Once
from scorefield.training.classifier import classifier_features, has_classifier
from scorefield.training.identity import check_same
from scorefield.world import World


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
    by the budgets that it lacks, and by the diagnostics that are younger than it. What a killed one
    by this protocol has computed is not computed again. An evaluation of an earlier checkpoint
    gives way.

    Samples are drawn by the sampler of the protocol, whatever sampler the configuration names.
    Where the protocol names a budget for them and there are several, every checkpoint is measured
    at it. A field that knows classes is evaluated for points of any; one that was never trained on
    such points, with the class of each, and samples have classes as frequent as the data.

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
        RunError: If there is no checkpoint, a budget is not positive, or the evaluation that is
            there cannot be read or is by another protocol.
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
    world = engine.world
    check_same(world, checkpoint=found.step, protocol=protocol)
    with world.first_goes_first():
        benchmark = benchmark_of(run, protocol, stages)
    benchmark = replace(benchmark, labelled=always_labelled(run.config, field))
    if benchmark.truth is None:
        real = benchmark.real.numpy().tobytes()
        check_same(world, samples=hashlib.blake2b(real).hexdigest())
    terms = {
        **protocol.record(),
        "data": run.config.data.model_dump(mode="json"),
        "weights": "ema",
        "features": [f.name for f in benchmark.features],
        "estimators": estimator_settings(),
    }
    if benchmark.labelled:
        terms["classes"] = "of each point"
    if engine.precision != "float32":
        terms["precision"] = engine.precision
    # A shared folder may show others what was written just now, or nothing of it.
    (kept,) = world.each([lambda: None if overwrite else _kept(run, found.step, terms)])
    left = [nfe for nfe in protocol.nfes if kept is None or nfe not in kept.budgets]
    new = set() if kept is None else _younger(kept)
    parts = Parts(run.folder, "eval", terms, engine)
    if kept is not None and not left and not new:
        if world.first:
            parts.remove()  # if the last command was killed as it did so
        stages.note("evaluated already at these numbers of network calls")
        return kept
    own, used = build_sampler(run.config.sampler), protocol.method(protocol.nfes[0])
    words = f"samples are drawn by {protocol.sampler}, the sampler of the protocol"
    # The number of steps is that of the budget.
    if type(own) is not type(used) or {**vars(own), "steps": 0} != {**vars(used), "steps": 0}:
        words += f"; the configuration's own ({run.config.sampler.kind}) is not used"
    stages.note(words)
    once = parts.of(field)
    if kept is not None:
        extended = _extended(kept, field, benchmark, left, stages, engine, once)
        if new:
            stages.note("diagnostics that are younger than the evaluation")
            levels = measure_levels(field, benchmark, stages, world, once, new)
            extended = _joined(extended, (), levels)
        return _written(run, extended, parts, world)
    if floors is None:
        stages.note("noise floor")
        floors = measure_floors(benchmark, stages, world, engine.torch_device, once)
    distances = measure_samples(field, benchmark, floors, stages, engine, once)
    (there,) = world.each([run.steps])
    steps = [step for step in there if step <= found.step]
    milestones = []
    for k, step in enumerate(steps if protocol.along is not None and len(steps) > 1 else ()):
        stages.note(f"checkpoint of step {step}")
        then = engine.place(run.field("ema", step).requires_grad_(False))
        measured = measure_checkpoint(then, benchmark, floors, engine, parts.of(then))
        milestones.append(Milestone(step, training_time(run, step), measured))
        stages.advance("checkpoints", k + 1, len(steps))
    stages.note("diagnostics")
    levels = measure_levels(field, benchmark, stages, world, once)
    stages.note("validation loss")
    (validation,) = world.each([partial(once, "validation", partial(validate, field, benchmark))])
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
    return _written(run, evaluation, parts, world, overwrite)


def _kept(run: Run, step: int, terms: Mapping[str, object]) -> Evaluation | None:
    """The evaluation of a checkpoint that is there, which must be by the same protocol."""
    there = Evaluation.find(run.folder)
    if there is None or there.step != step:
        return None
    here = json.loads(json.dumps({**terms, "nfes": there.protocol["nfes"]}))
    # Numbers of images are added to an evaluation, and have settings of their own.
    plain = ({k: v for k, v in known.items() if k != "images"} for known in (there.protocol, here))
    for key, old, new in differences_of(*plain):
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
    once: Once,
) -> Evaluation:
    """An evaluation with more budgets."""
    more = replace(benchmark, protocol=replace(benchmark.protocol, nfes=tuple(nfes)))
    floors = {(d.metric, d.features): d.floor for d in kept.distances if d.floor is not None}
    return _joined(kept, measure_samples(field, more, floors, stages, engine, once))


def _younger(evaluation: Evaluation) -> set[str]:
    """The keys of the estimators that the catalogue did not have at the time of an evaluation."""
    return estimator_settings().keys() - evaluation.protocol.get("estimators", {}).keys()


def _joined(
    evaluation: Evaluation, distances: Iterable[Distance], levels: Iterable[Level] = ()
) -> Evaluation:
    """An evaluation with the distances at budgets that it lacks, and the metrics by noise level."""
    budgets = evaluation.budgets
    own = evaluation.protocol["sampler"]
    known = {d.sampler for d in evaluation.distances} - {own}
    others = [
        d
        for d in distances
        if (d.budget not in budgets if d.sampler == own else d.sampler not in known)
    ]
    found = tuple(sorted((*evaluation.distances, *others), key=lambda d: d.budget))
    metrics = {level.metric for level in evaluation.levels}
    measured = (level for level in levels if level.metric not in metrics)
    joined = replace(evaluation, distances=found, levels=(*evaluation.levels, *measured))
    protocol = {**evaluation.protocol, "nfes": joined.budgets}
    if "estimators" in protocol:
        protocol["estimators"] = {**estimator_settings(), **protocol["estimators"]}
    return replace(joined, protocol=protocol)


def _written(
    run: Run, evaluation: Evaluation, parts: Parts, world: World, overwrite: bool = False
) -> Evaluation:
    """Writes an evaluation, with what another process has added to the run's own meanwhile."""
    if world.first:
        there = None if overwrite else _kept(run, evaluation.step, evaluation.protocol)
        if there is not None:
            evaluation = _joined(evaluation, there.distances, there.levels)
        evaluation.write(run.folder)
        parts.remove()
    # Nobody counts on it before it is there.
    world.any(False)
    return evaluation


def benchmark_of(run: Run, protocol: Protocol, stages: Stages | None = None) -> Benchmark:
    """A run's data under a protocol. For small images with classes, the features of the classifier
    that all runs of the data set share are among those compared; it is trained if it is not there.
    """
    source = run.source()
    learned: tuple[Features, ...] = ()
    if has_classifier(source):
        assert isinstance(source, FiniteSource)
        learned = (classifier_features(source, run.folder.parent.parent, stages),)
    return Benchmark(source, protocol, learned)

"""Evaluating a run: its field is measured on its data, and the records written to its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scorefield.config.build import build_sampler
from scorefield.data import LabelledSource
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
from scorefield.evaluation.protocol import Benchmark, OnProgress, Protocol, protocol_of
from scorefield.evaluation.records import Evaluation, Milestone
from scorefield.networks import Features
from scorefield.runs.run import Run, check_unconditional
from scorefield.training import classifier_features


def evaluate(
    run: Run,
    nfes: Sequence[int] | None = None,
    *,
    protocol: Protocol | None = None,
    floors: Floors | None = None,
    on_progress: OnProgress = lambda words: None,
) -> Evaluation:
    """Evaluates the newest checkpoint of a run, with the averaged weights.

    Samples are drawn by the sampler of the protocol, Heun's method, whatever sampler the
    configuration names, so that all models are compared with one. Where the protocol names a
    budget for them and there are several, every checkpoint up to the newest is measured at that
    budget. A field that knows classes is evaluated for points of any. The result is written into
    the run's folder, as :mod:`~scorefield.evaluation.records` says.

    Arguments:
        run: The run.
        nfes: The budgets of network calls; those of the protocol by default.
        protocol: The protocol; by default that of the section ``eval`` of the run's
            configuration, which the members of a family share.
        floors: The noise floors under this protocol, where they are known already.
        on_progress: Receives the progress.

    Raises:
        RunError: If the run has no checkpoint, a budget is not positive, or the field knows points
            of one class only.
        CheckpointError: If no checkpoint can be read.
        ValueError: If the data has too few samples, or a measurement is not finite.
        FloatingPointError: If samples diverge.
        OSError: If the result cannot be written.
    """
    protocol = protocol_of(run.config) if protocol is None else protocol
    if nfes is not None:
        protocol = replace(protocol, nfes=tuple(nfes))
    if not protocol.nfes or min(protocol.nfes) < 1:
        raise RunError(
            f"nfe is {','.join(map(str, protocol.nfes))}: it must be one or more budgets of at "
            "least 1, since sampling takes a network call"
        )
    found = run.checkpoint()
    # Derivatives in x are several times cheaper where none in the weights are recorded.
    field = run.field("ema", found.step).requires_grad_(False)
    check_unconditional(run.config, field)
    benchmark = Benchmark(run.source(), protocol, learned_features(run))
    _name_the_sampler(run, protocol, on_progress)
    if floors is None:
        on_progress("noise floor")
        floors = measure_floors(benchmark)
    distances = measure_samples(field, benchmark, floors, on_progress)
    milestones = _milestones(run, found.step, benchmark, floors, on_progress)
    on_progress("diagnostics")
    levels = measure_levels(field, benchmark)
    on_progress("validation loss")
    evaluation = Evaluation(
        dataset=run.dataset,
        model=run.model_id,
        seed=run.config.seed,
        step=found.step,
        distances=distances,
        levels=levels,
        validation=validate(field, benchmark),
        compute=compute(run, field, found.step),
        protocol={
            **protocol.record(),
            "data": run.config.data.model_dump(mode="json"),
            "weights": "ema",
            "features": [f.name for f in benchmark.features],
            "estimators": estimator_settings(),
        },
        about=about(run),
        folder=run.folder,
        milestones=milestones,
    )
    evaluation.write(run.folder)
    return evaluation


def learned_features(run: Run) -> tuple[Features, ...]:
    """The features of a classifier that all runs of a data set with classes share; none for other
    data.

    The classifier is kept beside the models of the data set, and trained if it is not there.

    Raises:
        CheckpointError: If there is one that cannot be used.
    """
    source = run.source()
    if not isinstance(source, LabelledSource):
        return ()
    return (classifier_features(source, run.folder.parent.parent),)


def floors_of(run: Run, protocol: Protocol) -> Floors:
    """The noise floors of a run's data set."""
    return measure_floors(Benchmark(run.source(), protocol, learned_features(run)))


def _name_the_sampler(run: Run, protocol: Protocol, on_progress: OnProgress) -> None:
    own, used = build_sampler(run.config.sampler), protocol.method(protocol.nfes[0])
    words = f"samples are drawn by {protocol.sampler}, the sampler of the protocol"
    # The number of steps is that of the budget.
    if type(own) is not type(used) or {**vars(own), "steps": 0} != {**vars(used), "steps": 0}:
        words += f"; the configuration's own ({run.config.sampler.kind}) is not used"
    on_progress(words)


def _milestones(
    run: Run, last: int, benchmark: Benchmark, floors: Floors, on_progress: OnProgress
) -> tuple[Milestone, ...]:
    """The checkpoints up to a step; none where the protocol has no budget for them, or for one
    alone.
    """
    steps = [step for step in run.steps() if step <= last]
    if benchmark.protocol.along is None or len(steps) == 1:
        return ()
    milestones = []
    for step in steps:
        on_progress(f"checkpoint of step {step}")
        field = run.field("ema", step).requires_grad_(False)
        found = measure_checkpoint(field, benchmark, floors)
        milestones.append(Milestone(step, training_time(run, step), found))
    return tuple(milestones)

"""Other sampling methods at the same numbers of network calls, added to an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields, replace
from typing import get_args

from scorefield.config.build import build_engine
from scorefield.config.sampler import SamplerSection
from scorefield.engine import Engine
from scorefield.evaluation.evaluate import benchmark_of
from scorefield.evaluation.measure import measure_samples
from scorefield.evaluation.newest import evaluation_of_newest
from scorefield.evaluation.parts import Parts
from scorefield.evaluation.protocol import Protocol
from scorefield.evaluation.records import Evaluation
from scorefield.progress import Stages
from scorefield.runs.classes import always_labelled
from scorefield.runs.run import Run
from scorefield.samplers.base import Sampler
from scorefield.training.identity import check_same

_KINDS = {
    section.builds.rpartition(":")[2]: get_args(section.model_fields["kind"].annotation)[0]
    for section in get_args(get_args(SamplerSection)[0])
}


def evaluate_sampler(
    run: Run,
    sampler: Sampler,
    nfes: Sequence[int] | None = None,
    *,
    stages: Stages | None = None,
    engine: Engine | None = None,
) -> Evaluation:
    """Measures the samples of a run by another method, and adds the distances to its evaluation,
    which must be there; what is measured already is not measured again.

    Samples start from the same noise as those of the evaluation, and are compared with the same
    real ones.

    Arguments:
        sampler: The method; its number of steps is that of the budget.
        nfes: The budgets of network calls; by default those of the evaluation.
        stages, engine: As of :func:`~.evaluate.evaluate`.

    Raises:
        RunError: If there is no evaluation of the newest checkpoint.
        ValueError: If the method cannot keep to a budget, or samples are not finite.
    """
    stages = stages or Stages(quiet=True)
    engine = build_engine(run.config) if engine is None else engine
    engine.check()
    world = engine.world
    kept = evaluation_of_newest(run, world)
    name, budgets = name_of(sampler), sorted(set(kept.budgets if nfes is None else nfes))
    methods = {budget: sampler.at_budget(budget) for budget in budgets}
    check_same(world, checkpoint=kept.step, method=name, budgets=budgets)
    done = {d.budget for d in kept.distances if d.sampler == name}
    left = {budget: method for budget, method in methods.items() if budget not in done}
    if not left:
        stages.note(f"evaluated by {name} already at these numbers of network calls")
        return kept
    stages.note(f"samples are drawn by {name}")
    field = engine.place(run.field("ema", kept.step).requires_grad_(False))
    protocol = Protocol.read(kept.protocol)
    with world.first_goes_first():
        benchmark = benchmark_of(run, protocol, stages)
    benchmark = replace(benchmark, labelled=always_labelled(run.config, field))
    parts = Parts(run.folder, "methods", {**protocol.record(), "method": name}, engine)
    floors = {(d.metric, d.features): d.floor for d in kept.distances if d.floor is not None}
    distances = measure_samples(
        field, benchmark, floors, stages, engine, parts.of(field), left, name
    )
    if world.first:
        # Another process may have added to it meanwhile.
        there = Evaluation.read(run.folder)
        kept = replace(there, distances=(*there.distances, *distances))
        kept.write(run.folder)
        parts.remove()
    # Nobody counts on it before it is there.
    world.any(False)
    return kept


def name_of(sampler: Sampler) -> str:
    """A method by its kind and what is not usual in it, as in ``heun churn=40``."""
    changed = [
        f"{f.name}={getattr(sampler, f.name)!r}"
        for f in fields(sampler)
        if f.name != "steps" and f.default is not MISSING and getattr(sampler, f.name) != f.default
    ]
    kind = type(sampler).__name__
    return " ".join((_KINDS.get(kind, kind), *changed))

"""A check of a model: what it claims to be, whether that fits, and how good a score it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from scorefield import __version__
from scorefield.checks import check_positive
from scorefield.data.given import Data, source_of
from scorefield.data.source import DataSource
from scorefield.engine import Engine, device_of, exact
from scorefield.errors import UserError
from scorefield.evaluation.levels import Levels
from scorefield.fields.base import ScoreField, evaluation_mode
from scorefield.fields.claims import claims
from scorefield.fields.inputs import check_event
from scorefield.fields.watch import check_derivatives, networks_of, outputs_of
from scorefield.health.limit import until
from scorefield.health.measure import measurements
from scorefield.health.plan import Plan
from scorefield.health.points import held_out, split_of
from scorefield.health.result import Check, delete, read, write, write_page
from scorefield.health.subject import Subject
from scorefield.health.typical import like
from scorefield.health.verdicts import verdicts
from scorefield.progress import Stages
from scorefield.training.identity import of_weights

LEAST = 4
"""The fewest points of data that are checked with."""


def check(
    field: ScoreField,
    data: Data,
    budget: float = 600.0,
    *,
    seed: int = 0,
    out: str | Path | None = None,
    overwrite: bool = False,
    levels: Levels | None = None,
    alternatives: Mapping[str, ScoreField] | None = None,
    engine: Engine | None = None,
    stages: Stages | None = None,
) -> Check:
    """Check a model against data: what it claims, whether that fits, and how good a score it is.

    It first measures what shows most per second, and stops when the time is up. With a folder, what
    was measured is kept, and a second call resumes there.

    Arguments:
        field: The model.
        data: Points that it is for, of the same scale; best with points that it was not trained on
            in addition to those that it was, as in a :class:`~.DataSource`.
        budget: The time, in seconds.
        seed: The seed of points, noise and probes.
        out: A folder for the page, the numbers and the samples.
        overwrite: Whether to begin anew where the folder holds a check, which is deleted.
        levels: How integers became the points, where they did, and whether they have noise.
        alternatives: Other fields that might have been meant, such as one with averaged weights, by
            a clause on what would be otherwise.
        engine: What it runs on; the best available device by default.
        stages: Shows what is measured.

    Raises:
        UserError: If the data have another shape than the points of the model, or too few, or if
            weights of the model are not finite.
        RunError: If the folder holds the check of another model, other data or another seed.
    """
    check_positive("budget", budget)
    source = source_of(data)
    _check_data(field, source)
    _check_weights(field)
    engine = Engine() if engine is None else engine
    _check_network(engine.place(field), source, seed)
    stages = stages or Stages(quiet=True)
    others = {words: engine.place(other) for words, other in (alternatives or {}).items()}
    subject = Subject(engine.place(field), source, seed, levels, others, engine)
    identity = _identity(field, source, seed)
    folder = None if out is None else Path(out)
    if folder is not None and overwrite:
        delete(folder)
    before = {} if folder is None else read(folder, identity)
    plan = Plan(list(measurements(subject)), before)
    about = {
        "data": source.name,
        "held_out": split_of(source) == "test",
        "classes": None if field.classes is None else subject.labelled,
        "seed": seed,
        "identity": identity,
        "version": __version__,
        "torch": torch.__version__,
        "device": str(engine.torch_device),
    }

    def found() -> Check:
        titles = {one.name: one.title for one in plan.measurements}
        failed = {titles[name]: why for name, why in plan.failed.items()}
        more = {**about, "titles": titles, "left_out": plan.left_out, "failed": plan.failed}
        typical = like(field.domain.shape, source.std)
        return Check(claims(field), verdicts(plan.done, failed), plan.done, more, typical)

    def keep() -> None:
        if folder is not None:
            write(folder, found())

    def limit(end: float) -> AbstractContextManager[None]:
        # Compiled networks take no hooks: they are stopped between parts only.
        return nullcontext() if engine.compile else until(end, field, *others.values())

    try:
        plan.run(budget, stages, keep, limit)
    finally:
        # An interrupt leaves the page of what was measured.
        if folder is not None:
            keep()
            write_page(folder, found(), subject.points(subject.shown))
    return found()


def _check_data(field: ScoreField, source: DataSource) -> None:
    if "domain" not in vars(field):
        field.learn_shape(source.shape)
    check_event(field.domain.shape, source.shape)
    known, given = field.classes, source.classes
    if known is not None and given is None and not field.unlabelled:
        raise UserError(
            f"the model needs the class of each point, of {known}, and {source.name} has none: "
            "give points with their classes"
        )
    if known is not None and given is not None and given > known:
        raise UserError(f"{source.name} has {given} classes, the model knows {known}")
    split = split_of(source)
    count = held_out(source) if split == "test" else source.size
    if count is not None and count < LEAST:
        which = "held-out points" if split == "test" else "points"
        raise UserError(f"a check needs at least {LEAST} {which}, {source.name} has {count}")


def _check_weights(field: ScoreField) -> None:
    for name, weights in field.named_parameters():
        if not bool(weights.isfinite().all()):
            raise UserError(f"the weights {name} of the model are not all finite numbers")


def _check_network(field: ScoreField, source: DataSource, seed: int) -> None:
    """Raises ``UserError`` if a network of the field gives what has no derivatives."""
    device, split = device_of(field), split_of(source)
    x = source.reference(2, seed, split).to(device).requires_grad_()
    classes = None
    if field.classes is not None and source.classes is not None:
        classes = source.reference_classes(2, seed, split).to(device)
    middle = 0.5 * (field.sde.t_min + field.sde.t_max)
    networks = networks_of(field)
    with exact(), evaluation_mode(field), torch.enable_grad(), outputs_of(networks) as outputs:
        field.score(x, middle, classes)
    check_derivatives("the network", outputs)


def _identity(field: ScoreField, source: DataSource, seed: int) -> str:
    """A hash of the weights, the claims, the first points of the data and the seed."""
    digest = hashlib.sha256(json.dumps(claims(field)).encode())
    digest.update(of_weights(field).encode())
    first = source.reference(LEAST, seed, split_of(source), torch.float64)
    digest.update(first.contiguous().numpy().tobytes())
    digest.update(str(seed).encode())
    return digest.hexdigest()

"""Evaluating a run: its field is judged, and the verdict written into its folder."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from scorefield.config import presets
from scorefield.config.merge import differences
from scorefield.config.resolve import load
from scorefield.data import DataSource, LabelledSource
from scorefield.errors import ConfigError, RunError
from scorefield.estimate import Estimate
from scorefield.evaluation.judge import (
    Floors,
    Say,
    Terms,
    checkpoint_quality,
    measure_floors,
    plain_features,
    quality,
    terms_of,
    validate,
)
from scorefield.evaluation.profiles import diagnose, estimators
from scorefield.evaluation.records import Evaluation, Milestone
from scorefield.networks import Features
from scorefield.runs.run import Run, check_unconditional
from scorefield.training import classifier_features
from scorefield.training.record import Row, read_rows

_LABELS = ("name", "description", "seed")


def evaluate(
    run: Run,
    nfes: Sequence[int] | None = None,
    *,
    terms: Terms | None = None,
    floors: Floors | None = None,
    say: Say | None = None,
) -> Evaluation:
    """Judges the newest checkpoint of a run, with the averaged weights.

    Where the terms name a budget for them and there are several, every checkpoint up to the newest
    is measured at that budget. A field that knows classes is asked for points of any. The result
    is written into the run's folder, as :mod:`~scorefield.evaluation.records` says.

    Arguments:
        run: The run.
        nfes: The budgets of network calls; those of the terms by default.
        terms: The terms; by default those of the section ``eval`` of the run's configuration,
            which the members of a family share.
        floors: The noise floors on these terms, where they are known already.
        say: Is told of the progress.

    Raises:
        RunError: If the run has no checkpoint, a budget is not positive, or the field knows points
            of one class only.
        CheckpointError: If no checkpoint can be read.
        ValueError: If the data has too few samples, or a measurement is not finite.
        FloatingPointError: If samples diverge.
        OSError: If the result cannot be written.
    """
    say = say or (lambda words: None)
    terms = terms_of(run.config) if terms is None else terms
    if nfes is not None:
        terms = replace(terms, nfes=tuple(nfes))
    if not terms.nfes or min(terms.nfes) < 1:
        raise RunError(
            f"nfe is {','.join(map(str, terms.nfes))}: it must be one or more budgets of at least "
            "1, since sampling takes a network call"
        )
    found = run.checkpoint()
    # Derivatives in x are several times cheaper where none in the weights are recorded.
    field, source = run.field("ema", found.step).requires_grad_(False), run.source()
    check_unconditional(run.config, field)
    features = features_of(run)
    if floors is None:
        say("noise floor")
        floors = measure_floors(source, terms, features)
    distances = quality(field, source, terms, floors, features, say)
    milestones = _milestones(run, found.step, source, terms, floors, features, say)
    say("diagnostics")
    levels = diagnose(field, source, terms)
    say("validation loss")
    evaluation = Evaluation(
        dataset=run.dataset,
        model=run.model_id,
        seed=run.config.seed,
        step=found.step,
        distances=distances,
        levels=levels,
        validation=validate(field, source, terms),
        compute=compute(run, field, found.step),
        protocol=protocol(run, terms, features),
        about=about(run),
        folder=run.folder,
        milestones=milestones,
    )
    evaluation.write(run.folder)
    return evaluation


def features_of(run: Run) -> tuple[Features, ...]:
    """What the Fréchet distances of a run's data set are taken on: the plain features, and where
    the data has classes, those of a classifier that all runs of the data set share.

    The classifier is kept beside the models of the data set, and trained if it is not there.

    Raises:
        CheckpointError: If there is one that cannot be used.
    """
    source = run.source()
    plain = plain_features(source)
    if not isinstance(source, LabelledSource):
        return (plain,)
    return plain, classifier_features(source, run.folder.parent.parent)


def protocol(run: Run, terms: Terms, features: Sequence[Features]) -> dict[str, Any]:
    """All that two evaluations must share for their numbers to be compared, as plain values."""
    return {
        **terms.record(),
        "data": run.config.data.model_dump(mode="json"),
        "weights": "ema",
        "features": [f.name for f in features],
        "estimators": estimators(),
    }


def floors_of(run: Run, terms: Terms) -> Floors:
    """The noise floors of a run's data set."""
    return measure_floors(run.source(), terms, features_of(run))


def _milestones(
    run: Run,
    last: int,
    source: DataSource,
    terms: Terms,
    floors: Floors,
    features: Sequence[Features],
    say: Say,
) -> tuple[Milestone, ...]:
    """The checkpoints up to a step; none where the terms leave them out or there is one only."""
    steps = [step for step in run.steps() if step <= last]
    if terms.along is None or len(steps) == 1:
        return ()
    milestones = []
    for step in steps:
        say(f"checkpoint of step {step}")
        field = run.field("ema", step).requires_grad_(False)
        found = checkpoint_quality(field, source, terms, floors, features)
        milestones.append(Milestone(step, training_time(run, step), found))
    return tuple(milestones)


def training_time(run: Run, step: int) -> Estimate | None:
    """The time that a training took up to a step, from the rows of ``metrics.csv``; ``None`` where
    they do not tell.

    Its error is what the scatter of the run's rows makes in their sum. Steps only are counted,
    neither checkpoints nor start.
    """
    rows = _metrics(run.folder / "metrics.csv")
    begin, total, lengths = 0, 0.0, []
    for row in rows:
        steps = min(int(row["step"]), step) - begin
        if steps <= 0:
            break
        total += steps * float(row["seconds_per_step"])
        lengths.append(steps)
        begin = int(row["step"])
    if begin < step or len(rows) < 2:
        return None
    scatter = statistics.stdev(float(row["seconds_per_step"]) for row in rows)
    error = scatter * math.sqrt(sum(steps**2 for steps in lengths))
    return Estimate(total, error, len(rows), "s")


def compute(run: Run, field: nn.Module, steps: int) -> dict[str, Any]:
    """What the training took up to a step, from the rows of ``metrics.csv``.

    ``seconds_per_step`` is the median over ``rows`` rows, the first left out where there are
    others, since it holds the start; its error is that of a median of normal draws, with their
    standard deviation from the median absolute deviation. ``wall_seconds`` counts the steps only,
    neither checkpoints nor start. What is not known is ``None``.
    """
    batch = run.config.train.batch_size
    rows = [r for r in _metrics(run.folder / "metrics.csv") if int(r["step"]) <= steps]
    summary: dict[str, Any] = {
        "parameters": sum(p.numel() for p in field.parameters()),
        "steps": steps,
        "images": steps * batch,
        "batch_size": batch,
        "threads": run.environment().get("threads"),
    }
    if not rows:
        unknown = ("rows", "seconds_per_step", "images_per_second", "wall_seconds")
        return {**summary, **dict.fromkeys(unknown), "seconds_per_step_error": None}
    seconds = [float(r["seconds_per_step"]) for r in rows]
    ends = [int(r["step"]) for r in rows]
    lengths = [end - start for end, start in zip(ends, [0, *ends[:-1]], strict=True)]
    settled = seconds[1:] or seconds
    median = statistics.median(settled)
    scatter = 1.4826 * statistics.median([abs(s - median) for s in settled])
    error = math.sqrt(math.pi / (2 * len(settled))) * scatter if len(settled) > 2 else None
    return {
        **summary,
        "rows": len(settled),
        "seconds_per_step": median,
        "seconds_per_step_error": error,
        "images_per_second": batch / median,
        "wall_seconds": sum(n * s for n, s in zip(lengths, seconds, strict=True)),
    }


def about(run: Run) -> dict[str, Any]:
    """What a run is: its preset, what was changed, and the commands that make it.

    A run whose name is not that of a preset has no command that makes it; ``train`` is then
    ``None``.
    """
    member = _member(run)
    preset = f"{run.dataset}/{member}"
    record = run.environment()
    packages = record.get("packages") or {}
    facts: dict[str, Any] = {
        "label": member.upper() if member[:1] == "m" and member[1:].isdecimal() else run.model_id,
        "description": run.config.description,
        "data": run.config.data.kind,
        "versions": {
            "python": record.get("python"),
            **{name: packages.get(name) for name in ("scorefield", "torch", "numpy")},
        },
        "machine": {key: record.get(key) for key in ("platform", "cores", "threads", "devices")},
        "preset": None,
        "overrides": [],
    }
    try:
        base = load(preset)
    except ConfigError:
        return facts
    overrides = [
        f"{key}={_yaml(value)}"
        for key, _, value in differences(base.document(), run.config.document())
        if key not in _LABELS
    ]
    if run.model_id != member and load(preset, overrides).name != run.config.name:
        overrides.append(f"name={run.config.name}")
    return {**facts, "preset": preset, "overrides": overrides}


def _member(run: Run) -> str:
    """The preset that a run's name begins with: what was changed stands behind it and ``_``."""
    known = [name for name in presets.names() if name.startswith(f"{run.dataset}/")]
    members = [name.rpartition("/")[2] for name in known]
    fitting = [m for m in members if run.model_id == m or run.model_id.startswith(f"{m}_")]
    return max(fitting, key=len, default=run.model_id)


def _metrics(path: Path) -> list[Row]:
    try:
        return [row for row in read_rows(path) if row.get("seconds_per_step")]
    except OSError:
        return []


def _yaml(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_yaml, value))}]"
    return str(value)

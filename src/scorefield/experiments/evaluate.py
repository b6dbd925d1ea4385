"""Evaluating a run: its field is judged, and the verdict written into its folder."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from scorefield.experiments.errors import ConfigError, RunError
from scorefield.experiments.judge import (
    Floors,
    Say,
    Terms,
    diagnose,
    measure_floors,
    quality,
    terms_of,
    validate,
)
from scorefield.experiments.merge import differences
from scorefield.experiments.records import Evaluation
from scorefield.experiments.resolve import load
from scorefield.experiments.run import Run
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

    The result is written into the run's folder, as :mod:`~scorefield.experiments.records` says.

    Arguments:
        run: The run.
        nfes: The budgets of network calls; those of the terms by default.
        terms: The terms; by default those of the section ``eval`` of the run's configuration,
            which the members of a family share.
        floors: The noise floors on these terms, where they are known already.
        say: Is told of the progress.

    Raises:
        RunError: If the run has no checkpoint, or a budget is not positive.
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
    if floors is None:
        say("noise floor")
        floors = measure_floors(source, terms)
    distances = quality(field, source, terms, floors, say)
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
        protocol={**terms.record(), "weights": "ema"},
        about=about(run),
        folder=run.folder,
    )
    evaluation.write(run.folder)
    return evaluation


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
    member = run.model_id.partition("_")[0]
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

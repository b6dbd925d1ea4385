"""What a run is and what its training took, as an evaluation records it."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from torch import nn

from scorefield.config import presets
from scorefield.config.document import differences
from scorefield.config.resolve import load_config
from scorefield.errors import ConfigError
from scorefield.estimate import Estimate
from scorefield.progress import warn
from scorefield.runs.cost import Step, cost_of, step_of
from scorefield.runs.run import Run
from scorefield.training.record import Row, read_rows


def training_time(run: Run, step: int) -> Estimate | None:
    """The time that a training took up to a step, by ``metrics.csv``, if known; its error is
    what the scatter of the rows makes in their sum. Only steps are counted.
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
    """What the training took up to a step, from the rows of ``metrics.csv``; ``None`` if unknown.

    ``seconds_per_step`` is the median over ``rows`` rows without the first, which holds the start;
    its error is that of a median of normal draws, with their standard deviation from the median
    absolute deviation. ``wall_seconds`` counts the steps only. Multiply-adds and network calls are
    counted, see :mod:`~scorefield.runs.cost`; those of a step are ``None`` for a distillation whose
    teacher is not there.
    """
    batch = run.config.train.batch_size
    rows = [r for r in _metrics(run.folder / "metrics.csv") if int(r["step"]) <= steps]
    source = run.source()
    call, step = cost_of(run.config, source).call, _step(run)
    summary: dict[str, Any] = {
        "multiply_adds_per_call": call,
        "multiply_adds_per_step": step and step.multiply_adds,
        "calls_per_step": step and step.calls,
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


def _step(run: Run) -> Step | None:
    """What a training step took; ``None``, with a warning, where the teacher of a distillation, a
    part of it, cannot be read any more.
    """
    try:
        return step_of(run.config, run.source())
    except ConfigError as error:
        if run.config.objective.teacher is None:
            raise
        warn(f"the multiply-adds and calls of a training step are not known: {error}")
        return None


def about(run: Run) -> dict[str, Any]:
    """What a run is: its preset, what was changed, and on what it was made."""
    member = _member(run)
    preset = f"{run.dataset}/{member}"
    record = run.environment()
    packages, engines = record.get("packages") or {}, record.get("engines") or []
    facts: dict[str, Any] = {
        "label": member.upper() if member[:1] == "m" and member[1:].isdecimal() else run.model_id,
        "description": run.config.description,
        "data": run.config.data.kind,
        "versions": {
            "python": record.get("python"),
            **{name: packages.get(name) for name in ("scorefield", "torch", "numpy")},
        },
        "machine": {
            **{key: record.get(key) for key in ("platform", "cores", "threads")},
            "devices": [str(e.get("name")) for e in engines] or record.get("devices"),
        },
        "preset": None,
        "overrides": [],
    }
    try:
        base = load_config(preset)
    except ConfigError:
        return facts
    overrides = [
        f"{key}={_yaml(value)}"
        for key, _, value in differences(base.identity(), run.config.identity())
        if key not in ("name", "seed")
    ]
    if run.model_id != member and load_config(preset, overrides).name != run.config.name:
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

"""What a run, a checkpoint or any other model is, in words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from torch import nn

from scorefield.config.build import base_loss
from scorefield.config.custom import Custom
from scorefield.config.field import HybridModel
from scorefield.config.objective import CyclesTerm
from scorefield.errors import CheckpointError
from scorefield.fields.base import ScoreField
from scorefield.fields.claims import claims
from scorefield.fields.composed import HybridField
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.interop import convolutional
from scorefield.interop.convolutional import structure, without_batch_norms
from scorefield.interop.errors import InteropError
from scorefield.interop.score_sde.checkpoints import BUFFERS, read_checkpoint
from scorefield.interop.score_sde.structure import infer
from scorefield.runs import hub
from scorefield.runs.run import CONFIG, Run
from scorefield.runs.subject import open_model
from scorefield.training import checkpoint as checkpoints
from scorefield.training.checkpoint import Weights, read_weights
from scorefield.training.record import read_rows

Sheet = dict[str, list[tuple[str, str]]]
"""Pairs of what and its value, under headings."""

_TAIL = 5


def inspect(model: str | Path, trust_code: bool = False) -> Sheet:
    """Describes a run's folder, a checkpoint's folder, a file of weights, a checkpoint of the
    score_sde code, a state dict of a minimal convolutional network, or any other model by its
    claims, see :func:`~scorefield.runs.subject.open_model`.

    Raises:
        RunError: If it is none of these.
        CheckpointError: If it is a checkpoint that cannot be read.
        InteropError: If it is a file with another ending than ours, and neither a checkpoint of
            the score_sde code nor, ending in ``.pt``, such a state dict.
    """
    remote = str(model).startswith(hub.PREFIX)
    path = hub.fetched(str(model)) if remote else Path(model)
    if path.is_file():
        if path.suffix == ".pt":
            return _describe_convolutional(path)
        ours = path.suffix == ".safetensors"
        return _describe_file(path) if ours else _describe_published(path)
    if (path / CONFIG).is_file():
        return _describe_run(Run.open(path, trust_code))
    if any((path / part).exists() for part in (checkpoints.STATE, checkpoints.WEIGHTS[1])):
        return _describe_weights(path, checkpoints.read(path).ema, "ok")
    subject = open_model(path if remote else model, trust_code=trust_code)
    recorded = [(key, str(value)) for key, value in subject.about.items()]
    return {"model": [("name", str(model)), *claims(subject.field)], "recorded": recorded}


def _describe_run(run: Run) -> Sheet:
    source, field = run.source(), run.untrained()
    data = run.config.data.model_dump(exclude={"kind"})
    size = "without end" if source.size is None else f"{source.size} items to train on"
    return {
        "run": [
            ("folder", str(run.folder)),
            ("name", run.config.name),
            ("description", run.config.description or "none"),
            ("seed", str(run.config.seed)),
        ],
        "data": [
            ("kind", run.config.data.kind + _settings(data)),
            ("points", f"of shape {source.shape}, standard deviation {source.std:.4g}, {size}"),
        ],
        "process": [
            ("kind", type(field.sde).__name__),
            ("noise levels", "{:.4g} to {:.4g}".format(*field.sde.level_range)),
        ],
        "field": _describe_field(run, field),
        "objective": _describe_objective(run),
        "training": _describe_training(run),
        "checkpoints": _describe_checkpoints(run),
        "provenance": _describe_provenance(run.environment()),
    }


def _describe_field(run: Run, field: ScoreField) -> list[tuple[str, str]]:
    model = run.config.field
    kind = f"{model.kind}, {model.parametrization} parametrisation"
    if isinstance(model, HybridModel):
        kind += f", boundary at noise level {model.sigma_c:g}"
    scale = "that of the data" if model.sigma_data is None else f"{model.sigma_data:g}"
    branches: dict[str, ScoreField] = {"": field}
    if isinstance(field, HybridField):
        branches = {"low ": field.low, "high ": field.high}
    parts = [
        (f"{branch}{name}", f"{_parameters(part):,} parameters")
        for branch, owner in branches.items()
        if isinstance(owner, PreconditionedField)
        for name, part in owner.backbone.named_children()
        if _parameters(part)
    ]
    total = [("parameters", f"{_parameters(field):,}")]
    return [("kind", kind), ("sigma_data", scale), *total, *parts]


def _describe_objective(run: Run) -> list[tuple[str, str]]:
    section = run.config.objective
    law = section.law.kind + _settings(section.law.model_dump(exclude={"kind"}))
    how = f"{section.weighting} weighting, noise levels {law}"
    if (teacher := section.teacher) is not None:
        how = f"of {teacher.run}, step {teacher.step}, {how}"
    lines = [(base_loss(section).name, how)]
    for name, term in section.terms.items():
        if isinstance(term, Custom):
            weight = term.target + _settings(term.arguments)
        elif isinstance(term, CyclesTerm) and term.balance is not None:
            weight = "weight kept at" + _settings(term.balance.model_dump())
        else:
            weight = f"weight {term.weight:g}"
        lines.append((name, f"{weight}, every {getattr(term, 'every', 1)} steps"))
    return lines


def _describe_training(run: Run) -> list[tuple[str, str]]:
    steps = run.steps()
    done, wanted = (steps[-1] if steps else 0), run.config.train.steps
    lines = [("steps", f"{done:,} of {wanted:,}" + (", complete" if run.finished else ""))]
    file = run.folder / "metrics.csv"
    if not file.is_file():
        return lines
    for row in read_rows(file)[-_TAIL:]:
        shown = {k: f"{v:.4g}" for k, v in row.items() if k not in ("step", "images", "ema_decay")}
        lines.append((f"step {row['step']}", _settings(shown).strip(" ()")))
    return lines


def _describe_checkpoints(run: Run) -> list[tuple[str, str]]:
    lines = []
    for path in checkpoints.paths(run.checkpoints):
        verified = "ok"
        try:
            run.checkpoint(checkpoints.step_of(path))
        except CheckpointError as error:
            verified = f"unusable: {error}"
        lines.append((path.name, verified))
    return lines or [("none", "the run has not been trained yet")]


def _describe_provenance(record: dict[str, Any]) -> list[tuple[str, str]]:
    if not record:
        return [("unknown", "environment.json is missing or unreadable")]
    lines = []
    for key, value in record.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        elif key == "engines":
            value = "; ".join(map(_engine, value))
        elif isinstance(value, list):
            value = " ".join(value)
        lines.append((key, str(value) if value not in (None, "") else "none"))
    return lines


def _engine(record: dict[str, Any]) -> str:
    set_to = [name.replace("_", " ") for name, value in record.items() if value is True]
    return ", ".join([*(str(record.get(key)) for key in ("device", "precision")), *set_to])


def _describe_file(path: Path) -> Sheet:
    """A file of weights, compared with the checksum in its checkpoint, if any."""
    if path.name in checkpoints.WEIGHTS and path.with_name("state.pt").exists():
        found = checkpoints.read(path.parent)
        weights = found.ema if path.name == checkpoints.WEIGHTS[1] else found.model
        return _describe_weights(path, weights, "ok")
    return _describe_weights(path, read_weights(path), "not verified: no state.pt lies next to it")


def _describe_weights(path: Path, weights: Weights, verified: str) -> Sheet:
    config = weights.config or {}
    kind = config.get("field")
    kind = kind.get("kind") if isinstance(kind, dict) else (weights.field or {}).get("target")
    parts: Counter[str] = Counter()
    for name, tensor in weights.tensors.items():
        branch, _, rest = name.partition("backbone.")
        parts[branch.replace(".", " ") + rest.partition(".")[0]] += tensor.numel()
    return {
        "checkpoint": [
            ("path", str(path)),
            ("step", f"{weights.step:,}"),
            ("verified", verified),
            ("of the run", str(config.get("name", "unknown"))),
            ("seed", str(config.get("seed", "unknown"))),
        ],
        "field": [
            ("kind", str(kind or "unknown")),
            ("numbers", f"{sum(t.numel() for t in weights.tensors.values()):,}"),
            *((part, f"{count:,}") for part, count in parts.items()),
        ],
    }


def _describe_published(path: Path) -> Sheet:
    found = read_checkpoint(path)
    try:
        structure = infer(found.state)
    except InteropError as error:
        raise InteropError(f"{path}: {error}") from None
    updates = "unknown" if found.updates is None else f"{found.updates:,}"
    optimizer = "none"
    if found.optimizer is not None:
        moments = found.optimizer.moments
        state = f"state of {moments} tensors" if moments else "no state"
        optimizer = f"learning rate {found.optimizer.lr:g}, {state}"
    settings = dict(structure.settings)
    table = [settings.pop(f"model.sigma_{end}", None) for end in ("min", "max")]
    levels = settings.pop("model.num_scales", None)
    size = sum(t.numel() for name, t in found.state.items() if name not in BUFFERS)
    lines = [(key.partition(".")[2].replace("_", " "), _shown(v)) for key, v in settings.items()]
    if structure.attention is not None:
        halved = [f"{2**level}" for level in structure.attention]
        where = ", ".join(f"1/{n} of the image" if n != "1" else "the image" for n in halved)
        lines.append(("attention", f"at {where}, and in the middle" if halved else "in the middle"))
    return {
        "checkpoint": [
            ("path", str(path)),
            ("layout", found.layout),
            ("step", "not kept in this layout" if found.step is None else f"{found.step:,}"),
            ("average", f"decay {found.decay:g}, {updates} updates"),
            ("optimiser", optimizer),
        ],
        "network": [
            ("family", settings.get("model.name", "ddpm, or an ncsnpp of the same layers")),
            ("parameters", f"{size:,}"),
            *((name, value) for name, value in lines if name != "name"),
        ],
        "noise levels": [
            ("number", "unknown" if levels is None else f"{levels:,}"),
            ("range", "unknown" if None in table else f"{table[0]:g} to {table[1]:g}"),
        ],
        "configurations": [
            ("published ones that fit", ", ".join(structure.known()) or "none"),
        ],
    }


def _describe_convolutional(path: Path) -> Sheet:
    state = convolutional.read_state(path)
    try:
        kind, settings = structure(without_batch_norms(state))
        # Weights do not depend on the side, which a U-Net halves at each level but the last.
        convolutional.build(state, "zeros", 2 ** max(5, len(settings.get("fsizes", ()))))
    except InteropError as error:
        raise InteropError(f"{path}: {error}") from None
    unlabelled = settings.pop("unlabelled", None) is None
    lines = [(key.replace("_", " "), _shown(v)) for key, v in settings.items() if v is not None]
    return {
        "checkpoint": [("path", str(path)), ("layout", "state dict")],
        "network": [
            ("family", kind.__name__),
            ("parameters", f"{sum(t.numel() for t in state.values()):,}"),
            *lines,
            ("padding", convolutional.padding_of(path) or "not shown: zeros or circular"),
            ("evaluated at", "points of any kind" if unlabelled else "points of a class"),
        ],
    }


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _settings(values: dict[str, Any]) -> str:
    known = {key: _shown(value) for key, value in values.items() if value is not None}
    text = ", ".join(f"{key} {value}" for key, value in known.items())
    return f" ({text})" if text else ""

"""What a model claims to be, as a list of names and words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scorefield.fields.base import ScoreField
from scorefield.fields.clipped import ClippedField
from scorefield.fields.composed import ClassifierFreeGuidance, OneClass
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.sde.base import SDE
from scorefield.sde.steps import DiscreteVP


def claims(field: ScoreField) -> list[tuple[str, str]]:
    """What a field states about itself: its kind, its process, what its network receives and
    gives, its shape, its classes and its size.
    """
    return list(_claims(field))


def _claims(field: ScoreField) -> Iterator[tuple[str, str]]:
    yield "field", type(field).__name__ + (", the gradient of a potential"
                                           if field.has_potential else "")  # fmt: skip
    yield "process", _process(field.sde)
    least, most = field.sde.level_range
    yield "noise levels", f"{least:.4g} to {most:.4g}, in units of the data"
    inner = field
    while isinstance(inner, ClippedField | OneClass | ClassifierFreeGuidance):
        if isinstance(inner, ClippedField):
            yield "clipping", _clipping(inner)
        inner = inner.field
    if isinstance(inner, PreconditionedField):
        network = inner.backbone
        network = getattr(network, "net", network)
        yield "network", type(network).__name__
        yield "output and label", _words(inner.parametrization)
        if convention := getattr(network, "convention", ""):
            yield "convention", convention
    yield "points", "×".join(map(str, field.domain.shape)) or "numbers"
    count = field.classes
    yield "classes", "none" if count is None else f"{count}"
    yield "parameters", f"{sum(p.numel() for p in field.parameters()):,}"


def _clipping(field: ClippedField) -> str:
    share = "" if field.quantile is None else f", by the {field.quantile:g} quantile"
    return f"the denoiser to [{field.low:g}, {field.high:g}]{share}"


def _process(sde: SDE) -> str:
    if isinstance(sde, DiscreteVP) and not isinstance(sde.betas, str):
        first, *_, last = sde.table.tolist()
        return f"DiscreteVP with a table of {sde.levels} betas, from {first:.4g} to {last:.4g}"
    return _words(sde)


def _words(value: Any) -> str:
    """A dataclass with its settings, cut after 200 letters."""
    text = repr(value)
    return text if len(text) < 200 else text[:197] + "..."

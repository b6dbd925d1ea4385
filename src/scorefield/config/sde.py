"""The forward process."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainSerializer, PlainValidator, model_validator

from scorefield.config.base import (
    NoiseLevel,
    NonNegative,
    Positive,
    Section,
    check_below,
    one_or_each,
)
from scorefield.config.document import shown
from scorefield.errors import UserError

PriorMean = Annotated[
    float | tuple[float, ...],
    *one_or_each("sde.prior_mean", "a number, or a list of one a channel"),
]
Start = Annotated[float, Field(ge=0, lt=1)]
AfterZero = Annotated[float, Field(gt=0, lt=1)]
# A table is held in memory.
Levels = Annotated[int, Field(ge=2, le=10**6)]


_NAMED = ("linear", "scaled_linear", "cosine", "sigmoid")


def _table(value: Any) -> str | tuple[float, ...]:
    """A table of variances as it is read: a name, or the numbers."""
    if isinstance(value, str) and value in _NAMED:
        return value
    numbers = isinstance(value, list | tuple) and all(type(v) in (int, float) for v in value)
    if numbers and len(value) >= 2 and all(0 < v < 1 for v in value[:-1]) and 0 < value[-1] <= 1:
        return tuple(map(float, value))
    raise UserError(
        f"sde.betas is {shown(value)}, it must be one of {', '.join(_NAMED)}, or a list of at "
        "least 2 numbers in (0, 1), of which the last may be 1"
    )


def _plain(table: str | tuple[float, ...]) -> str | list[float]:
    return table if isinstance(table, str) else list(table)


Betas = Annotated[
    str | tuple[float, ...], PlainValidator(_table), PlainSerializer(_plain, when_used="json")
]


class ProcessSection(Section):
    """A process, which leaves the scale of the data as it is or shrinks it to nothing."""

    keeps_scale: ClassVar[bool] = False
    kind: str

    @model_validator(mode="after")
    def _ordered(self) -> ProcessSection:
        for low, high in (("sigma_min", "sigma_max"), ("beta_min", "beta_max"), ("t_min", "t_max")):
            if hasattr(self, high):
                check_below(f"sde.{low}", getattr(self, low), f"sde.{high}", getattr(self, high))
        return self


class EDMProcess(ProcessSection):
    """:class:`~.EDM`, between two noise levels."""

    builds = "scorefield.sde.exploding:EDM"
    keeps_scale = True
    kind: Literal["edm"]
    sigma_min: NoiseLevel
    sigma_max: NoiseLevel
    prior_mean: PriorMean


class VEProcess(ProcessSection):
    """:class:`~.VE`, between two noise levels."""

    builds = "scorefield.sde.exploding:VE"
    keeps_scale = True
    kind: Literal["ve"]
    sigma_min: NoiseLevel
    sigma_max: NoiseLevel
    prior_mean: PriorMean
    t_min: Start


class RatesProcess(ProcessSection):
    """A process between two rates."""

    beta_min: Positive
    beta_max: Positive
    prior_mean: PriorMean
    t_min: AfterZero


class VPProcess(RatesProcess):
    """:class:`~.VP`."""

    builds = "scorefield.sde.preserving:VP"
    kind: Literal["vp"]


class SubVPProcess(RatesProcess):
    """:class:`~.SubVP`."""

    builds = "scorefield.sde.preserving:SubVP"
    kind: Literal["subvp"]


class TableProcess(RatesProcess):
    """:class:`~.DiscreteVP`, of ``levels`` steps of the table ``betas``: a name or the numbers."""

    builds = "scorefield.sde.steps:DiscreteVP"
    kind: Literal["discrete_vp"]
    t_min: Start
    levels: Levels
    betas: Betas

    @model_validator(mode="after")
    def _enough(self) -> TableProcess:
        if not isinstance(self.betas, str) and len(self.betas) != self.levels:
            raise UserError(f"sde.levels is {self.levels}, sde.betas has {len(self.betas)} numbers")
        if self.betas in ("linear", "scaled_linear") and not self.beta_max < self.levels:
            raise UserError(
                f"sde.levels is {self.levels}, it must be above sde.beta_max, which is "
                f"{self.beta_max}: a step would leave less than nothing of the data"
            )
        return self


class FlowProcess(ProcessSection):
    """:class:`~.RectifiedFlow`, straight paths between data and noise."""

    builds = "scorefield.sde.interpolant:RectifiedFlow"
    kind: Literal["rectified_flow"]
    prior_mean: PriorMean
    t_min: AfterZero
    t_max: AfterZero


class CosineProcess(ProcessSection):
    """:class:`~.Cosine`; ``margin: null`` is the offset."""

    builds = "scorefield.sde.preserving:Cosine"
    kind: Literal["cosine"]
    offset: NonNegative
    prior_mean: PriorMean
    t_min: AfterZero
    t_max: Annotated[float, Field(gt=0, le=1)]
    margin: NonNegative | None

    @model_validator(mode="after")
    def _begun(self) -> CosineProcess:
        margin = self.offset if self.margin is None else self.margin
        if not self.t_max + self.offset < 1 + margin:
            raise UserError(
                f"sde.t_max + sde.offset is {self.t_max + self.offset:g}, it must be below "
                f"1 + sde.margin, which is {1 + margin:g}: nothing would be left of the data"
            )
        return self


Process = Annotated[
    EDMProcess | VEProcess | VPProcess | SubVPProcess | TableProcess | FlowProcess | CosineProcess,
    Field(discriminator="kind"),
]

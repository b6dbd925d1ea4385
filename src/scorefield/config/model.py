"""What a configuration may say about what is modelled: the data, the process and the field."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict, StringConstraints, model_validator

from scorefield.config.network_section import Network
from scorefield.config.section import (
    Count,
    NoiseLevel,
    NonNegative,
    Positive,
    Section,
    check_below,
    one_or_each,
)
from scorefield.errors import UserError

# ------------------------------------------------------------------------------------------ data


# Far beyond these, squares overflow or vanish in single precision.
Length = Annotated[float, Field(ge=1e-6, le=1e6)]


Name = Annotated[str, StringConstraints(min_length=1)]


class RingData(Section):
    """Points of :meth:`~scorefield.targets.GaussianMixture.ring`, without end."""

    kind: Literal["ring"]
    modes: Annotated[int, Field(ge=1, le=10_000)] = 8
    radius: Length = 4.0
    std: Length = 0.35


class DigitsData(Section):
    """The images of :func:`~scorefield.data.digits`."""

    kind: Literal["digits"]


class ImagesData(Section):
    """The images of :func:`~scorefield.data.image_source`; what is ``null`` is what is known of
    the data set.
    """

    kind: Literal["images"]
    dataset: Name
    size: Annotated[int, Field(ge=1, le=2**15)] | None = None
    channels: Literal[1, 3] | None = None
    classes: Count | None = None
    centered: bool = False
    flip: bool = False
    dequantize: bool = False
    path: Name | None = None
    hub: Name | None = None


Coordinate = Annotated[float, Field(ge=-1e6, le=1e6)]
Positions = Annotated[
    tuple[Annotated[tuple[Coordinate, ...], Strict(False), Field(min_length=1)], ...],
    Strict(False),
    Field(min_length=1),
]


Period = Annotated[
    float | tuple[float, ...],
    *one_or_each(
        "data.period",
        "a number from 1e-06 to 1e+06, or a list of one for each coordinate of an atom",
        lambda length: 1e-6 <= length <= 1e6,
    ),
]


class AtomsData(Section):
    """Atoms of :class:`~scorefield.targets.PseudoAtoms` on a torus, without end; ``positions`` has
    one list of coordinates for each.
    """

    kind: Literal["atoms"]
    positions: Positions
    std: Length
    period: Period = 1.0

    @model_validator(mode="after")
    def _rectangular(self) -> AtomsData:
        numbers = [len(place) for place in self.positions]
        if min(numbers) < max(numbers):
            raise UserError(
                f"data.positions has places of {min(numbers)} and of {max(numbers)} coordinates, "
                f"all must have as many"
            )
        if isinstance(self.period, tuple) and len(self.period) != numbers[0]:
            raise UserError(
                f"data.period has {len(self.period)} values, it must have one for each of the "
                f"{numbers[0]} coordinates of data.positions"
            )
        return self


Data = Annotated[RingData | DigitsData | ImagesData | AtomsData, Field(discriminator="kind")]

# ------------------------------------------------------------------------------------------- sde


PriorMean = Annotated[
    float | tuple[float, ...],
    *one_or_each("sde.prior_mean", "a number, or a list of one a channel"),
]
Start = Annotated[float, Field(ge=0, lt=1)]
# A table is held in memory.
Levels = Annotated[int, Field(ge=2, le=10**6)]


class EDMProcess(Section):
    """:class:`~scorefield.sde.EDM`, between two noise levels."""

    kind: Literal["edm"]
    sigma_min: NoiseLevel = 0.002
    sigma_max: NoiseLevel = 80.0
    prior_mean: PriorMean = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> EDMProcess:
        return check_below(self, "sde", "sigma_min", "sigma_max")


class VEProcess(Section):
    """:class:`~scorefield.sde.VE`, between two noise levels."""

    kind: Literal["ve"]
    sigma_min: NoiseLevel = 0.01
    sigma_max: NoiseLevel = 50.0
    prior_mean: PriorMean = 0.0
    t_min: Start = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> VEProcess:
        return check_below(self, "sde", "sigma_min", "sigma_max")


class BetaProcess(Section):
    """:class:`~scorefield.sde.VP` or :class:`~scorefield.sde.SubVP`, between two rates."""

    kind: Literal["vp", "subvp"]
    beta_min: Positive = 0.1
    beta_max: Positive = 20.0
    prior_mean: PriorMean = 0.0
    t_min: Annotated[float, Field(gt=0, lt=1)] = 1e-5

    @model_validator(mode="after")
    def _ordered(self) -> BetaProcess:
        return check_below(self, "sde", "beta_min", "beta_max")


class TableProcess(Section):
    """:class:`~scorefield.sde.DiscreteVP`, of ``levels`` steps between two rates."""

    kind: Literal["discrete_vp"]
    beta_min: Positive = 0.1
    beta_max: Positive = 20.0
    prior_mean: PriorMean = 0.0
    t_min: Start = 0.0
    levels: Levels = 1000

    @model_validator(mode="after")
    def _ordered(self) -> TableProcess:
        check_below(self, "sde", "beta_min", "beta_max")
        if not self.beta_max < self.levels:
            raise UserError(
                f"sde.levels is {self.levels}, it must be above sde.beta_max, which is "
                f"{self.beta_max}: a step would leave less than nothing of the data"
            )
        return self


class CosineProcess(Section):
    """:class:`~scorefield.sde.Cosine`; ``margin: null`` is the offset."""

    kind: Literal["cosine"]
    offset: NonNegative = 0.008
    prior_mean: PriorMean = 0.0
    t_min: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    t_max: Annotated[float, Field(gt=0, le=1)] = 0.99
    margin: NonNegative | None = None

    @model_validator(mode="after")
    def _ordered(self) -> CosineProcess:
        margin = self.offset if self.margin is None else self.margin
        if not self.t_max + self.offset < 1 + margin:
            raise UserError(
                f"sde.t_max + sde.offset is {self.t_max + self.offset:g}, it must be below "
                f"1 + sde.margin, which is {1 + margin:g}: nothing would be left of the data"
            )
        return check_below(self, "sde", "t_min", "t_max")


Process = Annotated[
    EDMProcess | VEProcess | BetaProcess | TableProcess | CosineProcess,
    Field(discriminator="kind"),
]

# ----------------------------------------------------------------------------------------- field


class Prediction(Section):
    """What the networks of a field predict, and how they are told the noise level.

    ``label: time`` spreads the times of a process over 0 to 999, or over the steps of
    ``discrete_vp``; ``unit_time`` leaves them as they are. ``levels`` is the length of the table
    of noise levels that the networks know, for the label ``index``. ``sigma_data: null`` is the
    standard deviation of the data itself.
    """

    kind: Literal["preconditioned", "potential", "hybrid"]
    parametrization: Literal["edm", "noise", "score"] = "edm"
    label: Literal["lognoise", "sigma", "time", "unit_time", "index"] = "lognoise"
    levels: Levels | None = None
    sigma_data: Positive | None = None

    @model_validator(mode="after")
    def _labelled(self) -> Prediction:
        if self.label == "index" and self.levels is None:
            raise UserError("field.label 'index' needs field.levels, the length of the table")
        if self.label != "index" and self.levels is not None:
            raise UserError(
                f"field.levels is the length of the table for field.label 'index', which is "
                f"{self.label!r}"
            )
        return self


class PreconditionedModel(Prediction):
    """:class:`~scorefield.fields.PreconditionedField`: a network as a field."""

    kind: Literal["preconditioned"]
    network: Network


class PotentialModel(Prediction):
    """:class:`~scorefield.fields.PotentialField`: the gradient of a scalar made by ``head``."""

    kind: Literal["potential"]
    head: Literal["sum", "inner", "denoising"] = "sum"
    network: Network


class HybridModel(Prediction):
    """:class:`~scorefield.fields.HybridField`: at noise levels up to ``sigma_c`` a potential, made
    of ``low_network`` and ``head``; above, the plain ``network``.
    """

    kind: Literal["hybrid"]
    sigma_c: Positive
    head: Literal["sum", "inner", "denoising"] = "sum"
    network: Network
    low_network: Network


Model = Annotated[PreconditionedModel | PotentialModel | HybridModel, Field(discriminator="kind")]

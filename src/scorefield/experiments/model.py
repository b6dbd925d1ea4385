"""What a configuration may say about what is modelled: the data, the process and the field."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from scorefield.experiments.section import Count, Counts, Fraction, Positive, Section, check_below

# ------------------------------------------------------------------------------------------ data


# Far beyond these, squares overflow or vanish in single precision.
Length = Annotated[float, Field(ge=1e-6, le=1e6)]


class RingData(Section):
    """Points of :meth:`~scorefield.targets.GaussianMixture.ring`, without end."""

    kind: Literal["ring"]
    modes: Annotated[int, Field(ge=1, le=10_000)] = 8
    radius: Length = 4.0
    std: Length = 0.35


class DigitsData(Section):
    """The images of :func:`~scorefield.data.digits`."""

    kind: Literal["digits"]


Data = Annotated[RingData | DigitsData, Field(discriminator="kind")]

# ------------------------------------------------------------------------------------------- sde


class SigmaProcess(Section):
    """:class:`~scorefield.sde.EDM` or :class:`~scorefield.sde.VE`, between two noise levels."""

    kind: Literal["edm", "ve"]
    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0
    prior_mean: float = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> SigmaProcess:
        return check_below(self, "sde", "sigma_min", "sigma_max")


class BetaProcess(Section):
    """:class:`~scorefield.sde.VP` or :class:`~scorefield.sde.SubVP`, between two rates."""

    kind: Literal["vp", "subvp"]
    beta_min: Positive = 0.1
    beta_max: Positive = 20.0
    prior_mean: float = 0.0
    t_min: Annotated[float, Field(gt=0, lt=1)] = 1e-5

    @model_validator(mode="after")
    def _ordered(self) -> BetaProcess:
        return check_below(self, "sde", "beta_min", "beta_max")


class CosineProcess(Section):
    """:class:`~scorefield.sde.Cosine`."""

    kind: Literal["cosine"]
    offset: Positive = 0.008
    prior_mean: float = 0.0
    t_min: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    t_max: Annotated[float, Field(gt=0, lt=1)] = 0.99

    @model_validator(mode="after")
    def _ordered(self) -> CosineProcess:
        return check_below(self, "sde", "t_min", "t_max")


Process = Annotated[SigmaProcess | BetaProcess | CosineProcess, Field(discriminator="kind")]

# ----------------------------------------------------------------------------------------- field


class MLPNetwork(Section):
    """:class:`~scorefield.networks.MLP`, for vectors."""

    kind: Literal["mlp"]
    hidden: Count = 128
    depth: Count = 3
    embedding: Annotated[int, Field(ge=4, multiple_of=2)] = 64


class UNetNetwork(Section):
    """:class:`~scorefield.networks.UNet`, for images."""

    kind: Literal["unet"]
    channels: Count = 32
    multipliers: Counts = (1, 2)
    blocks: Count = 1
    attention: Annotated[tuple[Count, ...], Strict(False)] = ()
    dropout: Fraction = 0.0


Network = Annotated[MLPNetwork | UNetNetwork, Field(discriminator="kind")]


class PreconditionedModel(Section):
    """:class:`~scorefield.fields.PreconditionedField`: a network as a field.

    ``sigma_data: null`` is the standard deviation of the data itself.
    """

    kind: Literal["preconditioned"]
    parametrization: Literal["edm", "noise", "score"] = "edm"
    sigma_data: Positive | None = None
    network: Network


class PotentialModel(Section):
    """:class:`~scorefield.fields.PotentialField`: the gradient of a scalar made by ``head``."""

    kind: Literal["potential"]
    parametrization: Literal["edm", "noise", "score"] = "edm"
    sigma_data: Positive | None = None
    head: Literal["sum", "inner", "denoising"] = "sum"
    network: Network


class HybridModel(Section):
    """:class:`~scorefield.fields.HybridField`: at noise levels up to ``sigma_c`` a potential, made
    of ``low_network`` and ``head``; above, the plain ``network``.
    """

    kind: Literal["hybrid"]
    parametrization: Literal["edm", "noise", "score"] = "edm"
    sigma_data: Positive | None = None
    sigma_c: Positive
    head: Literal["sum", "inner", "denoising"] = "sum"
    network: Network
    low_network: Network


Model = Annotated[PreconditionedModel | PotentialModel | HybridModel, Field(discriminator="kind")]

"""The field: its networks, what they predict, and how they make a score.

What follows from the rest of a configuration is not a key of a network: the shape of the data and
whether they are centred, the number of classes, the noise levels of the process and the length of
their table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, Strict, model_validator

from scorefield.config.base import (
    Count,
    Counts,
    Fraction,
    NonNegative,
    Positive,
    Section,
    default_of,
)
from scorefield.config.custom import Custom
from scorefield.config.sde import Levels
from scorefield.errors import UserError

Nonlinearity = Literal["swish", "elu", "relu", "lrelu"]
Resolutions = Annotated[tuple[Count, ...], Strict(False)]
EvenCount = Annotated[int, Field(ge=4, multiple_of=2)]
# Of a convolution, in pixels; whether it has a middle, the network checks.
Side = Annotated[int, Field(ge=1, le=2**10)]


class NetworkSection(Section):
    """A network, which ``takes`` points of one sort; of the key ``classes``, where a network has
    it, the constructor gets the number of classes of the data.
    """

    takes: ClassVar[str] = "images"
    internal = ("kind", "classes")
    kind: str

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, values: Any) -> Any:
        """What earlier versions wrote says that blocks are kept, which is the engine's now."""
        if isinstance(values, Mapping) and values.get("checkpointing") is False:
            return {key: value for key, value in values.items() if key != "checkpointing"}
        return values


class MLPNetwork(NetworkSection):
    """:class:`~.MLP`, for vectors."""

    builds = "scorefield.networks.mlp:MLP"
    takes = "vectors"
    kind: Literal["mlp"]
    hidden: Count
    depth: Count
    embedding: EvenCount


class TorusNetwork(NetworkSection):
    """A network for atoms on a torus."""

    takes = "atoms"
    hidden: Count
    depth: Count
    harmonics: Count
    embedding: EvenCount


class SymmetrizedMLPNetwork(TorusNetwork):
    """:class:`~.SymmetrizedMLP`, for few atoms."""

    builds = "scorefield.networks.atoms:SymmetrizedMLP"
    kind: Literal["symmetrized_mlp"]


class EquivariantMLPNetwork(TorusNetwork):
    """:class:`~.EquivariantMLP`, for any number of atoms."""

    builds = "scorefield.networks.atoms:EquivariantMLP"
    kind: Literal["equivariant_mlp"]


class EGNNNetwork(NetworkSection):
    """:class:`~.EGNN`, for particles without their centre of mass."""

    builds = "scorefield.networks.egnn:EGNN"
    takes = "particles"
    kind: Literal["egnn"]
    hidden: Count
    depth: Count
    embedding: EvenCount


class PyramidNetwork(NetworkSection):
    """A network that works on images at several resolutions."""

    channels: Count
    multipliers: Counts
    blocks: Count
    attention: Resolutions
    dropout: Fraction


class UNetNetwork(PyramidNetwork):
    """:class:`~.unet.UNet`, for images; ``classes`` makes it class-conditional, ``patch`` is the
    side of the patches that it works on.
    """

    builds = "scorefield.networks.unet:UNet"
    kind: Literal["unet"]
    classes: bool = False
    patch: Side


class ResidualNetwork(PyramidNetwork):
    """:class:`~.NCSNpp` or a special case of it."""

    conditional: bool
    resample_with_conv: bool
    activation: Nonlinearity
    scale_by_sigma: bool
    classes: bool = False


class NCSNppNetwork(ResidualNetwork):
    """:class:`~.NCSNpp`, for images; without ``fir`` and with a positional
    embedding it is called DDPM++.
    """

    builds = "scorefield.networks.ncsnpp:NCSNpp"
    kind: Literal["ncsnpp"]
    embedding: Literal["fourier", "positional"]
    fir: bool
    fir_kernel: Annotated[tuple[float, ...], Strict(False), Field(min_length=1)]
    block: Literal["biggan", "ddpm"]
    skip_rescale: bool
    progressive: Literal["none", "output_skip", "residual"]
    progressive_input: Literal["none", "input_skip", "residual"]
    combine: Literal["sum", "cat"]
    fourier_scale: Positive
    init_scale: NonNegative


class DDPMNetwork(ResidualNetwork):
    """:class:`~.DDPM`, for images."""

    builds = "scorefield.networks.ncsnpp:DDPM"
    kind: Literal["ddpm"]
    channels: Annotated[int, Field(ge=32, multiple_of=32)]


class SongNetwork(PyramidNetwork):
    """:class:`~scorefield.interop.edm.fresh.SongNetwork`, EDM's DDPM++ or NCSN++, for images."""

    builds = "scorefield.interop.edm.fresh:SongNetwork"
    kind: Literal["song"]
    variant: Literal["ddpmpp", "ncsnpp"]
    classes: bool = False


class DhariwalNetwork(PyramidNetwork):
    """:class:`~scorefield.interop.edm.fresh.DhariwalNetwork`, EDM's ADM, for images."""

    builds = "scorefield.interop.edm.fresh:DhariwalNetwork"
    kind: Literal["adm"]
    embedding: Count
    classes: bool = False


class NCSNNetwork(NetworkSection):
    """:class:`~.NCSN`, for images and a table of noise levels."""

    builds = "scorefield.networks.ncsn:NCSN"
    kind: Literal["ncsn"]
    channels: Annotated[int, Field(ge=2)]
    activation: Nonlinearity


class NCSNv2Network(NetworkSection):
    """:class:`~.NCSNv2`, for images and a table of noise levels; ``size`` is
    its depth.
    """

    builds = "scorefield.networks.ncsn:NCSNv2"
    kind: Literal["ncsnv2"]
    size: Literal[64, 128, 256]
    channels: Annotated[int, Field(ge=2)]
    activation: Nonlinearity
    normalization: Literal["InstanceNorm++", "InstanceNorm", "VarianceNorm"]


class MinimalNetwork(NetworkSection):
    """A network of few layers, for images."""

    padding: Literal["zeros", "circular"]
    normalization: Literal["group"] | None
    kernel_size: Side
    last_kernel_size: Side
    classes: bool = False


class MinimalUNetNetwork(MinimalNetwork):
    """:class:`~.MinimalUNet`, for images."""

    builds = "scorefield.networks.minimal:MinimalUNet"
    kind: Literal["minimal_unet"]
    fsizes: Counts
    embedding: EvenCount
    last_norm: bool


class MinimalResNetNetwork(MinimalNetwork):
    """:class:`~.MinimalResNet`, for images."""

    builds = "scorefield.networks.minimal:MinimalResNet"
    kind: Literal["minimal_resnet"]
    channels: Annotated[int, Field(ge=16, multiple_of=8)]
    layers: Count
    add_one: bool


Network = Annotated[
    MLPNetwork
    | SymmetrizedMLPNetwork
    | EquivariantMLPNetwork
    | EGNNNetwork
    | UNetNetwork
    | NCSNppNetwork
    | DDPMNetwork
    | SongNetwork
    | DhariwalNetwork
    | NCSNNetwork
    | NCSNv2Network
    | MinimalUNetNetwork
    | MinimalResNetNetwork
    | Custom,
    Field(discriminator="kind"),
]


def kinds(points: str | None) -> list[str]:
    """The kinds of networks that take points of a sort."""
    sections: tuple[type[NetworkSection | Custom], ...] = get_args(get_args(Network)[0])
    return [
        kind
        for section in sections
        if section.takes == points
        for kind in get_args(section.model_fields["kind"].annotation)
    ]


class Prediction(Section):
    """What the networks of a field predict, and how the noise level is given to them.

    ``label: time`` spreads the times of a process over 0 to 999, or over the steps of
    ``discrete_vp``; ``unit_time`` leaves them as they are. ``levels`` is the length of the table
    of noise levels that the networks know, for the label ``index``. ``sigma_data: null`` is the
    standard deviation of the data itself.
    """

    kind: str
    parametrization: Literal["edm", "energy", "noise", "denoiser", "v", "velocity", "score"] = "edm"
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


Head = Annotated[
    Literal["sum", "inner", "denoising"],
    default_of("scorefield.fields.potential:PotentialField", "head"),
]


class PreconditionedModel(Prediction):
    """:class:`~.PreconditionedField`: a network as a field."""

    kind: Literal["preconditioned"]
    network: Network


class PotentialModel(Prediction):
    """:class:`~.PotentialField`: the gradient of a scalar made by ``head``."""

    kind: Literal["potential"]
    head: Head
    network: Network


class HybridModel(Prediction):
    """:class:`~.HybridField`: at noise levels up to ``sigma_c`` a potential, made
    of ``low_network``, where it is null one like ``network``, and ``head``; above, the plain
    ``network``.
    """

    kind: Literal["hybrid"]
    sigma_c: Positive
    head: Head
    network: Network
    low_network: Network | None = None

    @property
    def low(self) -> Network:
        """The network of the potential."""
        return self.network if self.low_network is None else self.low_network


Model = Annotated[PreconditionedModel | PotentialModel | HybridModel, Field(discriminator="kind")]

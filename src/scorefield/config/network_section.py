"""What a configuration may say about networks.

What follows from the rest of a configuration is not said again: the shape of the data and whether
they are centred, the number of classes, the noise levels of the process and the length of their
table.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from scorefield.config.section import Count, Counts, Fraction, NonNegative, Positive, Section

Nonlinearity = Literal["swish", "elu", "relu", "lrelu"]
Resolutions = Annotated[tuple[Count, ...], Strict(False)]
# Of a convolution, in pixels; whether it has a middle, the network checks.
Side = Annotated[int, Field(ge=1, le=2**10)]


class MLPNetwork(Section):
    """:class:`~scorefield.networks.MLP`, for vectors."""

    kind: Literal["mlp"]
    hidden: Count = 128
    depth: Count = 3
    embedding: Annotated[int, Field(ge=4, multiple_of=2)] = 64


class SymmetrizedMLPNetwork(Section):
    """:class:`~scorefield.networks.SymmetrizedMLP`, for few atoms on a torus."""

    kind: Literal["symmetrized_mlp"]
    hidden: Count = 64
    depth: Count = 3
    harmonics: Count = 1
    embedding: Annotated[int, Field(ge=4, multiple_of=2)] = 64


class EquivariantMLPNetwork(Section):
    """:class:`~scorefield.networks.EquivariantMLP`, for any number of atoms on a torus."""

    kind: Literal["equivariant_mlp"]
    hidden: Count = 64
    depth: Count = 3
    harmonics: Count = 1
    embedding: Annotated[int, Field(ge=4, multiple_of=2)] = 64


class UNetNetwork(Section):
    """:class:`~scorefield.networks.UNet`, for images; ``classes`` says whether it is told those of
    the data.
    """

    kind: Literal["unet"]
    channels: Count = 32
    multipliers: Counts = (1, 2)
    blocks: Count = 1
    attention: Resolutions = ()
    dropout: Fraction = 0.0
    classes: bool = False


class NCSNppNetwork(Section):
    """:class:`~scorefield.networks.NCSNpp`, for images; without ``fir`` and with a positional
    embedding it is called DDPM++.
    """

    kind: Literal["ncsnpp"]
    channels: Count = 128
    multipliers: Counts = (1, 2, 2, 2)
    blocks: Count = 4
    attention: Resolutions = (16,)
    dropout: Fraction = 0.1
    embedding: Literal["fourier", "positional"] = "fourier"
    conditional: bool = True
    fir: bool = True
    fir_kernel: Annotated[tuple[float, ...], Strict(False), Field(min_length=1)] = (1, 3, 3, 1)
    block: Literal["biggan", "ddpm"] = "biggan"
    resample_with_conv: bool = True
    skip_rescale: bool = True
    progressive: Literal["none", "output_skip", "residual"] = "none"
    progressive_input: Literal["none", "input_skip", "residual"] = "residual"
    combine: Literal["sum", "cat"] = "sum"
    fourier_scale: Positive = 16.0
    init_scale: NonNegative = 0.0
    activation: Nonlinearity = "swish"
    scale_by_sigma: bool = True
    checkpointing: bool = False
    classes: bool = False


class DDPMNetwork(Section):
    """:class:`~scorefield.networks.DDPM`, for images."""

    kind: Literal["ddpm"]
    channels: Annotated[int, Field(ge=32, multiple_of=32)] = 128
    multipliers: Counts = (1, 2, 2, 2)
    blocks: Count = 2
    attention: Resolutions = (16,)
    dropout: Fraction = 0.1
    conditional: bool = True
    resample_with_conv: bool = True
    activation: Nonlinearity = "swish"
    scale_by_sigma: bool = False
    checkpointing: bool = False
    classes: bool = False


class NCSNNetwork(Section):
    """:class:`~scorefield.networks.NCSN`, for images and a table of noise levels."""

    kind: Literal["ncsn"]
    channels: Annotated[int, Field(ge=2)] = 128
    activation: Nonlinearity = "elu"
    checkpointing: bool = False


class NCSNv2Network(Section):
    """:class:`~scorefield.networks.NCSNv2`, for images and a table of noise levels; ``size`` is
    its depth.
    """

    kind: Literal["ncsnv2"]
    size: Literal[64, 128, 256] = 64
    channels: Annotated[int, Field(ge=2)] = 128
    activation: Nonlinearity = "elu"
    normalization: Literal["InstanceNorm++", "InstanceNorm", "VarianceNorm"] = "InstanceNorm++"
    checkpointing: bool = False


class MinimalUNetNetwork(Section):
    """:class:`~scorefield.networks.MinimalUNet`, for images."""

    kind: Literal["minimal_unet"]
    fsizes: Counts = (32, 64, 128)
    padding: Literal["zeros", "circular"] = "zeros"
    normalization: Literal["group"] | None = None
    embedding: Annotated[int, Field(ge=4, multiple_of=2)] = 256
    kernel_size: Side = 3
    last_kernel_size: Side = 1
    last_norm: bool = False
    classes: bool = False


class MinimalResNetNetwork(Section):
    """:class:`~scorefield.networks.MinimalResNet`, for images."""

    kind: Literal["minimal_resnet"]
    channels: Annotated[int, Field(ge=16, multiple_of=8)] = 128
    layers: Count = 6
    padding: Literal["zeros", "circular"] = "zeros"
    normalization: Literal["group"] | None = None
    kernel_size: Side = 3
    last_kernel_size: Side = 1
    add_one: bool = True
    classes: bool = False


Network = Annotated[
    MLPNetwork
    | SymmetrizedMLPNetwork
    | EquivariantMLPNetwork
    | UNetNetwork
    | NCSNppNetwork
    | DDPMNetwork
    | NCSNNetwork
    | NCSNv2Network
    | MinimalUNetNetwork
    | MinimalResNetNetwork,
    Field(discriminator="kind"),
]

ATOM_NETWORKS = ("symmetrized_mlp", "equivariant_mlp")
"""The kinds of networks that take atoms on a torus."""

IMAGE_NETWORKS = ("unet", "ncsnpp", "ddpm", "ncsn", "ncsnv2", "minimal_unet", "minimal_resnet")
"""The kinds of networks that take images."""

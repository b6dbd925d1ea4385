"""Networks.

What follows from the rest of a configuration is not a key: the shape of the data and whether they
are centred, the number of classes, the noise levels of the process and the length of their table.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, Strict

from scorefield.config.base import (
    Count,
    Counts,
    Fraction,
    NonNegative,
    Positive,
    Section,
    build,
)
from scorefield.config.custom import Custom
from scorefield.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from scorefield.data import DataSource

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
    kind: str

    def settings(self) -> dict[str, Any]:
        return {key: value for key, value in super().settings().items() if key != "classes"}


class MLPNetwork(NetworkSection):
    """:class:`~scorefield.networks.MLP`, for vectors."""

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
    """:class:`~scorefield.networks.SymmetrizedMLP`, for few atoms."""

    builds = "scorefield.networks.atoms:SymmetrizedMLP"
    kind: Literal["symmetrized_mlp"]


class EquivariantMLPNetwork(TorusNetwork):
    """:class:`~scorefield.networks.EquivariantMLP`, for any number of atoms."""

    builds = "scorefield.networks.atoms:EquivariantMLP"
    kind: Literal["equivariant_mlp"]


class UNetNetwork(NetworkSection):
    """:class:`~scorefield.networks.UNet`, for images; ``classes`` makes it class-conditional."""

    builds = "scorefield.networks.unet:UNet"
    kind: Literal["unet"]
    channels: Count
    multipliers: Counts
    blocks: Count
    attention: Resolutions
    dropout: Fraction
    classes: bool = False


class NCSNppNetwork(NetworkSection):
    """:class:`~scorefield.networks.NCSNpp`, for images; without ``fir`` and with a positional
    embedding it is called DDPM++.
    """

    builds = "scorefield.networks.ncsnpp:NCSNpp"
    kind: Literal["ncsnpp"]
    channels: Count
    multipliers: Counts
    blocks: Count
    attention: Resolutions
    dropout: Fraction
    embedding: Literal["fourier", "positional"]
    conditional: bool
    fir: bool
    fir_kernel: Annotated[tuple[float, ...], Strict(False), Field(min_length=1)]
    block: Literal["biggan", "ddpm"]
    resample_with_conv: bool
    skip_rescale: bool
    progressive: Literal["none", "output_skip", "residual"]
    progressive_input: Literal["none", "input_skip", "residual"]
    combine: Literal["sum", "cat"]
    fourier_scale: Positive
    init_scale: NonNegative
    activation: Nonlinearity
    scale_by_sigma: bool
    checkpointing: bool
    classes: bool = False


class DDPMNetwork(NetworkSection):
    """:class:`~scorefield.networks.DDPM`, for images."""

    builds = "scorefield.networks.ncsnpp:DDPM"
    kind: Literal["ddpm"]
    channels: Annotated[int, Field(ge=32, multiple_of=32)]
    multipliers: Counts
    blocks: Count
    attention: Resolutions
    dropout: Fraction
    conditional: bool
    resample_with_conv: bool
    activation: Nonlinearity
    scale_by_sigma: bool
    checkpointing: bool
    classes: bool = False


class NCSNNetwork(NetworkSection):
    """:class:`~scorefield.networks.NCSN`, for images and a table of noise levels."""

    builds = "scorefield.networks.ncsn:NCSN"
    kind: Literal["ncsn"]
    channels: Annotated[int, Field(ge=2)]
    activation: Nonlinearity
    checkpointing: bool


class NCSNv2Network(NetworkSection):
    """:class:`~scorefield.networks.NCSNv2`, for images and a table of noise levels; ``size`` is
    its depth.
    """

    builds = "scorefield.networks.ncsn:NCSNv2"
    kind: Literal["ncsnv2"]
    size: Literal[64, 128, 256]
    channels: Annotated[int, Field(ge=2)]
    activation: Nonlinearity
    normalization: Literal["InstanceNorm++", "InstanceNorm", "VarianceNorm"]
    checkpointing: bool


class MinimalUNetNetwork(NetworkSection):
    """:class:`~scorefield.networks.MinimalUNet`, for images."""

    builds = "scorefield.networks.minimal:MinimalUNet"
    kind: Literal["minimal_unet"]
    fsizes: Counts
    padding: Literal["zeros", "circular"]
    normalization: Literal["group"] | None
    embedding: EvenCount
    kernel_size: Side
    last_kernel_size: Side
    last_norm: bool
    classes: bool = False


class MinimalResNetNetwork(NetworkSection):
    """:class:`~scorefield.networks.MinimalResNet`, for images."""

    builds = "scorefield.networks.minimal:MinimalResNet"
    kind: Literal["minimal_resnet"]
    channels: Annotated[int, Field(ge=16, multiple_of=8)]
    layers: Count
    padding: Literal["zeros", "circular"]
    normalization: Literal["group"] | None
    kernel_size: Side
    last_kernel_size: Side
    add_one: bool
    classes: bool = False


class CustomNetwork(Custom):
    """A network of the user's own: a module that is called as ``network(x, level)``.

    Of ``shape`` and ``dim`` of the data, ``period``, ``centered``, ``outputs`` and ``seed`` it
    gets what it has a parameter for.
    """

    takes: ClassVar[None] = None


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
    | MinimalResNetNetwork
    | CustomNetwork,
    Field(discriminator="kind"),
]


def kinds(points: str | None) -> list[str]:
    """The kinds of networks that take points of a sort."""
    sections: tuple[type[NetworkSection | CustomNetwork], ...] = get_args(get_args(Network)[0])
    return [
        kind
        for section in sections
        if section.takes == points
        for kind in get_args(section.model_fields["kind"].annotation)
    ]


def build_network(network: Network, where: str, source: DataSource, **known: Any) -> nn.Module:
    """A network.

    Arguments:
        network: Its section.
        where: The key of the section.
        source: The data.
        known: What else its constructor gets where it has a parameter for it.

    Raises:
        ConfigError: If it does not fit the data.
    """
    import torch
    from torch import nn

    known |= {"shape": source.shape, "dim": math.prod(source.shape)}
    if getattr(network, "classes", False):
        if source.classes is None:
            raise ConfigError(f"{where}.classes needs data with classes, {source.name} has none")
        known["classes"] = source.classes
    if isinstance(network, NCSNppNetwork | DDPMNetwork):
        _check_attention(network, where, source.shape[-1])
    if not isinstance(network, CustomNetwork):
        return build(network, where, nn.Module, **known)
    with torch.random.fork_rng(devices=[]):
        # Most networks draw their weights from torch's own generator.
        torch.default_generator.manual_seed(known["seed"])
        return build(network, where, nn.Module, **known)


def _check_attention(network: NCSNppNetwork | DDPMNetwork, where: str, width: int) -> None:
    widths = [width // 2**k for k in range(len(network.multipliers))]
    missing = sorted(set(network.attention) - set(widths))
    if missing:
        raise ConfigError(
            f"{where}.attention has {missing[0]}, but the images in the network are "
            f"{', '.join(map(str, widths))} pixels wide"
        )

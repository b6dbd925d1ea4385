"""From the sections of a configuration to networks."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from scorefield.config import model as m
from scorefield.config import network_section as s
from scorefield.config.config import Config
from scorefield.data import DataSource
from scorefield.errors import ConfigError, section_of
from scorefield.networks import (
    DDPM,
    MLP,
    EquivariantMLP,
    MinimalResNet,
    MinimalUNet,
    NCSNpp,
    SymmetrizedMLP,
    UNet,
)
from scorefield.networks.ncsn import NCSN
from scorefield.networks.ncsnv2 import NCSNv2


def build_network(
    config: Config, where: str, source: DataSource, seed: int, head: str | None
) -> nn.Module:
    """A backbone.

    Arguments:
        config: The configuration.
        where: The key of its section.
        source: The data.
        seed: The seed of its weights.
        head: The head of the potential that it is for, if it is for one.

    Raises:
        ConfigError: If it does not fit the data.
    """
    network = config.networks[where]
    own: dict[str, Any] = network.model_dump(exclude={"kind", "classes"})
    own |= {"seed": seed}
    classes = _classes(where, network, source)
    _check_attention(where, network, source)
    told: dict[str, Any] = {"centered": config.centered, **_table(config)}
    with section_of(where):
        match network:
            case s.MLPNetwork():
                # A sum over several outputs is no more than one output.
                outputs = 1 if head == "sum" else None
                return MLP(math.prod(source.shape), **own, outputs=outputs)
            case s.SymmetrizedMLPNetwork():
                return SymmetrizedMLP(**_box(config), **own)
            case s.EquivariantMLPNetwork():
                return EquivariantMLP(**_box(config), **own)
            case s.UNetNetwork():
                return UNet(source.shape, **own, classes=classes)
            case s.NCSNppNetwork():
                return NCSNpp(source.shape, **own, **told, classes=classes)
            case s.DDPMNetwork():
                return DDPM(source.shape, **own, **told, classes=classes)
            case s.NCSNNetwork():
                return NCSN(source.shape, **own, centered=told["centered"], levels=told["levels"])
            case s.NCSNv2Network():
                return NCSNv2(source.shape, **own, **told)
            case s.MinimalUNetNetwork():
                return MinimalUNet(source.shape, **own, classes=classes)
            case s.MinimalResNetNetwork():
                return MinimalResNet(source.shape, **own, classes=classes)


def _box(config: Config) -> dict[str, Any]:
    """The atoms that a network has on a torus, and its period."""
    assert isinstance(config.data, m.AtomsData)
    positions = config.data.positions
    return {"shape": (len(positions), len(positions[0])), "period": config.data.period}


def _table(config: Config) -> dict[str, Any]:
    """The noise levels that a network has a table of, where it is told their places."""
    if config.field.label != "index":
        return {}
    assert isinstance(config.sde, m.VEProcess)
    ends = {"sigma_min": config.sde.sigma_min, "sigma_max": config.sde.sigma_max}
    return {**ends, "levels": config.field.levels}


def _check_attention(where: str, network: s.Network, source: DataSource) -> None:
    if not isinstance(network, s.NCSNppNetwork | s.DDPMNetwork):
        return
    widths = [source.shape[-1] // 2**k for k in range(len(network.multipliers))]
    missing = sorted(set(network.attention) - set(widths))
    if missing:
        raise ConfigError(
            f"{where}.attention has {missing[0]}, but the images in the network are "
            f"{', '.join(map(str, widths))} pixels wide"
        )


def _classes(where: str, network: s.Network, source: DataSource) -> int | None:
    if not getattr(network, "classes", False):
        return None
    if source.classes is None:
        raise ConfigError(f"{where}.classes needs data with classes, {source.name} has none")
    return source.classes

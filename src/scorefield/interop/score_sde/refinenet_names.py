"""The NCSN family: configurations and names of weights in the score_sde code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, cast

from torch import nn

from scorefield.interop.errors import InteropError
from scorefield.interop.score_sde.configurations import value
from scorefield.networks.instance_norm import EPSILON, VarianceNorm
from scorefield.networks.ncsn import NCSN, NCSNv2

SIZES: dict[str, Literal[64, 128, 256]] = {"ncsnv2_64": 64, "ncsnv2_128": 128, "ncsnv2_256": 256}
"""The names of the depths of the second version in the score_sde code."""
NAMES = ("ncsn", "ncsnv2", *SIZES)
"""The names of the networks of the family; ``ncsnv2`` has the depth for its images."""

# The stages on the way down from fine to coarse, and on the way up from coarse to fine.
_STAGES = {
    4: (("1", "2", "3", "4"), ("1", "2", "3", "4")),
    5: (("1", "2", "3", "4", "5"), ("1", "2", "3", "4", "5")),
    6: (("1", "2", "3", "31", "4", "5"), ("1", "2", "31", "3", "4", "5")),
}
_OUTER = {"first": "begin_conv", "last_norm": "normalizer", "last": "end_conv"}
_BLOCK = {
    "first_norm": "normalize1",
    "first": "conv1",
    "second_norm": "normalize2",
    "second": "conv2",
    "skip": "shortcut",
}
_REFINEMENT = {"adapt": "adapt_convs", "units": "output_convs", "fusion": "msf", "pooling": "crp"}
_LEAVES = {
    "scale": "gamma",
    "mean_scale": "alpha",
    "shift": "beta",
    "coefficients.weight": "embed.weight",
}


def build_refinenet(
    config: Mapping[str, Any], seed: int = 0
) -> tuple[NCSN | NCSNv2, list[tuple[str, str]]]:
    """A network of the NCSN family, and pairs of the published name and ours of its parameters.

    Raises:
        InteropError: If a key is missing, or the model is not of the family.
        ValueError: If a value does not fit.
    """
    name = value(config, "model.name")
    if name not in NAMES:
        raise InteropError(f"model.name must be one of {', '.join(NAMES)}, got {name!r}")
    side = int(value(config, "data.image_size"))
    shape = (int(value(config, "data.num_channels")), side, side)
    channels, levels = int(value(config, "model.nf")), int(value(config, "model.num_scales"))
    nonlinearity = str(value(config, "model.nonlinearity")).lower()
    normalization = value(config, "model.normalization")
    centered = bool(value(config, "data.centered"))
    network: NCSN | NCSNv2
    if name == "ncsn":
        if normalization != "InstanceNorm++":
            raise InteropError(
                f"model.normalization of an ncsn must be InstanceNorm++, got {normalization!r}"
            )
        network = NCSN(shape, channels, levels, nonlinearity, centered, seed=seed)
    else:
        network = NCSNv2(
            shape,
            SIZES[name] if name in SIZES else _depth(side),
            channels,
            float(value(config, "model.sigma_min")),
            float(value(config, "model.sigma_max")),
            levels,
            nonlinearity,
            normalization,
            # The published last InstanceNorm gets the number of levels as its epsilon.
            last_epsilon=float(levels) if normalization == "InstanceNorm" else EPSILON,
            centered=centered,
            seed=seed,
        )
    return network, [
        (_published_name(network, ours), ours) for ours, _ in network.named_parameters()
    ]


def _depth(side: int) -> Literal[64, 128, 256]:
    """The depth for images of a size."""
    if side > 256:
        raise InteropError(f"an ncsnv2 is for images of up to 256 pixels, got {side}")
    return 64 if side < 96 else 128 if side <= 128 else 256


def _published_name(network: nn.Module, ours: str) -> str:
    """The published name of one of our parameters."""
    down, up = _STAGES[len(cast(nn.ModuleList, network.get_submodule("trunk.down")))]
    if found := re.fullmatch(r"trunk\.down\.(\d)\.(\d)\.(\w+?)\.(.+)", ours):
        stage, block, part, leaf = found.groups()
        halves = network.get_submodule(f"trunk.down.{stage}.{block}").halves
        inner = ".conv" if halves and part in ("second", "skip") else ""
        where = f"res{down[int(stage)]}.{block}.{_BLOCK[part]}{inner}"
    elif found := re.fullmatch(r"trunk\.up\.(\d)\.(adapt\.\d|units)\.(\w+)s\.(\d)\.(.+)", ours):
        stage, part, kind, place, leaf = found.groups()
        part = re.sub(r"^\w+", lambda m: _REFINEMENT[m[0]], part)
        unit, half = divmod(int(place), 2)
        where = f"refine{up[int(stage)]}.{part}.{unit + 1}_{half + 1}_{kind}"
    elif found := re.fullmatch(r"trunk\.up\.(\d)\.(\w+)\.(\w+)\.(\d)\.(.+)", ours):
        stage, part, kind, place, leaf = found.groups()
        where = f"refine{up[int(stage)]}.{_REFINEMENT[part]}.{kind}.{place}"
    else:
        part, leaf = ours.split(".", 1)
        where = _OUTER[part]
    return f"{where}.{_leaf(network, ours, leaf)}"


def _leaf(network: nn.Module, ours: str, leaf: str) -> str:
    owner = network.get_submodule(ours.rpartition(".")[0])
    if isinstance(owner, VarianceNorm):
        return "alpha"
    return _LEAVES.get(leaf, leaf)

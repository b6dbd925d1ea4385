r"""NCSN++ and DDPM: configurations and names of weights in the score_sde code.

There, all layers are in one list, ``all_modules``, in the order of execution, layers without
weights included. An index depends on every layer before it, so the list is generated here for a
network, with our names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from torch import nn

from scorefield.interop.errors import InteropError
from scorefield.interop.score_sde.configurations import value
from scorefield.networks.blocks import ResidualBlock
from scorefield.networks.ncsnpp import DDPM, NCSNpp
from scorefield.networks.resampling import DoublingConv
from scorefield.networks.stages import Ascent, Descent

Pairs = list[tuple[str, str]]
_Layer = dict[str, str | tuple[int, ...]]
"""By the name of a weight, our name or, if it is without effect and we have none, its shape."""

MODELS = ("ncsnpp", "ddpm")
"""The names of the two networks in the score_sde code."""

_BLOCK = {
    "GroupNorm_0": "first_norm",
    "Conv_0": "first",
    "Dense_0": "level",
    "GroupNorm_1": "second_norm",
    "Conv_1": "second",
}
_PROJECTIONS = {"NIN_0": "query", "NIN_1": "key", "NIN_2": "value", "NIN_3": "out"}


def build_unet(config: Mapping[str, Any], seed: int = 0) -> NCSNpp:
    """The network of a configuration; a missing key has the published default for CIFAR-10.

    Raises:
        InteropError: If the model is neither of the two, an option is invalid, or Fourier features
            are set without continuous labels.
    """
    name = value(config, "model.name")
    if name not in MODELS:
        raise InteropError(f"model.name must be one of {', '.join(MODELS)}, got {name!r}")
    ddpm = name == "ddpm"

    def model(key: str, default: Any) -> Any:
        return value(config, f"model.{key}", default)

    def choice(key: str, *choices: str) -> str:
        chosen = str(model(key, choices[0])).lower()
        if chosen not in choices:
            raise InteropError(f"model.{key} must be one of {', '.join(choices)}, got {chosen!r}")
        return chosen

    side = int(value(config, "data.image_size", 32))
    common: dict[str, Any] = {
        "shape": (int(value(config, "data.num_channels", 3)), side, side),
        "channels": int(model("nf", 128)),
        "multipliers": tuple(int(m) for m in model("ch_mult", (1, 2, 2, 2))),
        "blocks": int(model("num_res_blocks", 2 if ddpm else 4)),
        "attention": tuple(int(r) for r in model("attn_resolutions", (16,))),
        "dropout": float(model("dropout", 0.1)),
        "conditional": bool(model("conditional", True)),
        "resample_with_conv": bool(model("resamp_with_conv", True)),
        "activation": choice("nonlinearity", "swish", "elu", "relu", "lrelu"),
        "centered": bool(value(config, "data.centered", False)),
        "scale_by_sigma": bool(model("scale_by_sigma", not ddpm)),
        "sigma_min": float(model("sigma_min", 0.01)),
        "sigma_max": float(model("sigma_max", 50.0)),
        "levels": int(model("num_scales", 1000)),
        "seed": seed,
    }
    if ddpm:
        return DDPM(**common)
    embedding = choice("embedding_type", "fourier", "positional")
    if embedding == "fourier" and not value(config, "training.continuous", True):
        raise InteropError(
            "model.embedding_type 'fourier' takes noise levels, which are labels only where "
            "training.continuous is true"
        )
    own: dict[str, Any] = {
        "embedding": embedding,
        "fir": bool(model("fir", True)),
        "fir_kernel": tuple(float(tap) for tap in model("fir_kernel", (1, 3, 3, 1))),
        "block": choice("resblock_type", "biggan", "ddpm"),
        "skip_rescale": bool(model("skip_rescale", True)),
        "progressive": choice("progressive", "none", "residual", "output_skip"),
        "progressive_input": choice("progressive_input", "residual", "none", "input_skip"),
        "combine": choice("progressive_combine", "sum", "cat"),
        "fourier_scale": float(model("fourier_scale", 16.0)),
        "init_scale": float(model("init_scale", 0.0)),
    }
    return NCSNpp(**common, **own)


def names(network: NCSNpp) -> tuple[Pairs, dict[str, tuple[int, ...]]]:
    """The published name and ours of each weight, in published order; and the shapes of the
    published weights without effect, which ours do not have.

    A published unconditional network has layers for the embedded noise level, and one of a single
    level with ``progressive='residual'`` begins a pyramid that is never used. A published matrix
    ``W`` has a column for each output, ours a row.
    """
    pairs: Pairs = []
    unused: dict[str, tuple[int, ...]] = {}
    for place, layer in enumerate(_layers(network)):
        for theirs, ours in layer.items():
            name = f"all_modules.{place}.{theirs}"
            if isinstance(ours, str):
                pairs.append((name, ours))
            else:
                unused[name] = ours
    return pairs, unused


def _layers(network: NCSNpp) -> Iterator[_Layer]:
    conditioned = network.conditioning is not None
    if network.positive:
        frequencies = (network.first.out_channels,)
        yield {"W": "conditioning.fourier.frequencies" if conditioned else frequencies}
    if conditioned:
        yield _leaves("conditioning.first")
        yield _leaves("conditioning.second")
    yield _leaves("first")
    for k, down in enumerate(cast("list[Descent]", network.down)):
        for j in range(len(down.blocks)):
            yield _block(network, f"down.{k}.blocks.{j}")
            if down.attention:
                yield _attention(f"down.{k}.attention.{j}")
        if down.shrink is not None:
            yield _resampling(network, f"down.{k}.shrink")
        if down.combine is not None:
            yield _leaves(f"down.{k}.combine.convolution", "Conv_0.")
        elif down.pyramid is not None:
            yield _resampling(network, f"down.{k}.pyramid")
    yield _block(network, "middle.0")
    yield _attention("middle.1")
    yield _block(network, "middle.2")
    for k, up in enumerate(cast("list[Ascent]", network.up)):
        for j in range(len(up.blocks)):
            yield _block(network, f"up.{k}.blocks.{j}")
        if up.attention is not None:
            yield _attention(f"up.{k}.attention")
        if isinstance(up.pyramid, DoublingConv):
            yield _resampling(network, f"up.{k}.pyramid")
        elif up.head is not None:
            yield _leaves(f"up.{k}.head_norm")
            yield _leaves(f"up.{k}.head")
        elif up.plan.progressive == "residual":
            width = network.first.out_channels
            yield {"weight": (width,), "bias": (width,)}
            yield {"weight": (width, width, 3, 3), "bias": (width,)}
        if up.grow is not None:
            yield _resampling(network, f"up.{k}.grow")
    if network.last is not None:
        yield _leaves("last_norm")
        yield _leaves("last")


def _leaves(ours: str, theirs: str = "", weight: str = "weight", bias: str = "bias") -> _Layer:
    return {f"{theirs}{weight}": f"{ours}.weight", f"{theirs}{bias}": f"{ours}.bias"}


def _block(network: NCSNpp, ours: str) -> _Layer:
    block = cast(ResidualBlock, network.get_submodule(ours))
    layer: _Layer = {}
    for theirs, name in _BLOCK.items():
        layer |= _leaves(f"{ours}.{name}", f"{theirs}.")
    if block.level is None:
        outputs = block.first.out_channels
        layer["Dense_0.weight"] = (outputs, 4 * network.first.out_channels)
        layer["Dense_0.bias"] = (outputs,)
    if block.shortcut is not None:
        if cast(Descent, network.down[0]).plan.resampling == "block":
            layer |= _leaves(f"{ours}.shortcut", "Conv_2.")
        else:
            layer |= _leaves(f"{ours}.shortcut", "NIN_0.", "W", "b")
    return layer


def _attention(ours: str) -> _Layer:
    layer = _leaves(f"{ours}.norm", "GroupNorm_0.")
    for theirs, name in _PROJECTIONS.items():
        layer |= _leaves(f"{ours}.{name}", f"{theirs}.", "W", "b")
    return layer


def _resampling(network: NCSNpp, ours: str) -> _Layer:
    module = network.get_submodule(ours)
    if isinstance(module, ResidualBlock):
        return _block(network, ours)
    if not isinstance(module, nn.Conv2d):
        return {}
    filtered = cast(Descent, network.down[0]).plan.kernel is not None
    return _leaves(ours, "Conv2d_0." if filtered else "Conv_0.")

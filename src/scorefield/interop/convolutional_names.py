"""The names and shapes of the weights of the minimal convolutional networks."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count, takewhile
from typing import Any

from torch import Tensor

from scorefield.interop.errors import InteropError
from scorefield.networks import MinimalResNet, MinimalUNet

Network = MinimalResNet | MinimalUNet

_CLASSES = "embedding.class_embeddings.weight"
_BLOCKS = {"down": "feature_blocks", "bottom": "bottleneck", "up": "output_blocks"}


def structure(state: Mapping[str, Tensor]) -> tuple[type[Network], dict[str, Any]]:
    """The class and arguments of a network by the shapes of its weights.

    Arguments:
        state: The weights in their names.

    Returns:
        The class of the network, and its arguments, with the channels of an image as ``images``.

    Raises:
        InteropError: If they do not fit such a network.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    kind = MinimalResNet if "up_projection.weight" in shapes else MinimalUNet
    try:
        settings = (_resnet if kind is MinimalResNet else _unet)(shapes)
    except (LookupError, ValueError) as error:
        raise InteropError("the weights do not fit a minimal network") from error
    if _CLASSES in shapes:
        # The published table has no row for the unconditional embedding.
        settings |= {"classes": shapes[_CLASSES][0], "unlabelled": False}
    return kind, settings


def _resnet(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    width, images, kernel, _ = shapes["up_projection.weight"]
    layers = _number(shapes, "convs.{}.0.weight")
    normalized = "down_projection.0.weight" in shapes
    last = shapes["down_projection.1.weight" if normalized else "down_projection.weight"]
    return {
        "images": images,
        "channels": width,
        "layers": layers,
        "normalization": "group" if normalized else None,
        "kernel_size": kernel,
        "last_kernel_size": last[2],
        "add_one": f"embs.{layers}.0.weight" in shapes,
    }


def _unet(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    levels = _number(shapes, "feature_blocks.{}.model.0.weight")
    blocks = [f"feature_blocks.{k}" for k in range(levels)] + ["bottleneck"]
    images, _, last, _ = shapes["output_conv.weight"]
    return {
        "images": images,
        "fsizes": tuple(shapes[f"{block}.model.0.weight"][0] for block in blocks),
        "normalization": "group" if "bottleneck.model.4.weight" in shapes else None,
        "embedding": shapes["bottleneck.emb.1.weight"][1],
        "kernel_size": shapes["bottleneck.model.0.weight"][2],
        "last_kernel_size": last,
        "last_norm": "last_normalizer.weight" in shapes,
    }


def _number(shapes: Mapping[str, tuple[int, ...]], name: str) -> int:
    return sum(1 for _ in takewhile(lambda k: name.format(k) in shapes, count()))


def pairs(network: Network) -> list[tuple[str, str]]:
    """The published name and ours of each weight of a network.

    Raises:
        InteropError: If the published code has no such network.
    """
    names = [name for name, _ in network.named_parameters()]
    if isinstance(network, MinimalResNet):
        layers, normalized = len(network.layers), "last_norm.weight" in names
        return [(_of_resnet(name, layers, normalized), name) for name in names]
    normalized = "bottom.first_norm.weight" in names
    if "last_norm.weight" in names and not normalized:
        raise InteropError("the published U-Nets have no last normalisation without the others")
    if not len(network.down):
        raise InteropError("the published U-Nets have at least two levels")
    return [(_of_unet(name, normalized), name) for name in names]


def _of_resnet(ours: str, layers: int, normalized: bool) -> str:
    match ours.split("."):
        case ["first", leaf]:
            return f"up_projection.{leaf}"
        case ["layers", layer, "level", place, leaf]:
            return f"embs.{layer}.{place}.{leaf}"
        case ["layers", layer, part, leaf]:
            return f"convs.{layer}.{int(part == 'norm')}.{leaf}"
        case ["last_level", place, leaf]:
            return f"embs.{layers}.{place}.{leaf}"
        case ["last_norm", leaf]:
            return f"down_projection.0.{leaf}"
        case ["last", leaf]:
            return f"down_projection.1.{leaf}" if normalized else f"down_projection.{leaf}"
        case _:
            return _CLASSES


def _of_unet(ours: str, normalized: bool) -> str:
    places = {
        "level": "emb.1",
        "first": "model.0",
        "first_norm": "model.1",
        "second": "model.3" if normalized else "model.2",
        "second_norm": "model.4",
    }
    match ours.split("."):
        case ["down" | "up" as side, level, part, leaf]:
            return f"{_BLOCKS[side]}.{level}.{places[part]}.{leaf}"
        case ["bottom", part, leaf]:
            return f"{_BLOCKS['bottom']}.{places[part]}.{leaf}"
        case ["enlarge", level, leaf]:
            return f"upsamples.{level}.{leaf}"
        case ["last_level", leaf]:
            return f"last_emb.1.{leaf}"
        case ["last_norm", leaf]:
            return f"last_normalizer.{leaf}"
        case ["last", leaf]:
            return f"output_conv.{leaf}"
        case _:
            return _CLASSES


def without_batch_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""The weights of a U-Net with its batch normalisations folded into its convolutions.

    In evaluation mode a normalisation is :math:`y = s\,(h - m) + b`, with
    :math:`s = g / \sqrt{v + 10^{-5}}` of its weight :math:`g` and the running variance :math:`v`.
    After a convolution it scales the kernels and shifts the bias. The last one is between the
    embedded label :math:`e` and a convolution, with zero padding in between: its scale multiplies
    the kernels, and its shift :math:`b / s - m` is added to :math:`e`.

    Arguments:
        state: The weights in the published names; unchanged without batch normalisations.

    Raises:
        InteropError: If a scale of the last normalisation is zero.
    """
    found = [name.removesuffix(".running_mean") for name in state if name.endswith("running_mean")]
    folded = {k: v for k, v in state.items() if not any(k.startswith(f"{n}.") for n in found)}
    try:
        for norm in found:
            _fold(folded, norm, *_affine(state, norm))
    except LookupError as error:
        raise InteropError(f"the state dict lacks {error} beside a batch normalisation") from error
    if not found:
        return folded
    # Without normalisations the second convolution has another index.
    return {name.replace(".model.3.", ".model.2."): weight for name, weight in folded.items()}


def _affine(state: Mapping[str, Tensor], norm: str) -> tuple[Tensor, Tensor, Tensor]:
    """Scale, mean and shift of a batch normalisation."""
    leaves = ("weight", "running_var", "running_mean", "bias")
    weight, variance, mean, bias = (state[f"{norm}.{leaf}"].double() for leaf in leaves)
    return weight / (variance + 1e-5).sqrt(), mean, bias


def _fold(state: dict[str, Tensor], norm: str, scale: Tensor, mean: Tensor, shift: Tensor) -> None:
    def put(name: str, value: Tensor) -> None:
        state[name] = value.to(state[name].dtype)

    if norm == "last_normalizer":
        if bool((scale == 0).any()):
            raise InteropError("a scale of last_normalizer is zero")
        put("output_conv.weight", state["output_conv.weight"].double() * scale[:, None, None])
        put("last_emb.1.bias", state["last_emb.1.bias"].double() + shift / scale - mean)
        return
    block, place = norm.rsplit(".", 1)
    before = f"{block}.{int(place) - 1}"
    put(f"{before}.weight", state[f"{before}.weight"].double() * scale[:, None, None, None])
    put(f"{before}.bias", (state[f"{before}.bias"].double() - mean) * scale + shift)

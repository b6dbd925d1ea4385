r"""The minimal convolutional networks of Kamb and Ganguli (2025): their weights as fields.

The networks predict the noise and take the time :math:`t \in [0, 1]` unscaled, under

.. math:: \sigma^2(t) = 1 - \cos^2\Big(\frac{\pi}{2}\,\frac{t}{1.008}\Big),
    \qquad \alpha^2 = 1 - \sigma^2.

The published files are whole modules, ``torch.save(model)``, which need their code and are not
read; a state dict of the network, or of the published sampler around it, is. Its shapes determine
everything but the padding and the size of images.

References:
    An analytic theory of creativity in convolutional diffusion models (Kamb and Ganguli, 2025).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from itertools import count, takewhile
from pathlib import Path
from typing import Any, get_args

import numpy.typing as npt
import torch
from torch import Tensor

from scorefield.fields.labels import TimeLabel
from scorefield.fields.parametrization import NoisePrediction
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.interop import unpickling
from scorefield.interop.errors import InteropError, compare
from scorefield.networks.minimal import MinimalResNet, MinimalUNet, Padding
from scorefield.sde.base import SDE
from scorefield.sde.preserving import Cosine

Network = MinimalResNet | MinimalUNet

PROCESS = Cosine(offset=0.0, margin=0.008, t_min=1e-3, t_max=1.0)
"""The process of the published networks, from their first training time above zero."""

_CLASSES = "embedding.class_embeddings.weight"
_BLOCKS = {"down": "feature_blocks", "bottom": "bottleneck", "up": "output_blocks"}


def load(
    path: Path | str,
    padding: Padding | None = None,
    size: int | tuple[int, int] = 32,
    sde: SDE = PROCESS,
) -> PreconditionedField:
    """The field of a file with a state dict, in evaluation mode.

    A field of conditional weights needs a class: the weights have no embedding for the
    unconditional score.

    Arguments:
        path: The file.
        padding: The padding of convolutions, ``zeros`` or ``circular`` (the published "mode"); by
            default from the name of the file.
        size: The height and the width of an image, or both in one number.
        sde: The process; the published default by default.

    Raises:
        InteropError: If the file cannot be used, or its name does not contain the padding; for a
            whole module, the message gives the command that extracts a state dict.
    """
    path = Path(path)
    state = read_state(path)
    around = padding_of(path) if padding is None else padding
    if around is None:
        raise InteropError(
            f"{path}: neither the weights nor the name of the file show what lies outside the "
            f"image: say whether the padding is {' or '.join(get_args(Padding))}"
        )
    try:
        network = build(state, around, size)
    except InteropError as error:
        raise InteropError(f"{path}: {error}") from None
    return field_of(network, sde).eval()


def read_state(path: Path) -> dict[str, Tensor]:
    """The weights of a file, in the published names; nothing in it is executed.

    Raises:
        InteropError: If it cannot be read, or contains something else.
    """
    state = unpickling.read_state(path, _extraction_command(path))
    return {_unprefixed(name): tensor for name, tensor in state.items()}


def padding_of(path: Path) -> Padding | None:
    """The padding in the name of a file, such as ``backbone_MNIST_ResNet_zeros.pt``; ``None`` if
    there is none.
    """
    said = [padding for padding in get_args(Padding) if padding in path.stem.split("_")]
    return said[0] if len(said) == 1 else None


def field_of(network: Network, sde: SDE = PROCESS) -> PreconditionedField:
    """The field of a network of :func:`build` under a process."""
    return PreconditionedField(network, sde, parametrization=NoisePrediction(TimeLabel(1.0)))


def build(
    state: Mapping[str, Tensor | npt.NDArray[Any]],
    padding: Padding,
    size: int | tuple[int, int] = 32,
) -> Network:
    """A network with the weights of a state dict, in their precision, in training mode.

    The published signature is ``network(t, x, label)``, ours ``network(x, t, classes)``. Batch
    normalisations are folded into the adjacent convolutions, as in evaluation mode.

    Arguments:
        state: The weights in the published names, with or without the prefix ``backbone.``.
        padding: The padding of convolutions, ``zeros`` or ``circular``.
        size: The height and the width of an image, or both in one number.

    Raises:
        InteropError: If the weights do not fit such a network, are not real numbers, one is
            missing, surplus or of another shape, or the images do not fit.
    """
    given = {_unprefixed(name): torch.as_tensor(weight) for name, weight in state.items()}
    given = without_batch_norms(given)
    kind, settings = structure(given)
    sides = (size, size) if isinstance(size, int) else size
    shape = (settings.pop("images"), *sides)
    try:
        network = kind(shape, padding=padding, **settings)
    except ValueError as error:
        raise InteropError(str(error)) from error
    named = pairs(network)
    ours = dict(network.named_parameters())
    compare({theirs: tuple(ours[name].shape) for theirs, name in named}, {}, given)
    dtype = reduce(torch.promote_types, (w.dtype for w in given.values()))
    if not dtype.is_floating_point:
        raise InteropError(f"the weights are {str(dtype).removeprefix('torch.')}, not real numbers")
    network.to(dtype)
    network.load_state_dict({name: given[theirs] for theirs, name in named})
    return network


def state_of(network: Network) -> dict[str, Tensor]:
    """Copies of the weights of a network in the published names.

    The published code has no unconditional embedding, which is omitted.

    Raises:
        InteropError: If the published code has no such network.
    """
    weights = dict(network.named_parameters())
    state = {theirs: weights[name].detach().clone() for theirs, name in pairs(network)}
    if network.classes is not None:
        vectors = "embedding.class_embeddings.weight"
        state[vectors] = state[vectors][: network.classes].clone()
    return state


def _unprefixed(name: str) -> str:
    """A name without the prefix of the sampler around the network."""
    return name.removeprefix("backbone.")


def _extraction_command(path: Path) -> str:
    """The command that extracts a state dict from a whole module, where its code is installed."""
    written = f"{path.stem}_state.pt"
    return (
        "a whole module, as torch.save(model) writes it, becomes a state dict where its code is, "
        f"by python -c \"import torch; model = torch.load({path.name!r}, map_location='cpu', "
        f'weights_only=False); torch.save(model.state_dict(), {written!r})"'
    )


def structure(state: Mapping[str, Tensor]) -> tuple[type[Network], dict[str, Any]]:
    """The class of a network and its arguments, with the channels of an image as ``images``, by the
    shapes of its weights in the published names.

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
    """The published name and ours of each weight of a network, if the published code has it."""
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
    the kernels, and its shift :math:`b / s - m` is added to :math:`e`, which needs a scale that is
    not zero.
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

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
from pathlib import Path
from typing import Any, get_args

import numpy.typing as npt
import torch
from torch import Tensor

from scorefield.fields import NoisePrediction, PreconditionedField, TimeLabel
from scorefield.interop import unpickling
from scorefield.interop.convolutional_names import Network, pairs, structure, without_batch_norms
from scorefield.interop.errors import ForeignCodeError, InteropError
from scorefield.interop.state import compare
from scorefield.networks.minimal import Padding
from scorefield.sde import SDE, Cosine

PROCESS = Cosine(offset=0.0, margin=0.008, t_min=1e-3, t_max=1.0)
"""The process of the published networks, from their first training time above zero."""


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

    Arguments:
        path: The file.

    Raises:
        InteropError: If it cannot be read, or contains something else.
    """
    try:
        content = unpickling.read(path)
    except ForeignCodeError as error:
        raise InteropError(f"{error}; {_extraction_command(path)}") from None
    if not isinstance(content, Mapping):
        raise InteropError(f"{path} holds a {type(content).__name__}, not a state dict")
    named = all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    if not content or not named:
        raise InteropError(f"{path} is not a state dict: it is not a dictionary of named tensors")
    return {_unprefixed(name): tensor.detach() for name, tensor in content.items()}


def padding_of(path: Path) -> Padding | None:
    """The padding in the name of a file, such as ``backbone_MNIST_ResNet_zeros.pt``; ``None`` if
    there is none.
    """
    said = [padding for padding in get_args(Padding) if padding in path.stem.split("_")]
    return said[0] if len(said) == 1 else None


def field_of(network: Network, sde: SDE = PROCESS) -> PreconditionedField:
    """The field of a network.

    Arguments:
        network: A network of :func:`build`.
        sde: The process.
    """
    return PreconditionedField(network, sde, parametrization=NoisePrediction(TimeLabel(1.0)))


def build(
    state: Mapping[str, Tensor | npt.NDArray[Any]],
    padding: Padding,
    size: int | tuple[int, int] = 32,
) -> Network:
    """A network with the weights of a state dict, in their precision.

    The published signature is ``network(t, x, label)``, ours ``network(x, t, classes)``. Batch
    normalisations are folded into the adjacent convolutions, as in evaluation mode.

    Arguments:
        state: The weights in the published names, with or without the prefix ``backbone.``.
        padding: The padding of convolutions, ``zeros`` or ``circular``.
        size: The height and the width of an image, or both in one number.

    Returns:
        The network, in training mode.

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
    """The weights of a network in the published names, as read by :func:`build` and their code.

    The published code has no unconditional embedding, which is omitted.

    Arguments:
        network: The network.

    Returns:
        Copies of the weights.

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
    """The name of a weight without the prefix of the sampler around its network."""
    return name.removeprefix("backbone.")


def _extraction_command(path: Path) -> str:
    """The command that extracts a state dict from a whole module, where its code is installed."""
    written = f"{path.stem}_state.pt"
    return (
        "a whole module, as torch.save(model) writes it, becomes a state dict where its code is, "
        f"by python -c \"import torch; model = torch.load({path.name!r}, map_location='cpu', "
        f'weights_only=False); torch.save(model.state_dict(), {written!r})"'
    )

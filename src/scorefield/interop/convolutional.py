r"""The minimal convolutional networks of Kamb and Ganguli (2025): their weights as fields.

Their networks predict the noise and are told the time :math:`t \in [0, 1]` as it is, under

.. math:: \sigma^2(t) = 1 - \cos^2\Big(\frac{\pi}{2}\,\frac{t}{1.008}\Big),
    \qquad \alpha^2 = 1 - \sigma^2.

What is published are whole modules, ``torch.save(model)``, which only run with their code, and so
are not read; a state dict is, of the network or of their sampler around it. Its shapes show
everything but what lies outside the image, and how large images are.

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
from scorefield.networks.minimal_parts import Padding
from scorefield.sde import SDE, Cosine

PROCESS = Cosine(offset=0.0, margin=0.008, t_min=1e-3, t_max=1.0)
"""The process of their networks, from the first time above zero that they are trained at."""


def load(
    path: Path | str,
    padding: Padding | None = None,
    size: int | tuple[int, int] = 32,
    sde: SDE = PROCESS,
) -> PreconditionedField:
    """The field of a file with a state dict, in evaluation mode.

    A field of conditional weights knows classes and has to be given some: there is no vector for
    no class.

    Arguments:
        path: The file.
        padding: What lies outside the image, ``zeros`` or ``circular``, which they call the mode;
            by default what the file is called after.
        size: The height and the width of an image, or both in one number.
        sde: The process, if it is not that of their default.

    Raises:
        InteropError: If the file cannot be used, or its name does not say the padding; of a whole
            module, says how its code turns it into a state dict.
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
    """The weights of a file, in their names; nothing in it is executed.

    Arguments:
        path: The file.

    Raises:
        InteropError: If it cannot be read, or holds something else.
    """
    try:
        content = unpickling.read(path)
    except ForeignCodeError as error:
        raise InteropError(f"{error}; {_recipe(path)}") from None
    if not isinstance(content, Mapping):
        raise InteropError(f"{path} holds a {type(content).__name__}, not a state dict")
    named = all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    if not content or not named:
        raise InteropError(f"{path} is no state dict: it is not a dictionary of named tensors")
    return {_unprefixed(name): tensor.detach() for name, tensor in content.items()}


def padding_of(path: Path) -> Padding | None:
    """What lies outside the image by the name of a file, such as
    ``backbone_MNIST_ResNet_zeros.pt``; ``None`` where it does not say.
    """
    said = [padding for padding in get_args(Padding) if padding in path.stem.split("_")]
    return said[0] if len(said) == 1 else None


def field_of(network: Network, sde: SDE = PROCESS) -> PreconditionedField:
    """A network as the field that it was trained to be.

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

    Theirs is called as ``network(t, x, label)``, ours as ``network(x, t, classes)``. Batch
    normalisations become part of the convolutions before them, as they act in evaluation mode.

    Arguments:
        state: The weights in their names, which may all begin with ``backbone.``.
        padding: What lies outside the image.
        size: The height and the width of an image, or both in one number.

    Returns:
        The network, in training mode as any new one.

    Raises:
        InteropError: If the weights are those of no such network, are no real numbers, one is
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
    """The weights of a network in their names: what :func:`build` and their code read.

    Their code has no vector for no class, which is left out.

    Arguments:
        network: The network.

    Returns:
        Copies of the weights.

    Raises:
        InteropError: If their code has no such network.
    """
    weights = dict(network.named_parameters())
    state = {theirs: weights[name].detach().clone() for theirs, name in pairs(network)}
    if network.classes is not None:
        vectors = "embedding.class_embeddings.weight"
        state[vectors] = state[vectors][: network.classes].clone()
    return state


def _unprefixed(name: str) -> str:
    """The name of a weight in the network, of which it is one in the sampler around it."""
    return name.removeprefix("backbone.")


def _recipe(path: Path) -> str:
    """How a whole module becomes a state dict, where the code of the module is."""
    written = f"{path.stem}_state.pt"
    return (
        "a whole module, as torch.save(model) writes it, becomes a state dict where its code is, "
        f"by python -c \"import torch; model = torch.load({path.name!r}, map_location='cpu', "
        f'weights_only=False); torch.save(model.state_dict(), {written!r})"'
    )

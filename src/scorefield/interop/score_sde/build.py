"""Networks from the configurations and weights of the score_sde code, and back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scorefield.interop.errors import InteropError, compare
from scorefield.interop.score_sde.configurations import value
from scorefield.interop.score_sde.refinenet_names import build_refinenet
from scorefield.interop.score_sde.unet_names import MODELS, Pairs, build_unet, names

_PREFIX = "module."
_TABLE = "sigmas"


def build(
    config: Mapping[str, Any],
    state: Mapping[str, Tensor | NDArray[Any]] | None = None,
    seed: int = 0,
) -> nn.Module:
    """A network from a configuration, with weights from a state dict, in training mode.

    The signature is the published one, ``network(x, labels)``.

    Arguments:
        config: A configuration in the original keys, with the sections ``model``, ``data`` and
            ``training``. ``model.name`` is one of ncsnpp, ddpm, ncsn, ncsnv2, ncsnv2_64,
            ncsnv2_128 and ncsnv2_256; for the first two, a key that is missing has the value
            of their defaults for CIFAR-10.
        state: The weights in the published names, with or without the prefix ``module.``; the
            network has their precision. Their table of noise levels is compared with that of the
            configuration, and weights without effect are left out.
        seed: The seed of the weights, without ``state``.

    Raises:
        InteropError: If the configuration is incomplete, or a weight is missing, surplus or of
            another shape.
        ValueError: If the configuration's values do not fit each other.
    """
    network, pairs, unused = _built(config, seed)
    if state is None:
        return network
    given = _unprefixed(state)
    _compare_table(config, given.pop(_TABLE, None))
    ours = dict(network.named_parameters())
    shapes = {theirs: _their_shape(theirs, ours[name]) for theirs, name in pairs}
    compare(shapes, unused, given)
    weights = {name: _turned(theirs, given[theirs], ours[name]) for theirs, name in pairs}
    network.to(reduce(torch.promote_types, (w.dtype for w in weights.values())))
    network.load_state_dict(weights)
    return network


def state_of(network: nn.Module, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Copies of the weights of a network of :func:`build` in the published names, with zeros for
    published weights without effect, and the published table of noise levels.

    Raises:
        InteropError: If the network does not have the weights of the configuration.
    """
    with torch.device("meta"):
        likeness, pairs, unused = _built(config, 0)
    ours = {name: weight.detach() for name, weight in network.named_parameters()}
    shapes = {name: tuple(weight.shape) for name, weight in likeness.named_parameters()}
    compare(shapes, {}, ours)
    state = {theirs: _their_form(theirs, ours[name]).clone() for theirs, name in pairs}
    state |= {theirs: torch.zeros(shape) for theirs, shape in unused.items()}
    # The first version has no table: the loss divides by the noise level.
    return state if value(config, "model.name") == "ncsn" else state | {_TABLE: _table(config)}


def _built(
    config: Mapping[str, Any], seed: int
) -> tuple[nn.Module, Pairs, dict[str, tuple[int, ...]]]:
    """The network, its pairs of names, and the shapes of published weights without effect."""
    if value(config, "model.name") in MODELS:
        network = build_unet(config, seed)
        return network, *names(network)
    return *build_refinenet(config, seed), {}


def _unprefixed(state: Mapping[str, Tensor | NDArray[Any]]) -> dict[str, Tensor]:
    prefixed = bool(state) and all(name.startswith(_PREFIX) for name in state)
    start = len(_PREFIX) if prefixed else 0
    return {name[start:]: torch.as_tensor(weight) for name, weight in state.items()}


def _table(config: Mapping[str, Any]) -> Tensor:
    low = float(value(config, "model.sigma_min", 0.01))
    high = float(value(config, "model.sigma_max", 50.0))
    levels = int(value(config, "model.num_scales", 1000))
    return torch.tensor(np.exp(np.linspace(np.log(high), np.log(low), levels)))


def _compare_table(config: Mapping[str, Any], given: Tensor | None) -> None:
    if given is None:
        return
    table = _table(config)
    if given.shape != table.shape or not torch.allclose(given.double(), table, 1e-5, 0):
        raise InteropError(
            f"{_TABLE} in the state dict is another table than that of model.sigma_max, "
            f"model.sigma_min and model.num_scales, {len(table)} levels from {float(table[0]):g} "
            f"to {float(table[-1]):g}"
        )


def _is_turned(theirs: str, weight: Tensor) -> bool:
    return theirs.endswith(".W") and weight.dim() > 1


def _their_shape(theirs: str, ours: Tensor) -> tuple[int, ...]:
    return tuple(ours.shape[:2][::-1] if _is_turned(theirs, ours) else ours.shape)


def _their_form(theirs: str, ours: Tensor) -> Tensor:
    return ours.flatten(1).T if _is_turned(theirs, ours) else ours


def _turned(theirs: str, weight: Tensor, ours: Tensor) -> Tensor:
    return weight.T.reshape(ours.shape) if _is_turned(theirs, ours) else weight

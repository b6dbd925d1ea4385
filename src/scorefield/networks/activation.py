"""The nonlinearities of the networks, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from scorefield.errors import UserError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "relu": nn.ReLU,
    "lrelu": lambda: nn.LeakyReLU(0.2),
    "swish": nn.SiLU,
}
"""What each name stands for; a leaky ReLU has slope 0.2 below zero."""


def activation(name: str) -> nn.Module:
    """The nonlinearity of a name.

    Raises:
        ValueError: If there is none.
    """
    if name not in ACTIVATIONS:
        raise UserError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]()

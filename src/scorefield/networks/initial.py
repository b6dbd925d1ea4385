r"""Initial weights as a function of a seed.

A network draws its weights at addresses of :class:`~scorefield.noise.Noise`, one purpose a
tensor: the same constructor call gives the same network, whatever was drawn before it, and
adding a layer leaves the others as they were.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scorefield.noise import Noise


@torch.no_grad()
def initialize(network: nn.Module, seed: int) -> None:
    r"""Draws the weights of every linear map and convolution of a network.

    With :math:`n` the number of inputs that an output sums over, weights are uniform with
    variance :math:`1/n`, so that inputs of unit variance give outputs of unit variance, and
    biases are uniform on :math:`\pm 1/\sqrt{n}`. Normalisations keep scale one and shift zero.

    Arguments:
        network: The network, changed in place.
        seed: The seed of the weights.

    Raises:
        TypeError: If a parameter belongs to another kind of layer.

    References:
        Efficient backprop (LeCun, Bottou, Orr and Müller, 1998), equation 16.
    """
    noise = Noise(seed)
    for name, layer in network.named_modules():
        parameters = dict(layer.named_parameters(recurse=False))
        if not parameters or isinstance(layer, nn.GroupNorm):
            continue
        bound = 1 / math.sqrt(_inputs(layer, name))
        for key, parameter in parameters.items():
            gain = math.sqrt(3.0) if key == "weight" else 1.0
            parameter.copy_(_uniform(noise, f"weights/{name}.{key}", parameter, gain * bound))


def _inputs(layer: nn.Module, name: str) -> int:
    """How many inputs an output of the layer sums over."""
    match layer:
        case nn.Linear() | nn.Conv2d():
            return math.prod(layer.weight.shape[1:])
        case nn.ConvTranspose2d() if layer.stride == layer.kernel_size:
            return layer.in_channels
    raise TypeError(f"no initial law is known for the {type(layer).__name__} {name!r}")


def _uniform(noise: Noise, purpose: str, like: Tensor, bound: float) -> Tensor:
    draws = noise.uniform(purpose, tuple(like.shape), torch.arange(1), dtype=torch.float64)
    return (2 * draws[0] - 1) * bound

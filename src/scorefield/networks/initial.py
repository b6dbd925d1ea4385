r"""Initial weights as a function of a seed.

A network draws its weights at addresses of :class:`~.Noise`, one purpose a
tensor: the same constructor call gives the same network, whatever was drawn before it, and
adding a layer leaves the others as they were.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scorefield.errors import UnsupportedError
from scorefield.noise import Noise


@torch.no_grad()
def initialize(network: nn.Module, seed: int) -> None:
    r"""Draws the weights of every linear map, convolution and table of a network.

    With :math:`n` the number of inputs that an output sums over, weights are uniform with
    variance :math:`1/n`, so that inputs of unit variance give outputs of unit variance, and
    biases are uniform on :math:`\pm 1/\sqrt{n}`. Normalisations keep scale one and shift zero.
    The channels of images come last in memory from then on: convolutions are faster so.

    Arguments:
        network: The network, changed in place; on the device ``meta`` nothing is drawn.
        seed: The seed of the weights.

    Raises:
        TypeError: If a parameter belongs to another kind of layer.

    References:
        Efficient backprop (LeCun, Bottou, Orr and Müller, 1998), equation 16.
    """
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    noise = Noise(seed)
    for name, layer in network.named_modules():
        parameters = dict(layer.named_parameters(recurse=False))
        if not parameters or isinstance(layer, nn.GroupNorm):
            continue
        bound = 1 / math.sqrt(_inputs(layer, name))
        for key, parameter in parameters.items():
            if parameter.is_meta:
                continue
            gain = math.sqrt(3.0) if key == "weight" else 1.0
            parameter.copy_(_uniform(noise, f"weights/{name}.{key}", parameter, gain * bound))


def _inputs(layer: nn.Module, name: str) -> int:
    """The number of inputs that an output of the layer sums over."""
    match layer:
        case nn.Linear() | nn.Conv2d():
            return math.prod(layer.weight.shape[1:])
        case nn.Embedding():
            return 1
        case nn.ConvTranspose2d() if layer.stride == layer.kernel_size:
            return layer.in_channels
    raise UnsupportedError(
        f"no initial distribution is known for the {type(layer).__name__} {name!r}"
    )


def _uniform(noise: Noise, purpose: str, like: Tensor, bound: float) -> Tensor:
    draws = noise.uniform(
        purpose, tuple(like.shape), torch.arange(1, device="cpu"), dtype=torch.float64
    )
    return (2 * draws[0] - 1) * bound


@torch.no_grad()
def initialize_average(network: nn.Module, seed: int, scales: Mapping[nn.Module, float]) -> None:
    r"""Draw the weights of a large network from the distribution of the score networks.

    With :math:`n` inputs that an output sums over, and :math:`m` outputs that an input is added
    to, weights are uniform with variance :math:`2 s / (n + m)`; biases are zero, and
    normalisations keep scale one and shift zero.

    A tensor has a generator of PyTorch of its own, seeded by ``seed`` and its name: a
    counter-based generator takes ten times as long, a matter of seconds for a hundred million
    weights.

    ``scales`` has the scale :math:`s` of the layers where it is not 1; zero stands for
    :math:`10^{-10}`, so that gradients reach the layers before. On the device ``meta`` nothing is
    drawn.

    References:
        Understanding the difficulty of training deep feedforward neural networks (Glorot and
        Bengio, 2010), equation 16.
    """
    for name, layer in network.named_modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d) or layer.weight.is_meta:
            continue
        outputs, inputs, *taps = layer.weight.shape
        scale = scales.get(layer, 1.0) or 1e-10
        bound = math.sqrt(6 * scale / ((inputs + outputs) * math.prod(taps)))
        draws = torch.empty(layer.weight.shape, device="cpu")
        layer.weight.copy_(draws.uniform_(-bound, bound, generator=_generator(seed, name)))
        if layer.bias is not None:
            layer.bias.zero_()


@torch.no_grad()
def normal_(parameter: Tensor, seed: int, name: str, deviation: float = 1.0) -> None:
    """Draw a parameter from the normal distribution, by its own generator as above."""
    if not parameter.is_meta:
        draws = torch.empty(parameter.shape, device="cpu")
        parameter.copy_(draws.normal_(0, deviation, generator=_generator(seed, name)))


@torch.no_grad()
def uniform_(parameter: Tensor, seed: int, name: str, bound: float) -> None:
    """Draw a parameter from the uniform distribution on ±bound, by its own generator as above."""
    if not parameter.is_meta:
        draws = torch.empty(parameter.shape, device="cpu")
        parameter.copy_(draws.uniform_(-bound, bound, generator=_generator(seed, name)))


def _generator(seed: int, name: str) -> torch.Generator:
    key = hashlib.blake2b(f"{seed}/weights/{name}".encode(), digest_size=8).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(key, "little", signed=True))

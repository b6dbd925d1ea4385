r"""Tables of noise levels, and the labels that point into them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.networks.checks import inspect


@dataclass(frozen=True)
class NoiseTable:
    r"""Noise levels in geometric progression, the greatest first:
    :math:`\sigma_i = \sigma_{max} (\sigma_{min} / \sigma_{max})^{i / (N - 1)}`.

    A level is computed where it is used, in float64, so that neither storing nor casting a
    network rounds it.

    Raises:
        ValueError: Unless ``0 < sigma_min < sigma_max`` and ``levels >= 2``.

    References:
        Generative modeling by estimating gradients of the data distribution (Song and Ermon,
        2019), section 4.1.
    """

    sigma_min: float
    sigma_max: float
    levels: int

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise UserError(
                "0 < sigma_min < sigma_max must hold, got "
                f"sigma_min={self.sigma_min}, sigma_max={self.sigma_max}"
            )
        if self.levels < 2:
            raise UserError(f"levels must be at least 2, got {self.levels}")

    def at(self, index: Tensor, like: Tensor) -> Tensor:
        """The levels at :func:`places` in the table, in the dtype of a tensor against whose rows
        they broadcast.
        """
        # Apple's GPUs have no float64.
        precise = torch.float32 if index.device.type == "mps" else torch.float64
        fraction = index.to(precise) / (self.levels - 1)
        log_max, log_min = math.log(self.sigma_max), math.log(self.sigma_min)
        sigma = torch.exp(
            torch.lerp(fraction.new_tensor(log_max), fraction.new_tensor(log_min), fraction)
        )
        return sigma.to(like.dtype).view(-1, *[1] * (like.dim() - 1))


def places(label: Tensor, levels: int, batch: int) -> Tensor:
    """Labels of any dtype as places in a table, in int64.

    Raises:
        ValueError: If there are not ``batch`` of them, or one is no whole number below ``levels``.
    """
    if label.shape != (batch,):
        raise UserError(f"label must have the shape ({batch},), got {tuple(label.shape)}")

    def check(numbers: Tensor) -> None:
        wrong = (numbers != numbers.to(torch.int64)) | (numbers < 0) | (numbers >= levels)
        if bool(wrong.any()):
            raise UserError(
                f"label must hold whole numbers from 0 to {levels - 1}, got {numbers[wrong][0]:g}"
            )

    inspect(label, check)
    return label.to(torch.int64)

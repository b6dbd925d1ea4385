r"""Noise labels: the encodings of the noise level in the input of a network."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.sde import SDE
from scorefield.sde.tables import check_levels


@dataclass(frozen=True)
class Label(ABC):
    """What a network sees in place of the time."""

    @abstractmethod
    def __call__(self, t: Tensor, sde: SDE) -> Tensor:
        """The labels of times, elementwise."""


@dataclass(frozen=True)
class LogNoiseLabel(Label):
    r"""The logarithm of the noise level, :math:`\frac14 \ln(\sigma / \alpha)`.

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        table 1, :math:`c_{noise}` of column "Ours".
    """

    def __call__(self, t: Tensor, sde: SDE) -> Tensor:
        return sde.noise_level(t).log() / 4


LOG_NOISE = LogNoiseLabel()
"""The label of fields that are not told another."""


@dataclass(frozen=True)
class SigmaLabel(Label):
    r"""The standard deviation :math:`\sigma(t)` itself."""

    def __call__(self, t: Tensor, sde: SDE) -> Tensor:
        return sde.sigma(t)


@dataclass(frozen=True)
class TimeLabel(Label):
    r"""The time times a constant, :math:`c\,t`.

    Arguments:
        scale: The constant :math:`c`; 999 spreads :math:`[0, 1]` over the steps of a process of
            a thousand.

    Raises:
        ValueError: If it is not positive.
    """

    scale: float | int = 999.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise UserError(f"TimeLabel: scale must be positive, got {self.scale}")

    def __call__(self, t: Tensor, sde: SDE) -> Tensor:
        return self.scale * t


@dataclass(frozen=True)
class IndexLabel(Label):
    r"""The place :math:`\mathrm{round}((t_{max} - t)(N - 1))` in a table of :math:`N` noise levels
    in descending order: 0 is the greatest.

    Arguments:
        levels: The length :math:`N` of the table.

    Raises:
        ValueError: If it is below 2.
    """

    levels: int

    def __post_init__(self) -> None:
        check_levels(self.levels)

    def __call__(self, t: Tensor, sde: SDE) -> Tensor:
        return torch.round((sde.t_max - t) * (self.levels - 1))

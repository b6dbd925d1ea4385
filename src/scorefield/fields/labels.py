"""How a network is given the noise level."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.checks import check_positive
from scorefield.sde.base import SDE
from scorefield.sde.tables import check_levels


@dataclass(frozen=True)
class Label(ABC):
    """The encoding of the noise level that a network receives in place of the time."""

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
"""The default label."""


@dataclass(frozen=True)
class SigmaLabel(Label):
    r"""The standard deviation :math:`\sigma(t)` itself."""

    def __call__(self, t: Tensor, sde: SDE) -> Tensor:
        return sde.sigma(t)


@dataclass(frozen=True)
class TimeLabel(Label):
    r"""The time multiplied by a constant, :math:`c\,t`.

    Arguments:
        scale: The constant :math:`c`; 999 maps :math:`[0, 1]` onto the indices of a thousand steps.

    Raises:
        ValueError: If it is not positive.
    """

    scale: float | int = 999.0

    def __post_init__(self) -> None:
        check_positive("TimeLabel: scale", self.scale)

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


@dataclass(frozen=True)
class ReversedTimeLabel(Label):
    """The time counted from the noise, :math:`1 - t`, for networks whose data are at time 1."""

    def __call__(self, t: Tensor, sde: SDE) -> Tensor:
        return 1 - t

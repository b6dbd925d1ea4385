r"""The steps of DDPM as a process, whatever their table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from scorefield.sde.base import PriorMean, check_range, check_start
from scorefield.sde.preserving import Preserving
from scorefield.sde.tables import Betas, beta_table, level_index

# In single precision, x / alpha of a greater level says nothing of the data.
_GREATEST = 1e5


@dataclass(frozen=True)
class DiscreteVP(Preserving):
    r"""The process of the :math:`N` steps of DDPM, continued between them.

    At the times :math:`t_i = i / (N - 1)` the coefficients are those of the steps,

    .. math:: \alpha(t_i)^2 = \bar\alpha_i = \prod_{j \le i} (1 - \beta_j), \qquad
        \sigma(t_i)^2 = 1 - \bar\alpha_i,

    and between them the angle :math:`\varphi` with :math:`\alpha = \cos\varphi` and
    :math:`\sigma = \sin\varphi` is linear in time. At time 0 the first step is done. It gives
    networks trained on the steps a continuous process, with equations, densities and transitions
    between any two times. Coefficients are computed in float64.

    A table may end with :math:`\beta_{N-1} = 1`, zero terminal SNR: then :math:`\alpha(1) = 0`, and
    :attr:`t_max` is the time of the noise level :math:`10^5`, where training and sampling begin.
    Fields can be evaluated up to time 1; what divides by :math:`\alpha` is infinite there.

    Arguments:
        beta_min: The rate of the first step, times :math:`N`.
        beta_max: The rate of the last step, times :math:`N`.
        levels: The number :math:`N` of steps; of a table, its length.
        betas: The name of a table, see :func:`~.beta_table`, or :math:`\beta_0, \dots,
            \beta_{N-1}` themselves. The rates are those of ``linear`` and ``scaled_linear``.

    Attributes:
        t_max: 1, or the time of the noise level :math:`10^5` if that is earlier.

    Raises:
        ValueError: Unless ``0 < beta_min < beta_max < levels`` and ``0 <= t_min < 1``; if there is
            no such table; or for a table that has fewer than 2 numbers, or one that is not in
            :math:`(0, 1)`, but for a last one of 1.

    References:
        Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), equation 4.

        Score-based generative modeling through stochastic differential equations (Song et al.,
        2021), appendix C.

        Common diffusion noise schedules and sample steps are flawed (Lin, Liu, Li and Yang, 2024),
        section 3.1, for zero terminal SNR.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    prior_mean: PriorMean = 0.0
    t_min: float = 0.0
    t_max: float = field(default=1.0, init=False)
    levels: int = 1000
    betas: Betas | Sequence[float] | Tensor = "linear"

    def __post_init__(self) -> None:
        check_range(self, "beta_min", "beta_max")
        check_start(self)
        table = self.table
        if not isinstance(self.betas, str):
            object.__setattr__(self, "betas", tuple(table.tolist()))
            object.__setattr__(self, "levels", len(table))
        last = float(self.time(torch.tensor(_GREATEST, dtype=torch.float64, device="cpu")))
        object.__setattr__(self, "t_max", min(1.0, last))

    @property
    def table(self) -> Tensor:
        r"""The variances :math:`\beta_0, \dots, \beta_{N-1}` that the steps add, in float64."""
        return beta_table(self.betas, self.beta_min, self.beta_max, self.levels)

    def alpha(self, t: Tensor) -> Tensor:
        # The sine of the complement: the cosine is not zero at the nearest number to pi / 2.
        return torch.sin(0.5 * math.pi - self._angle(t)).to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(self._angle(t)).to(t.dtype)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return (-self._speed(t) * torch.sin(self._angle(t))).to(t.dtype)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return (self._speed(t) * torch.sin(0.5 * math.pi - self._angle(t))).to(t.dtype)

    def time(self, noise_level: Tensor) -> Tensor:
        angle, table = torch.atan(noise_level.double()), _angles(self, noise_level.device)
        # A time just before the first level belongs to the first.
        place = torch.searchsorted(table, angle.detach().contiguous(), right=True) - 1
        place = place.clamp(0, self.levels - 2)
        rest = (angle - table[place]) / (table[place + 1] - table[place])
        return ((place + rest) / (self.levels - 1)).to(noise_level.dtype)

    def _angle(self, t: Tensor) -> Tensor:
        place, table = self._place(t), _angles(self, t.device)
        rest = t.double() * (self.levels - 1) - place
        return table[place] + rest * (table[place + 1] - table[place])

    def _speed(self, t: Tensor) -> Tensor:
        place, table = self._place(t), _angles(self, t.device)
        return (table[place + 1] - table[place]) * (self.levels - 1)

    def _place(self, t: Tensor) -> Tensor:
        """The index of the step before each time."""
        return level_index(t, self.levels).clamp(max=self.levels - 2)


@lru_cache(maxsize=32)
def _angles(sde: DiscreteVP, device: torch.device) -> Tensor:
    # The first call may be in inference mode, the next may need a gradient.
    with torch.inference_mode(False):
        left = torch.log1p(-sde.table).cumsum(dim=0)
        return torch.atan2((-torch.expm1(left)).sqrt(), (0.5 * left).exp()).to(device)

r"""Straight paths between data and noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.sde.base import SDE, PriorMean, check_range


@dataclass(frozen=True)
class RectifiedFlow(SDE):
    r"""The linear interpolant: :math:`x_t = (1 - t)\,x_0 + t\,\varepsilon`.

    The velocity of its probability flow, :math:`\mathbb{E}[\varepsilon - x_0 \mid x_t]`, is what
    flow matching regresses on. At time 1, :math:`\alpha = 0`: the score is :math:`-x` there and
    the velocity is defined, but the drift :math:`-1 / (1 - t)`, the noise level :math:`t / (1 - t)`
    and what else divides by :math:`\alpha` are infinite. Training and sampling therefore begin at
    ``t_max`` before it; fields that predict no noise can be evaluated at time 1 itself.

    Arguments:
        t_min: The first time of training and sampling, a noise level of nearly ``t_min``.
        t_max: The last, a noise level of nearly ``1 / (1 - t_max)``.

    Raises:
        ValueError: Unless ``0 < t_min < t_max < 1``.

    References:
        Flow matching for generative modeling (Lipman, Chen, Ben-Hamu, Nickel and Le, 2023),
        equation 20, with time reversed.

        Flow straight and fast: learning to generate and transfer data with rectified flow (Liu,
        Gong and Liu, 2023), equation 1, with time reversed.
    """

    prior_mean: PriorMean = 0.0
    t_min: float = 1e-3
    t_max: float = 0.999

    def __post_init__(self) -> None:
        check_range(self, "t_min", "t_max")
        if not self.t_max < 1:
            raise UserError(f"RectifiedFlow: t_max must be below 1, got {self.t_max:g}")

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def time(self, noise_level: Tensor) -> Tensor:
        # At an infinite level too.
        return 1 / (1 + 1 / noise_level)

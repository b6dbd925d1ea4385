r"""Karras' grid of noise levels, and what a sampler needs to know at each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.sde import SDE


class Levels(NamedTuple):
    r"""Noise levels with their times and mean coefficients, worked out in float64.

    Arguments:
        sigma: The noise levels :math:`\lambda = \sigma / \alpha`, in units of the data.
        alpha: The mean coefficients :math:`\alpha` there.
        time: The times, as tensors without dimensions in the dtype and on the device of the state.
    """

    sigma: Sequence[float]
    alpha: Sequence[float]
    time: Sequence[Tensor]


def karras_levels(sde: SDE, steps: int, rho: float = 7.0) -> Float[Tensor, " levels"]:
    r"""The noise levels that a sampler visits, in float64.

    .. math:: \lambda_i = \Big(\lambda_{max}^{1/\rho} + \tfrac{i}{N - 1}
        \big(\lambda_{min}^{1/\rho} - \lambda_{max}^{1/\rho}\big)\Big)^{\rho}
        \quad (i < N), \qquad \lambda_N = 0,

    where :math:`\lambda_{max}` and :math:`\lambda_{min}` are the noise levels of the process at
    ``t_max`` and at ``t_min``.

    Arguments:
        sde: The forward process.
        steps: The number :math:`N` of intervals; for 1 the grid is
            :math:`\lambda_{max}, 0`.
        rho: The exponent :math:`\rho`: 1 is uniform, larger is denser at low noise.

    Returns:
        The levels in descending order, float64, of shape ``(steps + 1,)``.

    Raises:
        ValueError: Unless ``steps`` is a positive integer and ``rho`` a positive number.

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        equation 5.
    """
    check_steps(steps)
    if not (math.isfinite(rho) and rho > 0):
        raise ValueError(f"the exponent rho of a noise grid must be positive, got {rho}")
    top, bottom = sde.sigma_max, sde.sigma_min
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    levels = (top ** (1 / rho) + ramp * (bottom ** (1 / rho) - top ** (1 / rho))) ** rho
    # The power does not give the end points back to the last bit.
    levels[-1] = bottom
    levels[0] = top
    return torch.cat((levels, levels.new_zeros(1)))


def at_levels(sigma: Float[Tensor, " levels"], sde: SDE, x: Tensor) -> Levels:
    """Times and mean coefficients at positive noise levels, for states like ``x``."""
    time = sde.time(sigma)
    state_time = time.to(dtype=x.dtype, device=x.device)
    return Levels(sigma.tolist(), sde.alpha(time).tolist(), state_time.unbind())


def check_steps(steps: int) -> None:
    """Raises ``ValueError`` unless the number of steps is a positive integer."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"a sampler takes a positive integer number of steps, got {steps!r}")

r"""Grids of times and noise levels."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.checks import check_count, check_positive
from scorefield.errors import UserError
from scorefield.sde.base import SDE

Spacing = Literal["karras", "time", "logsnr"]
r"""What is evenly spaced on a grid: :math:`\lambda^{1/\rho}`, the time, or
:math:`\ln\lambda`."""


def karras_levels(sde: SDE, steps: int, rho: float = 7.0) -> Float[Tensor, " levels"]:
    r"""The ``steps + 1`` noise levels that a sampler visits, descending, in float64.

    .. math:: \lambda_i = \Big(\lambda_{max}^{1/\rho} + \tfrac{i}{N - 1}
        \big(\lambda_{min}^{1/\rho} - \lambda_{max}^{1/\rho}\big)\Big)^{\rho}
        \quad (i < N), \qquad \lambda_N = 0,

    where :math:`\lambda_{max}` and :math:`\lambda_{min}` are the noise levels of the process at
    ``t_max`` and at ``t_min``.

    Arguments:
        sde: The forward process.
        steps: The number :math:`N` of intervals; for 1 the grid is :math:`\lambda_{max}, 0`.
        rho: The exponent :math:`\rho`: 1 is uniform, larger is denser at low noise.

    Raises:
        ValueError: Unless ``steps`` is a positive integer and ``rho`` a positive number.

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        equation 5.
    """
    check_steps(steps)
    check_rho(rho)
    bottom, top = sde.level_range
    levels = _karras(top, bottom, steps, rho)
    return torch.cat((levels, levels.new_zeros(1)))


def grid_times(
    sde: SDE,
    steps: int,
    spacing: Spacing = "karras",
    t_end: float | None = None,
    rho: float = 7.0,
) -> Float[Tensor, " steps"]:
    r"""The ``steps`` times that a sampler visits before the clean data, descending, in float64.

    Arguments:
        sde: The forward process.
        steps: The number of times, from ``t_max`` to ``t_end``; for 1 the grid is ``t_max``.
        spacing: What is evenly spaced: ``"karras"`` (:math:`\lambda^{1/\rho}`), ``"time"``, or
            ``"logsnr"`` (the logarithm of the noise level :math:`\lambda`).
        t_end: The last time; ``t_min`` by default.
        rho: The exponent :math:`\rho` of Karras' spacing.

    Raises:
        ValueError: Unless ``steps`` is a positive integer, ``spacing`` one of the three, ``rho``
            positive and ``t_end`` in :math:`[t_{min}, t_{max})`.

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        equation 5.

        DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models (Lu, Zhou,
        Bao, Chen, Li and Zhu, 2022), section 3, for steps that are uniform in the log-SNR.
    """
    check_grid(steps, spacing, rho)
    start, end = sde.t_max, sde.t_min if t_end is None else t_end
    if not sde.t_min <= end < start:
        raise UserError(f"t_end must lie in [{sde.t_min:g}, {start:g}), got {end:g}")
    if spacing == "time":
        return torch.linspace(start, end, steps, dtype=torch.float64, device="cpu")
    bottom = _level(sde, end)
    if spacing == "karras":
        levels = _karras(sde.sigma_max, bottom, steps, rho)
    else:
        ends = math.log(sde.sigma_max), math.log(bottom)
        levels = torch.linspace(*ends, steps, dtype=torch.float64, device="cpu").exp()
    times = sde.time(levels)
    times[-1] = end
    times[0] = start
    return times


def check_steps(steps: int) -> None:
    """Raises ``ValueError`` unless the number of steps is a positive integer."""
    check_count("steps", steps)


def check_rho(rho: float) -> None:
    """Raises ``ValueError`` unless the exponent of a grid is positive and finite."""
    check_positive("rho", rho)


def check_grid(steps: int, spacing: str, rho: float) -> None:
    """Raises ``ValueError`` unless the number of steps, the exponent and the spacing are valid."""
    check_steps(steps)
    check_rho(rho)
    if spacing not in get_args(Spacing):
        names = ", ".join(get_args(Spacing))
        raise UserError(f"spacing is one of {names}, not {spacing!r}")


def _level(sde: SDE, t: float) -> float:
    return float(sde.noise_level(torch.tensor(t, dtype=torch.float64)))


def _karras(top: float, bottom: float, steps: int, rho: float) -> Tensor:
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64, device="cpu")
    levels = (top ** (1 / rho) + ramp * (bottom ** (1 / rho) - top ** (1 / rho))) ** rho
    # The power does not give the end points back to the last bit.
    levels[-1] = bottom
    levels[0] = top
    return levels

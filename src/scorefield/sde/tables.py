r"""Tables of the discrete processes: :math:`N` levels of noise at the times
:math:`t_i = i / (N - 1)` of :math:`[0, 1]`, in ascending order.

References:
    Generative modeling by estimating gradients of the data distribution (Song and Ermon, 2019),
    section 4.1, for SMLD.

    Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), sections 2 and 4, for
    DDPM.

    Score-based generative modeling through stochastic differential equations (Song et al.,
    2021), appendix C, for both as discretisations of VE and VP.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorefield.checks import check_count
from scorefield.errors import UserError


def sigmas(sigma_min: float, sigma_max: float, levels: int) -> Tensor:
    r"""The noise levels of SMLD, :math:`\sigma_i = \sigma_{min}
    (\sigma_{max} / \sigma_{min})^{i / (N - 1)}`, in float64.

    Raises:
        ValueError: If there are fewer than 2.
    """
    check_levels(levels)
    ends = math.log(sigma_min), math.log(sigma_max)
    return torch.linspace(*ends, levels, dtype=torch.float64, device="cpu").exp()


def betas(beta_min: float, beta_max: float, levels: int) -> Tensor:
    r"""The variances that the steps of DDPM add, :math:`\beta_i = \frac1N \big(\beta_{min}
    + \frac{i}{N - 1} (\beta_{max} - \beta_{min})\big)`, in float64.

    Raises:
        ValueError: If there are fewer than 2, or so few that a step removes the data:
            :math:`1 - \beta_{max} / N \le 0`.
    """
    check_levels(levels)
    if beta_max >= levels:
        raise UserError(
            f"levels={levels} are too few for beta_max={beta_max:g}: the last step would multiply "
            f"the variance of the data by {1 - beta_max / levels:g}; levels must exceed beta_max"
        )
    return torch.linspace(
        beta_min / levels, beta_max / levels, levels, dtype=torch.float64, device="cpu"
    )


def alphas(beta_min: float, beta_max: float, levels: int) -> Tensor:
    r"""The factors of the variance of the data in the steps of DDPM,
    :math:`\alpha_i = 1 - \beta_i`, in float64.
    """
    return 1 - betas(beta_min, beta_max, levels)


def alphas_cumprod(beta_min: float, beta_max: float, levels: int) -> Tensor:
    r"""The products :math:`\bar\alpha_i = \prod_{j \le i} \alpha_j` of DDPM, in float64."""
    return alphas(beta_min, beta_max, levels).cumprod(dim=0)


def level_index(t: Tensor, levels: int, t_max: float = 1.0) -> Tensor:
    r"""The index :math:`i = \lfloor t (N - 1) / t_{max} \rfloor` of times in a table.

    A time that is below a level by no more than its rounding, four units in the last place, gets
    that level; times in half precision are used without tolerance. Times outside the table are
    clamped to its ends. Indices are int64, of the shape of ``t``.
    """
    exact = t.detach().to(torch.promote_types(t.dtype, torch.float32))
    position = exact * ((levels - 1) / t_max)
    slack = 4 * torch.finfo(position.dtype).eps
    return (position * (1 + slack)).floor().long().clamp(0, levels - 1)


def check_levels(levels: int) -> None:
    """Raises ``ValueError`` unless there is an integer number of at least two levels."""
    check_count("levels", levels, 2)

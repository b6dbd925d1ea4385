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
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from scorefield.checks import check_count
from scorefield.errors import UserError, hint

Betas = Literal["linear", "scaled_linear", "cosine", "sigmoid"]
"""The names of tables; see :func:`beta_table`."""


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


def beta_table(
    table: Betas | Sequence[float] | Tensor, beta_min: float, beta_max: float, levels: int
) -> Tensor:
    r"""The table of a name, or a table that is given, in float64.

    * ``linear``: :math:`\beta_i` evenly from :math:`\beta_{min} / N` to :math:`\beta_{max} / N`.
    * ``scaled_linear``: the same of :math:`\sqrt{\beta_i}`.
    * ``cosine``: :math:`\bar\alpha(u) = \cos^2 \frac{\pi}{2} \frac{u + 0.008}{1.008}` at
      :math:`u = i / N`.
    * ``sigmoid``: :math:`\bar\alpha(u)` proportional to :math:`s(3) - s(6 u - 3)` with the
      logistic function :math:`s`.

    The last two have :math:`\beta_i = 1 - \bar\alpha((i + 1) / N) / \bar\alpha(i / N)`, at most
    0.999.

    Raises:
        ValueError: If there is no such table, or it is not one: see :class:`~.DiscreteVP`.

    References:
        High-resolution image synthesis with latent diffusion models (Rombach, Blattmann, Lorenz,
        Esser and Ommer, 2022), published code, for ``scaled_linear``.

        Improved denoising diffusion probabilistic models (Nichol and Dhariwal, 2021), equation 17.

        Scalable adaptive computation for iterative generation (Jabri, Fleet and Chen, 2023),
        section 3.3, for ``sigmoid``.
    """
    if not isinstance(table, str):
        return _given(table)
    check_levels(levels)
    match table:
        case "linear":
            return betas(beta_min, beta_max, levels)
        case "scaled_linear":
            # Of numbers whose squares are the rates: the checks are the same.
            betas(beta_min, beta_max, levels)
            ends = math.sqrt(beta_min / levels), math.sqrt(beta_max / levels)
            return torch.linspace(*ends, levels, dtype=torch.float64, device="cpu").square()
        case "cosine":
            return _ratios(lambda u: torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2, levels)
        case "sigmoid":
            top = torch.tensor(3.0, dtype=torch.float64, device="cpu").sigmoid()
            return _ratios(lambda u: top - torch.sigmoid(6 * u - 3), levels)
    raise UserError(f"betas is {table!r}; {hint(table, get_args(Betas), 'tables')}")


def zero_terminal_snr(table: Sequence[float] | Tensor) -> tuple[float, ...]:
    r"""The table whose :math:`\sqrt{\bar\alpha_i}` are those of another, shifted to end at 0 and
    scaled to begin where they did.

    Raises:
        ValueError: If ``table`` is not one of :class:`~.DiscreteVP`.

    References:
        Common diffusion noise schedules and sample steps are flawed (Lin, Liu, Li and Yang, 2024),
        algorithm 1.
    """
    root = (1 - _given(table)).cumprod(dim=0).sqrt()
    left = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))).square()
    left = torch.cat([left.new_ones(1), left])
    return tuple((1 - left[1:] / left[:-1]).tolist())


def _ratios(left: Callable[[Tensor], Tensor], levels: int) -> Tensor:
    u = torch.linspace(0, 1, levels + 1, dtype=torch.float64, device="cpu")
    products = left(u)
    return (1 - products[1:] / products[:-1]).clamp(max=0.999)


def _given(numbers: Sequence[float] | Tensor) -> Tensor:
    try:
        table = torch.as_tensor(numbers, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"betas must be a row of numbers: {error}") from error
    if table.dim() != 1 or len(table) < 2:
        raise UserError(
            f"betas must be a row of at least 2 numbers, got shape {tuple(table.shape)}"
        )
    wrong = ~((table > 0) & (table < 1))
    wrong[-1] &= table[-1] != 1
    if bool(wrong.any()):
        i = int(wrong.nonzero()[0])
        raise UserError(
            f"betas lie in (0, 1), the last may be 1; number {i} is {float(table[i]):g}"
        )
    return table


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

r"""Coordinates of a torus as a network sees them: the same at both ends of a period."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.errors import UserError


class PeriodicFeatures(nn.Module):
    r"""Cosines and sines of coordinates.

    .. math:: \varphi(x) = \big[\cos(2\pi k x_a / L_a),\; \sin(2\pi k x_a / L_a)\big],
        \qquad a = 1 \dots d, \quad k = 1 \dots K.

    With one harmonic they tell all points of the torus apart already; more let a network of
    the same size bend more sharply.

    Arguments:
        dims: The number :math:`d` of coordinates.
        period: The period :math:`L`, or one for each coordinate.
        harmonics: The number :math:`K` of harmonics.

    Raises:
        ValueError: If a period is not positive and finite or their number is not :math:`d`, or
            there is no harmonic.
    """

    def __init__(self, dims: int, period: float | Sequence[float], harmonics: int = 1) -> None:
        super().__init__()
        periods = (period,) * dims if isinstance(period, int | float) else tuple(period)
        if len(periods) != dims:
            raise UserError(f"{dims} coordinates need one period or {dims}, got {len(periods)}")
        if not all(math.isfinite(length) and length > 0 for length in periods):
            raise UserError(f"a period is positive and finite, got {period}")
        if harmonics < 1:
            raise UserError(f"periodic features need harmonics >= 1, got {harmonics}")
        # Numbers, not a buffer: a buffer would be rounded with the weights, and a network in
        # double precision would then be periodic in single precision only.
        self.waves = tuple(
            tuple(math.tau * k / float(length) for k in range(1, harmonics + 1))
            for length in periods
        )

    @property
    def number(self) -> int:
        """The number :math:`2 d K` of features of a point."""
        return 2 * sum(map(len, self.waves))

    def forward(self, x: Float[Tensor, "*batch dims"]) -> Float[Tensor, "*batch features"]:
        phase = (x.unsqueeze(-1) * _table(self.waves, x.dtype, x.device)).flatten(-2)
        return torch.cat((phase.cos(), phase.sin()), dim=-1)


@lru_cache(maxsize=64)
def _table(
    waves: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    # The first to ask may do so in inference mode, the next may need a gradient.
    with torch.inference_mode(False):
        return torch.tensor(waves, dtype=dtype, device=device)

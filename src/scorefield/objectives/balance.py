"""A weight that keeps a regulariser in proportion to the base loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scorefield.errors import UserError


class BalancedWeight(nn.Module):
    r"""The weight :math:`\min(w_{max},\; r\,\bar L / \bar R)`.

    :math:`\bar L` and :math:`\bar R` are exponential moving averages, corrected for their start,
    of the base loss and of the regulariser over the steps at which the latter is evaluated. The
    weighted regulariser is then about :math:`r` times the base loss, and the weight is bounded
    where the regulariser vanishes. The averages are buffers: they are saved with the objective.

    Arguments:
        ratio: The proportion :math:`r`.
        max_weight: The bound :math:`w_{max}`.
        horizon: The time constant of the averages, in evaluations.

    Raises:
        ValueError: If an argument is not positive.
    """

    average: Tensor
    count: Tensor

    def __init__(self, ratio: float, max_weight: float, horizon: float = 100.0) -> None:
        super().__init__()
        if not min(ratio, max_weight, horizon) > 0:
            raise UserError(
                "balance: ratio, max_weight and horizon must be positive, got "
                f"{ratio}, {max_weight}, {horizon}"
            )
        self.ratio = ratio
        self.max_weight = max_weight
        self.horizon = horizon
        self.register_buffer("average", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def extra_repr(self) -> str:
        return f"ratio={self.ratio}, max_weight={self.max_weight}, horizon={self.horizon}"

    def forward(self, denoising: Tensor, energy: Tensor) -> Tensor:
        """Takes in the two losses of a step and returns the weight; detached."""
        with torch.no_grad():
            keep = torch.clamp(self.count / (self.count + 1), max=1 - 1 / self.horizon)
            current = torch.stack((denoising, energy)).to(self.average.dtype)
            self.average.mul_(keep).add_((1 - keep) * current)
            self.count.add_(1)
            # An energy of zero divides to infinity, which the bound then cuts.
            wanted = self.ratio * self.average[0] / self.average[1].abs()
            return wanted.clamp(max=self.max_weight).to(energy.dtype)

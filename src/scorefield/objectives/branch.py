"""A regulariser that makes the two branches of a hybrid field meet."""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield.errors import UnsupportedError, UserError
from scorefield.fields import HybridField, ScoreField
from scorefield.noise import Noise
from scorefield.objectives.balance import BalancedWeight
from scorefield.objectives.denoising import NoiseLaw
from scorefield.objectives.objective import Regularizer


class BoundaryMatching(Regularizer):
    r"""The mean squared jump :math:`\frac{\sigma^2}{D} \|s_{low} - s_{high}\|^2` of a hybrid field.

    Evaluated on points noised to levels uniform in :math:`\sigma_c (1 \pm b)`; both branches
    receive the gradient.

    Arguments:
        weight: The weight, averaged over steps, or a controller.
        bandwidth: The half-width :math:`b`, relative to :math:`\sigma_c`.
        rows: The number of points, at most the batch.
        every: Evaluated at every ``every``-th step.

    Raises:
        ValueError: If an argument is out of range, or the levels are outside the process.
        TypeError: If the field is not hybrid.
    """

    name = "boundary"

    def __init__(
        self,
        weight: float | BalancedWeight,
        bandwidth: float = 0.1,
        rows: int = 64,
        every: int = 1,
    ) -> None:
        super().__init__(weight, every)
        if not 0 <= bandwidth < 1 or rows < 1:
            raise UserError(
                f"boundary: 0 <= bandwidth < 1 and rows >= 1 must hold, got {bandwidth}, {rows}"
            )
        self.bandwidth = bandwidth
        self.rows = rows

    def draw(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, rows: int, step: Tensor
    ) -> tuple[Tensor, ...]:
        index = torch.arange(min(rows, self.rows))
        u = noise.uniform("boundary/time", (), index, step, dtype=torch.float64)
        hybrid, sde = _hybrid(field), field.sde
        low, high = ((1 + s * self.bandwidth) * hybrid.sigma_c for s in (-1, 1))
        if not sde.sigma_min <= low <= high <= sde.sigma_max:
            raise UserError(
                f"boundary: noise levels from {low:g} to {high:g} around sigma_c are not all "
                f"within the process's {sde.sigma_min:g} to {sde.sigma_max:g}"
            )
        level = low + u * (high - low)
        z = noise.normal("boundary/perturbation", field.domain.shape, index, step)
        return field.sde.time(level), z

    def energy(self, field: ScoreField, x: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        t, z = draws
        hybrid = _hybrid(field)
        x_t = field.sde.perturb(x[: t.shape[0]], t, z, field.domain)
        jump = hybrid.low.predict_noise(x_t, t) - hybrid.high.predict_noise(x_t, t)
        return jump.square().mean()


def _hybrid(field: ScoreField) -> HybridField:
    if not isinstance(field, HybridField):
        raise UnsupportedError(f"boundary matching needs a HybridField, got {type(field).__name__}")
    return field

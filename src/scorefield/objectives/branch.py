"""A regulariser that makes the two branches of a hybrid field meet."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from scorefield.errors import UnsupportedError, UserError
from scorefield.fields import HybridField, ScoreField
from scorefield.noise import Noise
from scorefield.objectives.denoising import NoiseLaw
from scorefield.objectives.regularizer import PointRegularizer


class BoundaryMatching(PointRegularizer):
    r"""The mean squared jump :math:`\frac{\sigma^2}{D} \|s_{low} - s_{high}\|^2` of a hybrid field.

    Evaluated at points of noise levels uniform in :math:`\sigma_c (1 \pm b)`; both branches
    receive the gradient.

    Arguments:
        bandwidth: The half-width :math:`b`, relative to :math:`\sigma_c`.

    Raises:
        ValueError: If an argument is out of range; in use, if the levels are outside the process.
        TypeError: In use, if the field is not hybrid.
    """

    name = "boundary"

    bandwidth: float = 0.1
    sigma_min: None = dataclasses.field(init=False, default=None)
    sigma_max: None = dataclasses.field(init=False, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.bandwidth < 1:
            raise UserError(f"boundary: bandwidth must lie in [0, 1), got {self.bandwidth}")

    def times(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, index: Tensor, step: Tensor
    ) -> Tensor:
        u = noise.uniform("boundary/time", (), index, step, dtype=torch.float64)
        sigma_c, sde = _hybrid(field).sigma_c, field.sde
        low, high = (1 - self.bandwidth) * sigma_c, (1 + self.bandwidth) * sigma_c
        if not sde.sigma_min <= low <= high <= sde.sigma_max:
            raise UserError(
                f"boundary: noise levels from {low:g} to {high:g} around sigma_c are not all "
                f"within the process's {sde.sigma_min:g} to {sde.sigma_max:g}"
            )
        return sde.time(low + u * (high - low))

    def energy(self, field: ScoreField, x: Tensor, t: Tensor, *directions: Tensor) -> Tensor:
        hybrid = _hybrid(field)
        jump = hybrid.low.predict_noise(x, t) - hybrid.high.predict_noise(x, t)
        return jump.square().mean()


def _hybrid(field: ScoreField) -> HybridField:
    if not isinstance(field, HybridField):
        raise UnsupportedError(f"boundary matching needs a HybridField, got {type(field).__name__}")
    return field

"""The posterior by projection: denoised points are moved onto those that have the measurement."""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield.checks import check_count
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import Classes
from scorefield.fields.conjugate_gradients import conjugate_gradients
from scorefield.fields.forms import Times, times
from scorefield.fields.observation import Observation
from scorefield.fields.posterior import PosteriorField


class ProjectedField(PosteriorField):
    r"""The field whose denoiser is projected onto the points that have the measurement.

    .. math:: D'(x, t) = D + A^+ (y - A D)

    The noise of the measurement is not used: samples have :math:`A x_0 = y` exactly. It takes no
    derivative of the prior. In the measured directions the field is exact; in the others it is the
    prior's, at points whose measured part is that of :math:`y` in noise, and knows of the
    measurement by this part only: exact for a diagonal covariance, too wide for others. A function
    is linearised at the denoiser, one step of Gauss and Newton; where no point has the measurement,
    it is the nearest in the sense of least squares. The field is no gradient.

    :class:`~.LinearMeasurement` imposes the measurement on the states of a sampler instead.

    Arguments:
        field: The field of the prior.
        observation: The measurements.
        iterations: The number of conjugate gradients for an observation by a function.

    Raises:
        ValueError: As of :class:`PosteriorField`; if ``iterations`` is not positive.

    References:
        Zero-shot image restoration using denoising diffusion null-space model (Wang, Yu and Zhang,
        2023), section 3.

        Solving inverse problems in medical imaging with score-based generative models (Song, Shen,
        Xing and Ermon, 2022), section 3.2, for the projection of states.
    """

    def __init__(self, field: ScoreField, observation: Observation, iterations: int = 16) -> None:
        super().__init__(field, observation)
        check_count("ProjectedField: iterations", iterations)
        self.iterations = iterations
        if observation.matrix is not None:
            inverse = torch.linalg.pinv(observation.matrix.reshape(len(observation.matrix), -1))
            self.register_buffer("inverse", inverse, persistent=False)

    def _likelihood_score(
        self, x: Tensor, t: Times, own: Classes, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        denoised, velocity = self._denoised(x, t, own)
        near = self.observation.linearize(denoised)
        residual = self.observation.values(rows, x) - near.value
        if self.observation.matrix is None:

            def product(v: Tensor) -> Tensor:
                return near.back(near.forward(v.reshape(x.shape))).reshape(len(x), -1)

            # The normal equations, which have a solution where the data contradict themselves.
            most = min(self.iterations, residual.shape[1])
            change = conjugate_gradients(product, near.back(residual).reshape(len(x), -1), most)
        else:
            change = residual @ self.inverse.to(x).T
        change = change.reshape(x.shape)
        clock = times(x, t)
        return velocity, self.sde.alpha(clock) / self.sde.sigma(clock) ** 2 * change

    def extra_repr(self) -> str:
        return f"iterations={self.iterations}"

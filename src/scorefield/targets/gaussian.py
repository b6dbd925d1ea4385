"""The normal distribution, whose diffusion is known in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.domain import Euclidean
from scorefield.errors import UserError
from scorefield.noise import Noise
from scorefield.sde import SDE
from scorefield.targets.base import Target
from scorefield.targets.normals import Normals


class Gaussian(Target):
    r"""Normal data :math:`x_0 \sim N(m, \Sigma)`, hence
    :math:`x_t \sim N(\alpha m, \alpha^2\Sigma + \sigma^2 I)`.

    Arguments:
        mean: The mean :math:`m`, of the event shape (any).
        std: The standard deviation of every coordinate, or of each (broadcast against ``mean``).
        covariance: The covariance :math:`\Sigma` of the flattened point, of shape
            :math:`(D, D)`, in place of ``std``.
        sde: The forward process; ``EDM()`` if not given.

    Raises:
        TypeError: Unless exactly one of ``std`` and ``covariance`` is given.
        ValueError: If a shape does not fit ``mean``, a standard deviation is not positive, or the
            covariance is not symmetric and positive definite.

    Example:
        >>> truth = Gaussian(torch.zeros(2), covariance=[[2.0, 1.0], [1.0, 1.0]])
        >>> truth.score(torch.ones(1, 2), t=0.5).shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        mean: Tensor | Sequence[float] | float,
        std: Tensor | Sequence[float] | float | None = None,
        covariance: Tensor | Sequence[Sequence[float]] | None = None,
        sde: SDE | None = None,
    ) -> None:
        m = torch.as_tensor(mean, dtype=torch.float64)
        super().__init__(Euclidean(tuple(m.shape)), sde)
        dim = self.domain.dim
        variances = covariances = None
        if std is not None:
            deviation = torch.as_tensor(std, dtype=torch.float64, device=m.device)
            try:
                deviation = deviation.expand(m.shape)
            except RuntimeError:
                raise UserError(
                    f"std has shape {tuple(deviation.shape)}, which does not broadcast to the "
                    f"mean's {tuple(m.shape)}"
                ) from None
            variances = deviation.clamp(min=0).square().reshape(1, dim)
        if covariance is not None:
            covariances = torch.as_tensor(covariance, dtype=torch.float64, device=m.device)
            if covariances.shape != (dim, dim):
                raise UserError(
                    f"a covariance over {dim} coordinates has shape {(dim, dim)}, "
                    f"got {tuple(covariances.shape)}"
                )
            covariances = covariances.unsqueeze(0)
        self.law = Normals(m.reshape(1, dim), variances, covariances)

    @property
    def mean(self) -> Float[Tensor, "*event"]:
        return self.law.means.reshape(self.domain.shape)

    @property
    def std(self) -> float:
        return float(self.law.variances.mean().sqrt())

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        r"""The covariance :math:`\Sigma` of the flattened point, float64."""
        return self.law.covariances[0]

    def draw(
        self,
        noise: Noise,
        index: Tensor,
        step: int | Tensor = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "..."]:
        z = noise.normal("data", (self.domain.dim,), index, step, torch.float64)
        k = torch.zeros(z.shape[:-1], dtype=torch.int64, device=z.device)
        return self.law.place(z, k).reshape(*k.shape, *self.domain.shape).to(dtype)

    def flow(
        self, x: Float[Tensor, "batch *event"], s: float | Tensor, t: float | Tensor
    ) -> Float[Tensor, "batch *event"]:
        r"""The exact probability-flow map from time :math:`s` to time :math:`t`.

        .. math:: x_t = \alpha_t m
            + \Big(\frac{\alpha_t^2\Sigma + \sigma_t^2}{\alpha_s^2\Sigma + \sigma_s^2}\Big)^{1/2}
            (x_s - \alpha_s m),

        since along a principal axis of variance :math:`V(t)` the deviation :math:`y` obeys
        :math:`\dot y = (f + g^2 / 2V)\, y` while :math:`\dot V = 2 f V + g^2`.

        Arguments:
            x: Points at time ``s``.
            s: Their times, or one time for all.
            t: The times of the result, earlier or later than ``s``.

        Raises:
            ValueError: If ``x`` has another event shape.
        """
        start = self.law.frame(*self._flat(x, s))
        end = self.law.frame(*self._flat(x, t))
        return self.law.flow(start, end, end.alpha).reshape(x.shape).to(x.dtype)

    def _log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.law.log_prob(self.law.frame(x, alpha, sigma))[:, 0]

    def _score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.law.score(self.law.frame(x, alpha, sigma))[:, 0]

    def _denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.law.denoise(self.law.frame(x, alpha, sigma))[:, 0]

    def _jacobian(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        jacobian = self.law.jacobian(self.law.frame(x, alpha, sigma))[:, 0]
        return jacobian.expand(x.shape[0], -1, -1)

r"""Diffused normal distributions, each in the frame of its principal axes.

With the eigendecomposition :math:`\Sigma = Q \Lambda Q^T`, computed once, the diffused covariance
is diagonal in the same frame, :math:`\alpha^2\Sigma + \sigma^2 I = Q V Q^T` with :math:`V =
\alpha^2\Lambda + \sigma^2`, so that no noise level needs a factorisation, and nothing cancels. With
:math:`y = Q^T (x - \alpha m)`,

.. math::
    \log N(x) = -\tfrac12 \sum_i \Big(\frac{y_i^2}{V_i} + \ln 2\pi V_i\Big), \qquad
    s = -Q \frac{y}{V}, \qquad
    \mathbb{E}[x_0 \mid x] = m + Q \frac{\alpha \Lambda y}{V}, \qquad
    \nabla s = -Q \frac{1}{V} Q^T.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.domain import Euclidean
from scorefield.errors import UnsupportedError, UserError
from scorefield.fields.forms import Batch, Times
from scorefield.noise import Noise
from scorefield.sde.base import SDE
from scorefield.targets.base import Steps, Target


class Frame(NamedTuple):
    r"""Points in the frame of each distribution: coordinates :math:`y` along its axes and variances
    :math:`V`, of shape :math:`(B, K, D)`, and the coefficient :math:`\alpha` of the data.
    """

    y: Tensor
    variance: Tensor
    alpha: Tensor


class Normals(nn.Module):
    r""":math:`K` normal distributions on :math:`\mathbb{R}^D`, with means :math:`(K, D)` and either
    variances :math:`(K, D)` along the coordinates or covariances :math:`(K, D, D)`.

    Raises:
        TypeError: Unless exactly one of ``variances`` and ``covariances`` is given.
        ValueError: If a number is not finite, a variance is not positive, or a covariance is not
            symmetric and positive definite.
    """

    means: Tensor
    variances: Tensor
    axes: Tensor | None

    def __init__(
        self,
        means: Float[Tensor, "k d"],
        variances: Float[Tensor, "k d"] | None = None,
        covariances: Float[Tensor, "k d d"] | None = None,
    ) -> None:
        super().__init__()
        if not bool(means.isfinite().all()):
            raise UserError("the mean of a normal distribution must be finite")
        axes = None
        if covariances is not None and variances is None:
            variances, axes = _principal_axes(covariances)
        elif variances is None or covariances is not None:
            raise UnsupportedError(
                "a normal distribution has either standard deviations or a covariance"
            )
        elif not bool((variances.isfinite() & (variances > 0)).all()):
            raise UserError("a standard deviation must be positive and finite")
        self.register_buffer("means", means.to(torch.float64).clone())
        self.register_buffer("variances", variances.to(torch.float64).clone())
        self.register_buffer("axes", axes)

    @property
    def covariances(self) -> Float[Tensor, "k d d"]:
        r"""The covariances :math:`\Sigma`."""
        return self._conjugate(self.variances)

    def frame(
        self, x: Float[Tensor, "b d"], alpha: Float[Tensor, "#b 1"], sigma: Float[Tensor, "#b 1"]
    ) -> Frame:
        """Points in the frame of each distribution."""
        alpha, sigma = alpha.unsqueeze(1), sigma.unsqueeze(1)
        y = x.unsqueeze(1) - alpha * self.means
        if self.axes is not None:
            y = torch.einsum("bkd,kde->bke", y, self.axes)
        return Frame(y, alpha**2 * self.variances + sigma**2, alpha)

    def log_prob(self, frame: Frame) -> Float[Tensor, "b k"]:
        """The log-density (nats) of each distribution."""
        terms = frame.y**2 / frame.variance + frame.variance.log() + math.log(math.tau)
        return -0.5 * terms.sum(dim=2)

    def score(self, frame: Frame) -> Float[Tensor, "b k d"]:
        """The score of each distribution."""
        return self._outward(-frame.y / frame.variance)

    def denoise(self, frame: Frame) -> Float[Tensor, "b k d"]:
        """The posterior mean under each distribution."""
        gain = frame.alpha * self.variances / frame.variance
        return self.means + self._outward(gain * frame.y)

    def jacobian(self, frame: Frame) -> Float[Tensor, "#b k d d"]:
        """The Jacobian of the score of each distribution."""
        return self._conjugate(-1 / frame.variance)

    def flow(self, start: Frame, end: Frame, alpha: Tensor) -> Float[Tensor, "b k d"]:
        r"""The image of ``start`` under the probability flow: along each axis a deviation from the
        mean grows like the standard deviation.
        """
        return alpha * self.means + self._outward((end.variance / start.variance).sqrt() * start.y)

    def place(self, z: Float[Tensor, "... d"], k: Tensor) -> Float[Tensor, "... d"]:
        r"""Map standard normals to draws :math:`m_k + Q_k \Lambda_k^{1/2} z`."""
        return self.means[k] + self.deviate(z, k)

    def deviate(self, z: Float[Tensor, "... d"], k: Tensor) -> Float[Tensor, "... d"]:
        r"""Map standard normals to deviations :math:`Q_k \Lambda_k^{1/2} z` of draws from means."""
        deviation = self.variances.sqrt()[k] * z
        if self.axes is not None:
            # One axis after the other: a matrix product's rounding depends on the batch, and
            # a draw must not.
            total = torch.zeros_like(deviation)
            for i in range(z.shape[-1]):
                total = total + self.axes[:, :, i][k] * deviation[..., i, None]
            deviation = total
        return deviation

    def _outward(self, y: Tensor) -> Tensor:
        return y if self.axes is None else torch.einsum("bke,kde->bkd", y, self.axes)

    def _conjugate(self, diagonal: Tensor) -> Tensor:
        """Q diag Qᵀ for the diagonals (..., K, D)."""
        if self.axes is None:
            return torch.diag_embed(diagonal)
        return (self.axes * diagonal.unsqueeze(-2)) @ self.axes.mT


def _principal_axes(covariances: Tensor) -> tuple[Tensor, Tensor]:
    covariances = covariances.to(torch.float64)
    if not bool(covariances.isfinite().all()) or not torch.allclose(covariances, covariances.mT):
        raise UserError("a covariance must be finite and symmetric")
    variances, axes = torch.linalg.eigh(0.5 * (covariances + covariances.mT))
    floor = covariances.shape[-1] * torch.finfo(torch.float64).eps * variances[:, -1:]
    if not bool((variances > floor).all()):
        raise UserError("a covariance must be positive definite")
    return variances, axes


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
        self, noise: Noise, index: Tensor, step: Steps = 0, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "..."]:
        z = noise.normal("data", (self.domain.dim,), index, step, torch.float64)
        k = torch.zeros(z.shape[:-1], dtype=torch.int64, device=z.device)
        return self.law.place(z, k).reshape(*k.shape, *self.domain.shape).to(dtype)

    def flow(self, x: Batch, s: Times, t: Times) -> Batch:
        r"""The exact probability-flow map of points from time :math:`s` to time :math:`t`.

        .. math:: x_t = \alpha_t m
            + \Big(\frac{\alpha_t^2\Sigma + \sigma_t^2}{\alpha_s^2\Sigma + \sigma_s^2}\Big)^{1/2}
            (x_s - \alpha_s m),

        since along a principal axis of variance :math:`V(t)` the deviation :math:`y` obeys
        :math:`\dot y = (f + g^2 / 2V)\, y` while :math:`\dot V = 2 f V + g^2`.

        Raises:
            ValueError: If ``x`` or the times do not fit, see :meth:`check_inputs`.
        """
        for time in (s, t):
            self.check_inputs(x, time, first=0.0)
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

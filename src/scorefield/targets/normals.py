r"""Diffused normal distributions, each in the frame of its principal axes.

With :math:`\Sigma = Q \Lambda Q^T` once and for all, the diffused covariance is diagonal in the
same frame, :math:`\alpha^2\Sigma + \sigma^2 I = Q V Q^T` with
:math:`V = \alpha^2\Lambda + \sigma^2`, so that no noise level needs a factorisation, and in
the frame everything is a quotient of positive numbers. With
:math:`y = Q^T (x - \alpha m)`,

.. math::
    \log N(x) = -\tfrac12 \sum_i \Big(\frac{y_i^2}{V_i} + \ln 2\pi V_i\Big), \qquad
    s = -Q \frac{y}{V}, \qquad
    \mathbb{E}[x_0 \mid x] = m + Q \frac{\alpha \Lambda y}{V}, \qquad
    \nabla s = -Q \frac{1}{V} Q^T.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.errors import UnsupportedError, UserError


class Frame(NamedTuple):
    r"""Points in the frame of each distribution: coordinates :math:`y` of shape :math:`(B, K, D)`
    along its axes, variances :math:`V` along them of shape :math:`(B, K, D)` or :math:`(1, K, D)`,
    and the coefficient :math:`\alpha` that the data is multiplied with.
    """

    y: Tensor
    variance: Tensor
    alpha: Tensor


class Normals(nn.Module):
    r""":math:`K` normal distributions on :math:`\mathbb{R}^D`.

    Arguments:
        means: The means :math:`m`, of shape :math:`(K, D)`.
        variances: The variances :math:`\Lambda` along the coordinates, of shape :math:`(K, D)`.
        covariances: The covariances :math:`\Sigma`, of shape :math:`(K, D, D)`, in place of
            ``variances``.

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
            raise UnsupportedError("a normal law has either standard deviations or a covariance")
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
        deviation = self.variances.sqrt()[k] * z
        if self.axes is not None:
            # One axis after the other: a matrix product's rounding depends on the batch, and
            # a draw must not.
            total = torch.zeros_like(deviation)
            for i in range(z.shape[-1]):
                total = total + self.axes[:, :, i][k] * deviation[..., i, None]
            deviation = total
        return self.means[k] + deviation

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

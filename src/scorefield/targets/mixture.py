"""Mixtures of normal distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.domain import Euclidean
from scorefield.errors import UserError
from scorefield.fields.forms import Times
from scorefield.noise import Noise
from scorefield.sde.base import SDE
from scorefield.targets.base import Steps, Target
from scorefield.targets.gaussian import Frame, Normals


class GaussianMixture(Target):
    r"""Data :math:`x_0 \sim \sum_k w_k N(m_k, \Sigma_k)`, hence
    :math:`x_t \sim \sum_k w_k N(\alpha m_k, \alpha^2\Sigma_k + \sigma^2 I)`.

    With responsibilities :math:`r_k = p(k \mid x_t)` and the score :math:`s_k` and denoiser
    :math:`d_k` of each component,

    .. math:: s = \sum_k r_k s_k, \qquad \mathbb{E}[x_0 \mid x_t] = \sum_k r_k d_k, \qquad
        \nabla s = \sum_k r_k \big(\nabla s_k + (s_k - s)(s_k - s)^T\big).

    Arguments:
        means: The means :math:`m_k`, of shape :math:`(K, D)`.
        stds: The standard deviations: one for all, one a component :math:`(K)`, or one a
            component and coordinate :math:`(K, D)`.
        covariances: The covariances :math:`\Sigma_k`, of shape :math:`(K, D, D)`, in place of
            ``stds``.
        weights: The weights :math:`w_k`, positive, up to a common factor; equal if not given.
        sde: The forward process; ``EDM()`` if not given.

    Raises:
        TypeError: Unless exactly one of ``stds`` and ``covariances`` is given.
        ValueError: If a shape does not fit ``means``, a weight or standard deviation is not
            positive, or a covariance is not symmetric and positive definite.

    References:
        Pattern recognition and machine learning (Bishop, 2006), equations 2.188 and 2.192.
    """

    weights: Tensor

    def __init__(
        self,
        means: Tensor | Sequence[Sequence[float]],
        stds: Tensor | Sequence[float] | Sequence[Sequence[float]] | float | None = None,
        covariances: Tensor | Sequence[Sequence[Sequence[float]]] | None = None,
        weights: Tensor | Sequence[float] | None = None,
        sde: SDE | None = None,
    ) -> None:
        m = torch.as_tensor(means, dtype=torch.float64)
        if m.dim() != 2 or m.shape[0] < 1:
            raise UserError(f"the means of a mixture have shape (K, D), got {tuple(m.shape)}")
        modes, dim = m.shape
        super().__init__(Euclidean((dim,)), sde)
        variances = None
        if stds is not None:
            deviation = torch.as_tensor(stds, dtype=torch.float64, device=m.device)
            if deviation.shape not in ((), (modes,), (modes, dim)):
                raise UserError(
                    f"the stds of {modes} components in {dim} dimensions have shape (), "
                    f"{(modes,)} or {(modes, dim)}, got {tuple(deviation.shape)}"
                )
            if deviation.dim() == 1:
                deviation = deviation.unsqueeze(1)
            variances = deviation.clamp(min=0).square().expand(modes, dim)
        if covariances is not None:
            covariances = torch.as_tensor(covariances, dtype=torch.float64, device=m.device)
            if covariances.shape != (modes, dim, dim):
                raise UserError(
                    f"the covariances of {modes} components in {dim} dimensions have shape "
                    f"{(modes, dim, dim)}, got {tuple(covariances.shape)}"
                )
        if weights is None:
            w = torch.ones_like(m[:, 0])
        else:
            w = torch.as_tensor(weights, dtype=torch.float64, device=m.device)
        if w.shape != (modes,) or not bool((w.isfinite() & (w > 0)).all()):
            raise UserError(f"a mixture of {modes} components has {modes} positive weights")
        self.components = Normals(m, variances, covariances)
        self.register_buffer("weights", w / w.sum())

    @classmethod
    def ring(
        cls, modes: int = 8, radius: float = 4.0, std: float = 0.35, sde: SDE | None = None
    ) -> GaussianMixture:
        """Isotropic modes of standard deviation ``std`` and equal weight, evenly spaced on a circle
        about the origin of the plane.
        """
        angle = torch.arange(modes, dtype=torch.float64) * (math.tau / modes)
        return cls(radius * torch.stack((angle.cos(), angle.sin()), dim=1), stds=std, sde=sde)

    @property
    def means(self) -> Float[Tensor, "k d"]:
        r"""The means :math:`m_k`, float64."""
        return self.components.means

    @property
    def covariances(self) -> Float[Tensor, "k d d"]:
        r"""The covariances :math:`\Sigma_k`, float64."""
        return self.components.covariances

    @property
    def mean(self) -> Float[Tensor, " d"]:
        return (self.weights.unsqueeze(1) * self.means).sum(dim=0)

    @property
    def std(self) -> float:
        variance = self.components.variances + (self.means - self.mean) ** 2
        return float((self.weights * variance.mean(dim=1)).sum().sqrt())

    def draw(
        self, noise: Noise, index: Tensor, step: Steps = 0, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "..."]:
        u = noise.uniform("data component", (), index, step, torch.float64)
        k = torch.bucketize(u, self.weights.cumsum(dim=0)[:-1], right=True)
        z = noise.normal("data", self.domain.shape, index, step, torch.float64)
        return self.components.place(z, k).to(dtype)

    def responsibilities(self, x: Float[Tensor, "batch d"], t: Times) -> Float[Tensor, "batch k"]:
        r"""The posterior probability :math:`r_k = p(k \mid x_t = x)` of each component.

        Raises:
            ValueError: If the points or the times do not fit, see :meth:`check_inputs`.
        """
        self.check_inputs(x, t, first=0.0)
        return self._weigh(self.components.frame(*self._flat(x, t))).softmax(dim=1).to(x.dtype)

    def _weigh(self, frame: Frame) -> Tensor:
        return self.weights.log() + self.components.log_prob(frame)

    def _log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._weigh(self.components.frame(x, alpha, sigma)).logsumexp(dim=1)

    def _score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        frame = self.components.frame(x, alpha, sigma)
        r = self._weigh(frame).softmax(dim=1).unsqueeze(2)
        return (r * self.components.score(frame)).sum(dim=1)

    def _denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        frame = self.components.frame(x, alpha, sigma)
        r = self._weigh(frame).softmax(dim=1).unsqueeze(2)
        return (r * self.components.denoise(frame)).sum(dim=1)

    def _jacobian(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        frame = self.components.frame(x, alpha, sigma)
        r = self._weigh(frame).softmax(dim=1)
        scores = self.components.score(frame)
        deviation = scores - (r.unsqueeze(2) * scores).sum(dim=1, keepdim=True)
        spread = torch.einsum("bk,bki,bkj->bij", r, deviation, deviation)
        within = self.components.jacobian(frame).expand(x.shape[0], -1, -1, -1)
        return torch.einsum("bk,bkij->bij", r, within) + spread

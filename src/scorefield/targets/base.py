r"""Exact fields of known data distributions.

A target is a data distribution :math:`p_0` together with the exact field of its diffusion
:math:`p_t`, the reference for networks, samplers and diagnostics. All of it is computed in float64
for any dtype of the points, and rounded once: at a noise level of :math:`10^{-3}` the log-weights
of a mixture reach :math:`10^6`, where float32 has no digits left after the point.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.domain import Domain
from scorefield.errors import UserError
from scorefield.fields.base import Quantity, affine, times
from scorefield.fields.classes import Classes
from scorefield.noise import Noise
from scorefield.sde import EDM, SDE
from scorefield.targets.closed_form import ClosedForm


class Target(ClosedForm):
    r"""The exact field of a known law, diffused by any process.

    Subclasses define the moments, :meth:`draw`, and the four functions below on flat
    float64 points :math:`(B, D)` with coefficients :math:`\alpha, \sigma` of shape
    :math:`(B, 1)` or :math:`(1, 1)`. The score and the denoiser are asked for separately, since
    either loses digits when it is computed from the other: the score at low noise, the
    denoiser at high noise.

    Buffers are float64, and so is every computation; results have the dtype of the points.

    Arguments:
        domain: The domain of the data, with the event shape.
        sde: The forward process; ``EDM()`` if not given.
    """

    def __init__(self, domain: Domain, sde: SDE | None = None) -> None:
        super().__init__(EDM() if sde is None else sde, domain)

    @property
    @abstractmethod
    def mean(self) -> Float[Tensor, "*event"]:
        r"""The mean of the data, float64."""

    @property
    @abstractmethod
    def std(self) -> float:
        r"""The standard deviation of a coordinate of the data, in quadratic mean over the
        coordinates: :math:`\sqrt{\mathrm{tr}\,\mathrm{Cov}[x_0] / D}`.
        """

    @abstractmethod
    def draw(
        self,
        noise: Noise,
        index: Tensor,
        step: int | Tensor = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "..."]:
        """Draw data at the addresses of purpose ``"data"``.

        Arguments:
            noise: The source of randomness.
            index: The sample indices, of any shape.
            step: The step or steps, broadcast against ``index``.
            dtype: The dtype; the float64 value is rounded to it.

        Returns:
            Data of the common shape of ``index`` and ``step``, followed by the event shape.
        """

    @abstractmethod
    def _log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        r"""The log-density :math:`\log p_t(x)` in nats, of shape :math:`(B)`."""

    @abstractmethod
    def _score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        r"""The score, of shape :math:`(B, D)`."""

    @abstractmethod
    def _denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        r"""The posterior mean, of shape :math:`(B, D)`."""

    @abstractmethod
    def _jacobian(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        r"""The Jacobian of the score, of shape :math:`(B, D, D)`."""

    def sample(
        self,
        n: int,
        seed: int,
        dtype: torch.dtype = torch.float32,
        t: float | None = None,
    ) -> Float[Tensor, "n *event"]:
        r"""Draw the samples :math:`0 \dots n-1` of a seed.

        Arguments:
            n: The number of samples.
            seed: The seed.
            dtype: The dtype.
            t: The time at which the diffused data is observed; clean data if not given.
        """
        noise, index = Noise(seed), torch.arange(n, device=self.mean.device)
        x = self.draw(noise, index, dtype=torch.float64)
        if t is not None:
            z = noise.normal("diffusion", self.domain.shape, index, dtype=torch.float64)
            x = self.sde.perturb(x, torch.full_like(z[:1].reshape(-1)[:1], t), z, self.domain)
        # Wrap again, since rounding may give the end of a period.
        return self.domain.wrap(x.to(dtype))

    def log_density(
        self, x: Float[Tensor, "batch *event"], t: float | Tensor, classes: Classes = None
    ) -> Float[Tensor, " batch"]:
        r"""The log-density :math:`\log p_t(x)` of the diffused data, in nats.

        Arguments:
            x: Points.
            t: The time of each point, or one time for all; 0 gives the density of the data.
            classes: The class of each point, or one for all, whose density is meant.

        Raises:
            ValueError: If ``x`` has another event shape, there is no density at ``t``, or the
                classes do not fit.
        """

        def evaluate(field: Target, x: Tensor, t: float | Tensor) -> Tensor:
            return field._log_density(*field._flat(x, t)).to(x.dtype)

        return self._by_class(evaluate, x, t, classes)

    def _predict(self, x: Tensor, t: float | Tensor, quantity: Quantity) -> Tensor:
        y, alpha, sigma = self._flat(x, t)
        if quantity == "denoiser":
            value = self._denoise(y, alpha, sigma)
        else:
            a, b = affine(y, t, self.sde, quantity)
            value = a * y + b * self._score(y, alpha, sigma)
        return value.reshape(x.shape).to(x.dtype)

    def _jacobians(self, x: Tensor, t: float | Tensor) -> Tensor:
        return self._jacobian(*self._flat(x, t)).to(x.dtype)

    @property
    def has_potential(self) -> bool:
        return True

    def potential(
        self, x: Float[Tensor, "batch *event"], t: float | Tensor, classes: Classes = None
    ) -> Float[Tensor, " batch"]:
        return self.log_density(x, t, classes)

    def _flat(self, x: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Flat float64 points and their coefficients alpha and sigma."""
        if x.shape[1:] != self.domain.shape:
            raise UserError(
                f"{type(self).__name__} has points of shape {self.domain.shape}, "
                f"got {tuple(x.shape[1:])}"
            )
        y = x.to(torch.float64).reshape(x.shape[0], self.domain.dim)
        t = times(y, t)
        return y, self.sde.alpha(t), self.sde.sigma(t)

r"""Exact fields of known data distributions.

A target is a data distribution :math:`p_0` together with the exact field of its diffusion
:math:`p_t`, the reference for networks, samplers and diagnostics. All of it is computed in float64
for any dtype of the points, and rounded once: at a noise level of :math:`10^{-3}` the log-weights
of a mixture reach :math:`10^6`, where float32 has no digits left after the point.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.domain import Domain
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import Classes
from scorefield.fields.forms import Batch, Quantity, Times, affine, times
from scorefield.noise import Noise
from scorefield.sde.base import SDE
from scorefield.sde.exploding import EDM

Steps = int | Tensor
"""The step of all draws, or of each."""

FieldT = TypeVar("FieldT", bound="ClosedForm")


class ClosedForm(ScoreField, ABC):
    """A field that is computed from data or their density."""

    @abstractmethod
    def _predict(self, x: Tensor, t: Times, quantity: Quantity) -> Tensor:
        """The field at points, without classes."""

    @abstractmethod
    def _jacobians(self, x: Tensor, t: Times) -> Tensor:
        """The Jacobians of the score at points, without classes."""

    def score(self, x: Batch, t: Times, classes: Classes = None) -> Batch:
        return self.predict(x, t, "score", classes)

    def predict(self, x: Batch, t: Times, quantity: Quantity, classes: Classes = None) -> Batch:
        return self._by_class(lambda f, x, t: f._predict(x, t, quantity), x, t, classes)

    @property
    def has_jacobian(self) -> bool:
        return True

    def jacobian(
        self, x: Batch, t: Times, classes: Classes = None
    ) -> Float[Tensor, "batch dim dim"]:
        return self._by_class(lambda f, x, t: f._jacobians(x, t), x, t, classes)

    def under(self: FieldT, sde: SDE) -> FieldT:
        """The same field under another process that runs on its domain; the buffers are shared."""
        sde.check(self.domain)
        twin = copy.deepcopy(self, self._kept())
        twin.sde = sde
        return twin

    def _kept(self) -> dict[int, object]:
        """The memo of the copy: what a twin shares or starts anew, by the id of the original."""
        return {id(buffer): buffer for buffer in self.buffers()}

    def _by_class(
        self: FieldT,
        evaluate: Callable[[FieldT, Tensor, Tensor | float], Tensor],
        x: Tensor,
        t: Times,
        classes: Classes,
    ) -> Tensor:
        """What ``evaluate`` gives for the field of each point's class; without labels there is one
        field, and no class is accepted.
        """
        self.class_rows(classes, x)
        return evaluate(self, x, t)


class Target(ClosedForm):
    r"""The exact field of a known distribution, diffused by any process; ``EDM()`` if not given.

    Subclasses define the moments, :meth:`draw`, and the four functions below on flat
    float64 points :math:`(B, D)` with coefficients :math:`\alpha, \sigma` of shape
    :math:`(B, 1)` or :math:`(1, 1)`. The score and the denoiser are computed separately, since
    either loses digits when it is computed from the other: the score at low noise, the
    denoiser at high noise. Results have the dtype of the points.

    Raises:
        ValueError: If the process is not defined on the domain.
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
        self, noise: Noise, index: Tensor, step: Steps = 0, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "..."]:
        """Data at the addresses of purpose ``"data"``, of the common shape of ``index`` and
        ``step`` followed by the event shape; the float64 value is rounded to the dtype.
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
        r"""The samples :math:`0 \dots n-1` of a seed: clean data, or diffused to the time ``t``."""
        noise, index = Noise(seed), torch.arange(n, device=self.mean.device)
        x = self.draw(noise, index, dtype=torch.float64)
        if t is not None:
            z = noise.normal("diffusion", self.domain.shape, index, dtype=torch.float64)
            x = self.sde.perturb(x, torch.full_like(z[:1].reshape(-1)[:1], t), z, self.domain)
        # Wrap again, since rounding may give the end of a period.
        return self.domain.wrap(x.to(dtype))

    def log_density(self, x: Batch, t: Times, classes: Classes = None) -> Float[Tensor, " batch"]:
        r"""The log-density :math:`\log p_t(x)` of the diffused data in nats, of each point's class;
        at ``t = 0`` that of the data.

        Raises:
            ValueError: If ``x`` has another event shape, there is no density at ``t``, or the
                classes do not fit.
        """

        def evaluate(field: Target, x: Tensor, t: Times) -> Tensor:
            return field._log_density(*field._flat(x, t)).to(x.dtype)

        self.check_inputs(x, t, first=0.0)
        return self._by_class(evaluate, x, t, classes)

    def _predict(self, x: Tensor, t: Times, quantity: Quantity) -> Tensor:
        y, alpha, sigma = self._flat(x, t)
        if quantity == "denoiser":
            value = self._denoise(y, alpha, sigma)
        else:
            a, b = affine(y, t, self.sde, quantity)
            value = a * y + b * self._score(y, alpha, sigma)
        return value.reshape(x.shape).to(x.dtype)

    def _jacobians(self, x: Tensor, t: Times) -> Tensor:
        return self._jacobian(*self._flat(x, t)).to(x.dtype)

    @property
    def has_potential(self) -> bool:
        return True

    def potential(self, x: Batch, t: Times, classes: Classes = None) -> Float[Tensor, " batch"]:
        return self.log_density(x, t, classes)

    def _flat(self, x: Tensor, t: Times) -> tuple[Tensor, Tensor, Tensor]:
        """Flat float64 points and their coefficients alpha and sigma."""
        y = x.to(torch.float64).reshape(x.shape[0], self.domain.dim)
        t = times(y, t)
        return y, self.sde.alpha(t), self.sde.sigma(t)

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
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.domain import Domain
from scorefield.errors import UserError
from scorefield.fields.base import Batch, Quantity, ScoreField, Times, affine, times
from scorefield.fields.classes import Classes
from scorefield.noise import Noise
from scorefield.sde.base import SDE
from scorefield.sde.exploding import EDM

Steps = int | Tensor
"""The step of all draws, or of each."""

FieldT = TypeVar("FieldT", bound="ClosedForm")


class ClosedForm(ScoreField, ABC):
    """A field that is computed from data or their density.

    One that is made of labelled points has a field for each class, made of the points of that class
    alone, at which points of the class are evaluated. Subclasses define :meth:`_predict` and
    :meth:`_jacobians`; those with labels call :meth:`_label` and define :meth:`_part` too.
    """

    labels: Tensor | None

    def __init__(self, sde: SDE, domain: Domain) -> None:
        super().__init__(sde, domain)
        self.register_buffer("labels", None, persistent=False)
        # No modules: they are made of what the field itself stores.
        self._parts: dict[tuple[int, torch.device], ScoreField] = {}

    def _label(self, labels: Int[Tensor, " n"] | None, n: int) -> None:
        """Sets the classes of the points that the field is made of."""
        if labels is not None:
            if labels.shape != (n,) or labels.is_floating_point() or labels.dtype == torch.bool:
                raise UserError(
                    f"{n} points need one integer class each, got {labels.dtype} of shape "
                    f"{tuple(labels.shape)}"
                )
            if int(labels.min()) < 0:
                raise UserError(f"classes are counted from 0, got {int(labels.min())}")
            self.labels = labels.long()

    @property
    def classes(self) -> int | None:
        return None if self.labels is None else int(self.labels.max()) + 1

    @abstractmethod
    def _predict(self, x: Tensor, t: Times, quantity: Quantity) -> Tensor:
        """The field at points, without classes."""

    @abstractmethod
    def _jacobians(self, x: Tensor, t: Times) -> Tensor:
        """The Jacobians of the score at points, without classes."""

    def _part(self: FieldT, rows: Int[Tensor, " rows"]) -> FieldT:
        """The field that is made of some of the points."""
        raise NotImplementedError

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
        shared: dict[int, object] = {id(buffer): buffer for buffer in self.buffers()}
        twin = copy.deepcopy(self, {**shared, id(self._parts): {}})
        twin.sde = sde
        return twin

    def of_class(self: FieldT, number: int) -> FieldT:
        """The field that is made of the points of one class; raises ``ValueError`` if there are
        none.
        """
        if self.labels is None:
            raise UserError(f"{type(self).__name__} has no classes")
        key = number, self.labels.device
        if key not in self._parts:
            rows = (self.labels == number).nonzero().squeeze(1)
            if not len(rows):
                raise UserError(f"no training point is of class {number}")
            self._parts[key] = self._part(rows)
        found: FieldT = self._parts[key]  # type: ignore[assignment]
        return found

    def _by_class(
        self: FieldT,
        evaluate: Callable[[FieldT, Tensor, Tensor | float], Tensor],
        x: Tensor,
        t: Times,
        classes: Classes,
    ) -> Tensor:
        """What ``evaluate`` gives for the field of each class at the points of that class."""
        index = self.class_rows(classes, x)
        if index is None or not len(index):
            return evaluate(self, x, t)
        time = times(x.to(torch.float64), t).reshape(-1).expand(len(x))
        parts = []
        for number in index.unique().tolist():
            rows = (index == number).nonzero().squeeze(1)
            field = self if number == self.classes else self.of_class(number)
            parts.append((rows, evaluate(field, x[rows], time[rows])))
        return together(parts)


def together(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Values of some rows each, in the order of the rows."""
    if len(parts) == 1:
        return parts[0][1]
    rows = torch.cat([rows for rows, _ in parts])
    return torch.cat([values for _, values in parts])[rows.argsort()]


class Target(ClosedForm):
    r"""The exact field of a known distribution, diffused by any process; ``EDM()`` if not given.

    Subclasses define the moments, :meth:`draw`, and the four functions below on flat
    float64 points :math:`(B, D)` with coefficients :math:`\alpha, \sigma` of shape
    :math:`(B, 1)` or :math:`(1, 1)`. The score and the denoiser are computed separately, since
    either loses digits when it is computed from the other: the score at low noise, the
    denoiser at high noise. Results have the dtype of the points.
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

        self.check(x, t, first=0.0)
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

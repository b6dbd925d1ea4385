r"""Fields of the posterior, given a measurement.

By Bayes' rule the score of points that have the measurement :math:`y = \mathcal{A}(x_0) + \tau n`
is

.. math:: \nabla_x \log p_t(x \mid y) = s(x, t) + \nabla_x \log p_t(y \mid x), \qquad
    p_t(y \mid x) = \int N\big(y;\, \mathcal{A}(x_0),\, \tau^2 I\big)\, p(x_0 \mid x_t = x)\,
    \mathrm{d}x_0 .

The integral is not known for a trained field. Each method replaces :math:`p(x_0 \mid x_t)` by a
normal distribution around the denoiser :math:`D(x)`, of a covariance :math:`C`, and
:math:`\mathcal{A}` by its linearisation :math:`J` there:

.. math:: \nabla_x \log p_t(y \mid x) \approx \frac{\partial D}{\partial x}^T J^T
    \big(J C J^T + \tau^2 I\big)^{-1} \big(y - \mathcal{A}(D(x))\big) .

* :class:`DPS`: :math:`C = 0`; a gradient where the prior is.
* :class:`PiGDM`: :math:`C = \rho_t^2 I`; a gradient where the prior is and a matrix measures.
* :class:`MMPS`: the exact :math:`C = \tfrac{\sigma^2}{\alpha}\,\partial D / \partial x`; none.
* :class:`~.ProjectedField` replaces the measured part of :math:`D` instead; no gradient.

For normal data and a matrix :class:`MMPS` is exact, and so is :class:`PiGDM` where all variances
are equal. :class:`DPS` takes the noise of the measurement for all of the uncertainty: its samples
are too narrow, and off. Their forms, such as the denoiser, are their score converted.
Without noise, the data of :class:`PiGDM` and :class:`MMPS` must not contradict themselves.

A measurement is hard for a sampler where :math:`\tau` is small: the score of :class:`DPS` changes
over a length that is :math:`\tau^2 / v` times that of the noise, with the variance :math:`v` of the
data, and a sampler needs steps as fine.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.checks import check_count, check_finite, check_kind, check_positive
from scorefield.domain import Euclidean
from scorefield.errors import UnsupportedError, UserError
from scorefield.fields.base import ScoreField, check_field
from scorefield.fields.classes import Classes
from scorefield.fields.conjugate_gradients import conjugate_gradients
from scorefield.fields.forms import Batch, Quantity, Times, affine, convert, times
from scorefield.fields.gradient import outside_inference, pullback
from scorefield.fields.observation import Linearized, Observation


class PosteriorField(ScoreField):
    r"""A field of points that have a measurement, by one of the methods of
    :mod:`scorefield.fields.posterior`.

    An observation of one measurement gives a field with the classes of the prior. One of :math:`K`
    gives a field of :math:`K` classes, one for each, which is the prior without a class.

    Arguments:
        field: The field of the prior.
        observation: The measurements.

    Raises:
        ValueError: If the observation does not measure the points of the field, or there are many
            measurements and the prior has classes, of which :class:`~.OneClass` takes one.
        TypeError: If the field is not in flat space.
    """

    def __init__(self, field: ScoreField, observation: Observation) -> None:
        check_field(field)
        check_kind("the observation of a posterior", observation, Observation)
        super().__init__(field.sde, field.domain)
        if not isinstance(field.domain, Euclidean):
            raise UnsupportedError(
                f"a posterior is computed in flat space, and the field is on {field.domain}"
            )
        observation.check(field.domain.shape)
        if observation.count is not None and field.classes is not None:
            raise UserError(
                f"the classes of a posterior are its {observation.count} measurements, and the "
                "prior has classes itself: give one of them, sf.OneClass(field, number)"
            )
        self.field = field
        self.observation = observation

    @property
    def classes(self) -> int | None:
        return self.field.classes if self.observation.count is None else self.observation.count

    @property
    def unlabelled(self) -> bool:
        return self.field.unlabelled

    def predict(self, x: Batch, t: Times, quantity: Quantity, classes: Classes = None) -> Batch:
        own, rows = self._shared(x, classes)
        if self.observation.count is not None and rows is None:
            return self.field.predict(x, t, quantity)
        return self._posterior(x, t, quantity, own, rows)

    def _shared(self, x: Tensor, classes: Classes) -> tuple[Classes, Tensor | None]:
        """The classes of the prior, and the measurement of each row where there are many."""
        rows = self.class_rows(classes, x)
        return (classes, None) if self.observation.count is None else (None, rows)

    @outside_inference
    def _posterior(
        self, x: Tensor, t: Times, quantity: Quantity, own: Classes, rows: Tensor | None
    ) -> Tensor:
        # The velocity determines data and noise at every level, which neither does of the other.
        velocity, pull = self._likelihood_score(x, t, own, rows)
        if rows is not None:
            none = rows.eq(self.observation.count or 0)
            pull = torch.where(none.reshape(-1, *(1,) * (x.dim() - 1)), 0, pull)
        gain = affine(x, t, self.sde, quantity).of_value
        return convert(velocity, x, t, self.sde, "velocity", quantity) + gain * pull

    @abstractmethod
    def _likelihood_score(
        self, x: Tensor, t: Times, own: Classes, rows: Int[Tensor, " batch"] | None
    ) -> tuple[Tensor, Tensor]:
        """The velocity of the prior, and what is added to its score."""

    def _denoised(self, x: Tensor, t: Times, own: Classes) -> tuple[Tensor, Tensor]:
        """The denoiser of the prior, and its velocity."""
        velocity = self.field.velocity(x, t, own)
        return convert(velocity, x, t, self.sde, "velocity", "denoiser"), velocity


class _Guided(PosteriorField):
    """A posterior whose likelihood is that of a normal distribution around the denoiser."""

    def _likelihood_score(
        self, x: Tensor, t: Times, own: Classes, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        denoised, velocity, pull = pullback(lambda u: self._denoised(u, t, own), x)
        near = self.observation.linearize(denoised)
        residual = self.observation.values(rows, x) - near.value
        weighted = self._weighted(residual, times(x, t), near, pull)
        return velocity, pull(near.back(weighted))

    @abstractmethod
    def _weighted(
        self, residual: Tensor, t: Tensor, near: Linearized, pull: Callable[[Tensor], Tensor]
    ) -> Tensor:
        r"""The product :math:`(J C J^T + \tau^2 I)^{-1} r` with the residual."""


class _Fixed(_Guided):
    """One whose normal distribution has a covariance that the point does not change."""

    def _weighted(
        self, residual: Tensor, t: Tensor, near: Linearized, pull: Callable[[Tensor], Tensor]
    ) -> Tensor:
        return self._solved(residual, t, near)

    @abstractmethod
    def _solved(self, residual: Tensor, t: Tensor, near: Linearized) -> Tensor:
        r"""The product :math:`(J C J^T + \tau^2 I)^{-1} r` with the residual."""

    def _energy(self, x: Tensor, t: Times, classes: Classes) -> Float[Tensor, " batch"]:
        r"""The potential :math:`\phi - \tfrac12 r^T (J C J^T + \tau^2 I)^{-1} r`, where :math:`J`
        does not depend on the point either, or :math:`C` is zero.
        """
        own, rows = self._shared(x, classes)
        prior = self.field.potential(x, t, own)
        if self.observation.count is not None and rows is None:
            return prior
        near = self.observation.linearize(self.field.denoise(x, t, own))
        residual = self.observation.values(rows, x) - near.value
        weighted = self._solved(residual, times(x, t), near)
        fall = 0.5 * (residual * weighted).sum(dim=1)
        return prior - (fall if rows is None else fall * (rows != self.observation.count))


class DPS(_Fixed):
    r"""Diffusion posterior sampling: the data are taken to be at the denoiser, without variance.

    .. math:: s(x, t) - \frac{\gamma}{2 \tau^2}\, \nabla_x \big|y - \mathcal{A}(D(x, t))\big|^2

    It is a gradient where the prior is. The published sampler adds, in each of its steps, a
    multiple of the gradient that is divided by :math:`|y - \mathcal{A}(D)|` in place of
    :math:`\tau^2`: a displacement for each step, whose sum grows with the number of steps, and no
    field of a density.

    For a normal coordinate of mean 0 and variance :math:`v`, measured itself, its probability flow
    ends at the mean :math:`2 \sqrt k\, F(\sqrt k)\, y`, with Dawson's integral :math:`F` and
    :math:`k = v / 2 \tau^2`, and the variance :math:`v\, e^{-2k}`. Those of the posterior are
    :math:`2k\,y / (1 + 2k)` and :math:`v / (1 + 2k)`.

    Arguments:
        field: The field of the prior.
        observation: The measurements.
        scale: The factor :math:`\gamma`, 1 for Bayes' rule.

    Raises:
        ValueError: As of :class:`PosteriorField`; if the observation has no noise, or the scale is
            not finite.

    References:
        Diffusion posterior sampling for general noisy inverse problems (Chung, Kim, McCann, Klasky
        and Ye, 2023), equations 11 and 16 and algorithm 1.
    """

    def __init__(
        self, field: ScoreField, observation: Observation, scale: float | int = 1.0
    ) -> None:
        super().__init__(field, observation)
        check_positive("DPS: the noise of its observation", observation.noise)
        check_finite("DPS: scale", scale)
        self.scale = float(scale)

    def _solved(self, residual: Tensor, t: Tensor, near: Linearized) -> Tensor:
        return residual * (self.scale / self.observation.noise**2)

    @property
    def has_potential(self) -> bool:
        return self.field.has_potential

    def potential(self, x: Batch, t: Times, classes: Classes = None) -> Float[Tensor, " batch"]:
        return self._energy(x, t, classes)

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}"


class PiGDM(_Fixed):
    r"""Pseudoinverse-guided diffusion: the data are taken to have one variance around the denoiser.

    .. math:: \frac{\partial D}{\partial x}^T A^T \big(\rho_t^2 A A^T + \tau^2 I\big)^{-1}
        (y - A D), \qquad \rho_t^2 = \frac{\sigma^2 v}{\alpha^2 v + \sigma^2}

    with the variance :math:`v` of the data, 1 as published. For a matrix the inverse is exact, and
    the field a gradient where the prior is. A function is linearised at the denoiser, and its
    inverse approximated by conjugate gradients.

    Arguments:
        field: The field of the prior.
        observation: The measurements.
        sigma_data: The standard deviation :math:`\sqrt v` of the data.
        iterations: The number of conjugate gradients for an observation by a function.

    Raises:
        ValueError: As of :class:`PosteriorField`; if ``sigma_data`` or ``iterations`` is not
            positive.

    References:
        Pseudoinverse-guided diffusion models for inverse problems (Song, Vahdat, Mardani and Kautz,
        2023), section 3.
    """

    def __init__(
        self,
        field: ScoreField,
        observation: Observation,
        sigma_data: float | int = 1.0,
        iterations: int = 16,
    ) -> None:
        super().__init__(field, observation)
        check_positive("PiGDM: sigma_data", sigma_data)
        check_count("PiGDM: iterations", iterations)
        self.sigma_data = float(sigma_data)
        self.iterations = iterations
        if observation.matrix is not None:
            a = observation.matrix.reshape(len(observation.matrix), -1)
            spectrum, basis = torch.linalg.eigh(a @ a.T)
            self.register_buffer("spectrum", spectrum.clamp(min=0), persistent=False)
            self.register_buffer("basis", basis, persistent=False)

    def _solved(self, residual: Tensor, t: Tensor, near: Linearized) -> Tensor:
        sigma, signal = self.sde.sigma(t), (self.sde.alpha(t) * self.sigma_data) ** 2
        variance = self.sigma_data**2 * sigma**2 / (signal + sigma**2)
        variance, noise = variance.reshape(-1, 1), self.observation.noise**2
        if self.observation.matrix is None:

            def product(u: Tensor) -> Tensor:
                return variance * near.forward(near.back(u)) + noise * u

            return conjugate_gradients(product, residual, self.iterations)
        spectrum, basis = self.spectrum.to(residual), self.basis.to(residual)
        total = variance * spectrum + noise
        # Without noise, linearly dependent rows measure nothing new.
        floor = len(spectrum) * torch.finfo(total.dtype).eps * total[:, -1:]
        return ((residual @ basis) * torch.where(total > floor, 1 / total, 0)) @ basis.T

    @property
    def has_potential(self) -> bool:
        return self.field.has_potential and self.observation.matrix is not None

    def potential(self, x: Batch, t: Times, classes: Classes = None) -> Float[Tensor, " batch"]:
        if self.observation.matrix is None:
            raise UnsupportedError("PiGDM has a potential where a matrix makes the measurement")
        return self._energy(x, t, classes)

    def extra_repr(self) -> str:
        return f"sigma_data={self.sigma_data:g}, iterations={self.iterations}"


class MMPS(_Guided):
    r"""Moment matching: the data are taken to be normal, with their exact posterior covariance.

    .. math:: \frac{\partial D}{\partial x}^T A^T \big(A V A^T + \tau^2 I\big)^{-1} (y - A D),
        \qquad V = \mathrm{Cov}[x_0 \mid x_t = x]
        = \frac{\sigma^2}{\alpha}\,\frac{\partial D}{\partial x},

    by conjugate gradients, of which each takes a product with the Jacobian of the prior, a pass
    back through its one evaluation. As many as there are measurements solve the equations up to
    rounding; for normal data the field is then the exact posterior. The derivative of :math:`V` is
    left out: for other data the field is no gradient.

    The Jacobian of a trained field need not be a covariance. Directions along which it has no
    positive variance are not followed.

    Arguments:
        field: The field of the prior.
        observation: The measurements.
        iterations: The number of conjugate gradients.

    Raises:
        ValueError: As of :class:`PosteriorField`; if ``iterations`` is not positive.

    References:
        Learning diffusion priors from observations by expectation maximization (Rozet, Andry,
        Lanusse and Louppe, 2024), section 4.2.
    """

    def __init__(self, field: ScoreField, observation: Observation, iterations: int = 3) -> None:
        super().__init__(field, observation)
        check_count("MMPS: iterations", iterations)
        self.iterations = iterations

    def _weighted(
        self, residual: Tensor, t: Tensor, near: Linearized, pull: Callable[[Tensor], Tensor]
    ) -> Tensor:
        spread = self.sde.sigma(t) ** 2 / self.sde.alpha(t)

        def product(u: Tensor) -> Tensor:
            along = near.forward(spread * pull(near.back(u)))
            return along + self.observation.noise**2 * u

        return conjugate_gradients(product, residual, self.iterations)

    def extra_repr(self) -> str:
        return f"iterations={self.iterations}"

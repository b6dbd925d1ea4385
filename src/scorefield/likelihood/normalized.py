r"""The log-density of a potential in one call of its network.

The potential :math:`\phi` of a field is a log-density up to a constant at each noise level. After
:class:`~.DualScoreMatching` it is one constant for all of them, as far as the training succeeded:

.. math:: \log p_t(x) = \phi(x, t) - \log Z, \qquad Z = \int e^{\phi(x, t_{max})}\,\mathrm{d}x .

At the greatest noise level the density is that of the prior :math:`\pi` up to what is left of the
data, and importance sampling finds :math:`Z` with few draws,

.. math:: Z = \mathbb{E}_{x \sim \pi} \big[ e^{\phi(x, t_{max})} / \pi(x) \big] .

References:
    Learning normalized image densities via dual score matching (Guth, Kadkhodaie and Simoncelli,
    2025, arXiv 2506.05310), for the constant from the greatest noise.

    Monte Carlo theory, methods and examples (Owen, 2013), section 9.1, for importance sampling.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.checks import check_count, check_finite, check_not_negative, check_positive
from scorefield.engine import device_of, exact, in_blocks
from scorefield.errors import UnsupportedError, UserError
from scorefield.estimate import Estimate
from scorefield.fields.base import ScoreField, check_field, evaluation_mode
from scorefield.fields.classes import Classes
from scorefield.fields.forms import Batch, Quantity, Times, times
from scorefield.noise import Noise
from scorefield.progress import warn
from scorefield.samplers.weights import effective_number, log_mean

_FEW = 100
"""The effective number of weights below which an error by the delta method is not believed: it is
10 % of the mean weight, and the draws that are missing may be the heaviest."""


class NormalizedField(ScoreField):
    r"""A field whose potential is a log-density, :math:`\phi - \log Z`, which :func:`normalized`
    makes.

    The score is that of the field, and the gradient of the log-density. A :func:`~.mixture` of such
    fields has the weights that it is given.

    Arguments:
        field: A field with a potential and without classes; it is shared, not copied.
        log_constant: The constant :math:`\log Z`, in nats.
        standard_error: Its standard error.
        effective: The effective number :math:`(\sum w)^2 / \sum w^2` of the weights behind it;
            ``None`` for a constant that is known otherwise.

    Raises:
        TypeError: If the field has no potential.
        ValueError: If it has classes, or a number is not finite.
    """

    def __init__(
        self,
        field: ScoreField,
        log_constant: float,
        standard_error: float = 0.0,
        effective: float | None = None,
    ) -> None:
        _check(field)
        super().__init__(field.sde, field.domain)
        check_finite("log_constant", log_constant)
        check_not_negative("standard_error", standard_error)
        if effective is not None:
            check_positive("effective", effective)
        self.field, self.effective = field, effective
        self.log_constant, self.standard_error = float(log_constant), float(standard_error)

    def predict(self, x: Batch, t: Times, quantity: Quantity, classes: Classes = None) -> Batch:
        return self.field.predict(x, t, quantity, classes)

    @property
    def has_potential(self) -> bool:
        return True

    def potential(self, x: Batch, t: Times, classes: Classes = None) -> Float[Tensor, " batch"]:
        return self.field.potential(x, t, classes) - self.log_constant

    def log_prob(
        self, x: Float[Tensor, "batch *event"], t_min: float | None = None
    ) -> Float[Tensor, " batch"]:
        r"""The log-density at points in nats, by one call of the network.

        As that of :func:`~.log_prob` it is the density of :math:`\hat x = x_t / \alpha(t)` at
        ``t_min``, per volume in units of the data: that of data blurred by
        :math:`\lambda(t_{min})`. That one is normalised whatever the field, by the divergence of
        its flow; this one is as far as the potential grows with the noise as a log-density does.
        It keeps no graph: the gradient is :math:`\alpha` times the score at
        :math:`\alpha \hat x`.

        Arguments:
            x: Points :math:`\hat x`, in units of the data.
            t_min: The time of the points; the process's own ``t_min`` by default.

        Raises:
            ValueError: If the points do not fit the field, or ``t_min`` the process.
        """
        start = self.sde.t_min if t_min is None else t_min
        check_finite("t_min", start)
        if not self.sde.t_min <= start <= self.sde.t_max:
            raise UserError(
                f"t_min must lie in [{self.sde.t_min:g}, {self.sde.t_max:g}], got {start:g}"
            )
        alpha = self.sde.alpha(times(x, start))
        with exact(), torch.no_grad(), evaluation_mode(self):
            found = self.potential(alpha * x, start)
        return found + self.domain.dim * alpha.log().reshape(-1)

    def extra_repr(self) -> str:
        text = f"log_constant={self.log_constant:g}, standard_error={self.standard_error:.1g}"
        return text if self.effective is None else f"{text}, effective={self.effective:.0f}"


def normalized(field: ScoreField, n: int = 4096, seed: int = 0) -> NormalizedField:
    r"""The field whose potential is a log-density, with the constant of the greatest noise level.

    Of a potential that was trained without :class:`~.DualScoreMatching`, it is a log-density at the
    greatest noise level only. That holds for a :class:`~.OneClass` of any trained field, as
    :class:`~.DualScoreMatching` refuses fields with classes.

    The standard error is that of the mean weight by the delta method. It is too small where few
    draws carry most of the weight; an effective number below 100 is warned of.

    Arguments:
        field: A field with a potential and without classes; of a class, a :class:`~.OneClass`.
        n: The number of draws from the prior, at the addresses of purpose ``"prior"``.
        seed: Their seed.

    Raises:
        TypeError: If the field has no potential.
        ValueError: If it has classes, ``n`` is below 2, or a potential is not finite.

    Example:
        >>> density = normalized(field)
        >>> density.log_prob(x), density.standard_error
    """
    _check(field)
    check_count("n", n, 2)
    constant, effective = _log_constant(field, n, Noise(seed))
    if effective < _FEW:
        warn(
            f"the constant of {type(field).__name__} is carried by {effective:.1f} of {n} weights, "
            "too few for its standard error to be believed: take a larger n, or a process whose "
            "greatest noise level hides the data"
        )
    return NormalizedField(field, constant.value, constant.standard_error, effective)


def _log_constant(field: ScoreField, n: int, noise: Noise) -> tuple[Estimate, float]:
    """The logarithm of the integral, with the error of the mean weight by the delta method, and the
    effective number of weights.
    """
    prior, end = field.sde.prior(field.domain), field.sde.t_max
    x = prior.sample(noise, torch.arange(n, device=device_of(field)), torch.float64)
    with exact(), torch.no_grad(), evaluation_mode(field):
        logs = in_blocks(lambda x: field.potential(x, end) - prior.log_prob(x), x)
    if not bool(logs.isfinite().all()):
        raise UserError(
            f"{type(field).__name__} has no constant: its potential is not finite at points of "
            "the prior"
        )
    return log_mean(logs), effective_number(logs)


def _check(field: ScoreField) -> None:
    check_field(field)
    if not field.has_potential:
        raise UnsupportedError(
            f"{type(field).__name__} has no potential that could be a log-density"
        )
    if field.classes is not None:
        raise UserError(
            f"{type(field).__name__} has {field.classes} classes, each with a constant of its own: "
            "take OneClass(field, number), of which a trained one is a log-density at the greatest "
            "noise level only"
        )

r"""Predictors: one step of the reverse-time process.

Every predictor is affine in the state and its score,

.. math:: \bar x = a\,x + b\,s(x, t), \qquad x' = \bar x + c\,z, \qquad z \sim N(0, I),

with coefficients :math:`a, b, c` that follow from the forward step of the process, :math:`x_t = f
x_s + \delta z`. States are :math:`x_t` itself and not :math:`x_t / \alpha`.

References:
    Score-based generative modeling through stochastic differential equations (Song,
    Sohl-Dickstein, Kingma, Kumar, Ermon and Poole, 2021), section 4.2 and appendices E and F.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.sde.base import SDE
from scorefield.sde.discrete import Discretization, EulerForward, ForwardStep

Variance = Literal["upper", "posterior"]


class ReverseStep(NamedTuple):
    r"""A step :math:`\bar x = a x + b s`, :math:`x' = \bar x + c z` of the reverse process:
    ``keep`` is :math:`a`, ``gain`` :math:`b` and ``spread`` :math:`c`.
    """

    keep: float | Tensor
    gain: float | Tensor
    spread: float | Tensor

    def mean(self, x: Tensor, score: Tensor) -> Tensor:
        r"""The state :math:`\bar x` without the noise of the step."""
        return self.keep * x + self.gain * score


class Predictor(ABC):
    """One step of the reverse process, from a time to an earlier one or to the clean data, with one
    network call.
    """

    @property
    def stochastic(self) -> bool:
        """Whether a step draws noise."""
        return True

    @abstractmethod
    def reverse(
        self, sde: SDE, t: Tensor, s: Tensor | None, discretization: Discretization
    ) -> ReverseStep:
        """The coefficients of the steps back from the times ``t``, of any shape, to ``s``, or to
        the clean data; raises ``ValueError`` if the discretization does not fit the process.
        """


@dataclass(frozen=True)
class ReverseDiffusion(Predictor):
    r"""The reverse of the forward step :math:`x_t = f x_s + \delta z`.

    .. math:: \bar x = (2 - f)\,x + \delta^2 s(x, t), \qquad x' = \bar x + \delta z.

    Arguments:
        probability_flow: Whether to use half of :math:`\delta^2 s` and no noise: the step of the
            probability-flow ODE.

    References:
        Score-based generative modeling through stochastic differential equations (Song et al.,
        2021), equation 46; equation 51 for the probability flow.
    """

    probability_flow: bool = False

    @property
    def stochastic(self) -> bool:
        return not self.probability_flow

    def reverse(
        self, sde: SDE, t: Tensor, s: Tensor | None, discretization: Discretization
    ) -> ReverseStep:
        forward = discretization.step(sde, t, s)
        return _turned(forward.factor, forward.std, self.probability_flow)


@dataclass(frozen=True)
class EulerMaruyama(Predictor):
    r"""The method of Euler and Maruyama on the reverse-time SDE.

    With drift :math:`f`, diffusion :math:`g` and the step :math:`h`,

    .. math:: \bar x = x - \big(f(t)\,x - g(t)^2 s(x, t)\big)\,h, \qquad
        x' = \bar x + g(t) \sqrt h\, z.

    The step is that of the grid, :math:`h = t - s`; the last one, to the clean data, is reverse
    diffusion with the exact transition of the process. With a discretisation in :math:`N` levels,
    :math:`h = t_{max} / N` everywhere.

    Arguments:
        probability_flow: Whether to use half of :math:`g^2 s` and no noise: Euler's method on the
            probability-flow ODE.

    References:
        Score-based generative modeling through stochastic differential equations (Song et al.,
        2021), equations 6 and 13; appendix E for its name.
    """

    probability_flow: bool = False

    @property
    def stochastic(self) -> bool:
        return not self.probability_flow

    def reverse(
        self, sde: SDE, t: Tensor, s: Tensor | None, discretization: Discretization
    ) -> ReverseStep:
        levels = levels_of(discretization)
        if levels is not None:
            discretization = EulerForward(levels)
        elif s is not None:
            h = t - s
            std = (sde.diffusion_squared(t) * h).sqrt()
            return _turned(1 + sde.drift(t) * h, std, self.probability_flow)
        forward = discretization.step(sde, t, s)
        return _turned(forward.factor, forward.std, self.probability_flow)


@dataclass(frozen=True)
class Ancestral(Predictor):
    r"""Ancestral sampling of the chain :math:`x_t = f x_s + \delta z`.

    .. math:: \bar x = \frac{x + \delta^2 s(x, t)}{f}, \qquad x' = \bar x + c\,z,

    where :math:`c = \delta` (``"upper"``) or :math:`c = \delta\,\sigma_s / \sigma_t`
    (``"posterior"``), the bounds of the variance of :math:`x_s` given :math:`x_t` for data of unit
    variance and for a single point.

    Arguments:
        variance: Which of the two; by default ``"posterior"`` where the process keeps the mean
            (:math:`f = 1`, as in VE), ``"upper"`` where it shrinks it (as in VP).

    Raises:
        ValueError: If the variance is not one of the two.

    References:
        Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), section 3.2, for both
        variances.

        Score-based generative modeling through stochastic differential equations (Song et al.,
        2021), equation 4 for VP and equation 47 for VE.
    """

    variance: Variance | None = None

    def __post_init__(self) -> None:
        if self.variance is not None and self.variance not in get_args(Variance):
            raise UserError(
                f"variance is one of {', '.join(get_args(Variance))}, not {self.variance!r}"
            )

    def reverse(
        self, sde: SDE, t: Tensor, s: Tensor | None, discretization: Discretization
    ) -> ReverseStep:
        forward = discretization.step(sde, t, s)
        keep = 1 / forward.factor
        spread = forward.std
        if self.variance == "posterior" or (self.variance is None and _keeps_mean(forward)):
            spread = spread * forward.sigma_from / forward.sigma_to
        return ReverseStep(keep, keep * forward.std**2, spread)


def levels_of(discretization: Discretization) -> int | None:
    """The number of levels of a discretisation; ``None`` if it accepts any grid."""
    return getattr(discretization, "levels", None)


def _turned(factor: Tensor, std: Tensor, probability_flow: bool) -> ReverseStep:
    """The reverse-diffusion step of a forward step."""
    if probability_flow:
        return ReverseStep(2 - factor, 0.5 * std**2, torch.zeros_like(std))
    return ReverseStep(2 - factor, std**2, std)


def _keeps_mean(forward: ForwardStep) -> bool:
    return bool((forward.factor == 1).all())

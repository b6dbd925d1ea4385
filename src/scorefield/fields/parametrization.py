r"""What a network predicts.

A backbone :math:`F` receives a scaled input and a label of the noise level; the posterior means of
the data and of the noise are affine in its output,

.. math:: D = a\,x + b\,F(c_{in}\,x,\; c_{noise}), \qquad E = c\,x + d\,F(c_{in}\,x,\; c_{noise}),

and a parametrisation states both, so that no form of the field is obtained from another by
subtracting nearly equal numbers, or divided by a coefficient that may vanish.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from scorefield.checks import check_positive
from scorefield.fields.forms import Means, Pair, Quantity, means
from scorefield.fields.labels import LOG_NOISE, Label
from scorefield.sde.base import SDE
from scorefield.sde.tables import alphas_cumprod, level_index


class Coefficients(NamedTuple):
    r"""The posterior means of the data and of the noise as combinations of :math:`x` and
    :math:`F(c_{in}\,x,\; c_{noise})`.
    """

    means: Means
    c_in: Tensor
    c_noise: Tensor


class Parametrization(ABC):
    r"""What the backbone predicts, as coefficients of :math:`\alpha` and :math:`\sigma`, and the
    noise label :math:`c_{noise}`.
    """

    periodic: ClassVar[bool] = False
    """Whether the score is periodic where the backbone is, so that it is defined on a torus."""

    @abstractmethod
    def coefficients(self, t: Tensor, sde: SDE) -> Coefficients:
        """The coefficients at the given times, elementwise."""


@dataclass(frozen=True)
class EDMScaling(Parametrization):
    r"""Input and target of unit variance at every noise level.

    With :math:`\lambda = \sigma / \alpha`, :math:`\hat x = x / \alpha` and the data's standard
    deviation :math:`\sigma_d`, the denoiser is
    :math:`D = c_{skip}\hat x + c_{out} F(\hat x / \sqrt{\lambda^2 + \sigma_d^2}, c_{noise})` with
    :math:`c_{skip} = \sigma_d^2 / (\lambda^2 + \sigma_d^2)` and
    :math:`c_{out} = \lambda\sigma_d / \sqrt{\lambda^2 + \sigma_d^2}`; as noise and as a score,

    .. math:: E = \frac{\sigma x}{v} - \frac{\alpha\sigma_d}{\sqrt v} F, \qquad
        s = -\frac{x}{v} + \frac{\sigma_d}{\lambda\sqrt v} F, \qquad
        v = \sigma^2 + \alpha^2\sigma_d^2 .

    Arguments:
        sigma_data: The standard deviation :math:`\sigma_d` of a coordinate of the data.
        label: The noise label of the network.

    Raises:
        ValueError: If ``sigma_data`` is not positive.

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        table 1, column "Ours", and appendix B.6.
    """

    sigma_data: float
    label: Label = LOG_NOISE

    def __post_init__(self) -> None:
        check_positive("sigma_data", self.sigma_data)

    def coefficients(self, t: Tensor, sde: SDE) -> Coefficients:
        sigma, spread = sde.sigma(t), self.sigma_data * sde.alpha(t)
        variance = sigma**2 + spread**2
        scale = variance.sqrt()
        denoiser = Pair(self.sigma_data * spread / variance, self.sigma_data * sigma / scale)
        noise = Pair(sigma / variance, -spread / scale)
        return Coefficients(Means(denoiser, noise), 1 / scale, self.label(t, sde))


@dataclass(frozen=True)
class EnergyScaling(Parametrization):
    r"""Input of unit variance, and a potential in nats at low noise.

    With :math:`v = \sigma^2 + \alpha^2\sigma_d^2` the score is that of normal data, and a part
    whose potential :math:`\psi` is multiplied by the correlation
    :math:`\rho = \alpha\sigma_d / \sqrt v` of the data with :math:`x_t`,

    .. math:: s = -\frac{x}{v} + \frac{\rho}{\sqrt v}\, F, \qquad
        E = \frac{\sigma x}{v} - \frac{\sigma \rho}{\sqrt v}\, F, \qquad
        F = \nabla \psi(x / \sqrt v, c_{noise}), \qquad
        \phi = -\frac{|x|^2}{2v} + \rho\,\psi .

    :class:`EDMScaling` has :math:`1 / \lambda` in place of :math:`1 / \sqrt{\lambda^2 +
    \sigma_d^2}`. Its target has unit variance at every noise level, and the potential is that of a
    network times :math:`\sigma_d / \lambda`, without bound at low noise, and so is its derivative
    in :math:`\lambda`. This one is for :class:`~.DualScoreMatching`, which learns that too; at high
    noise, where :math:`\rho \approx \sigma_d / \lambda`, the two are the same.

    Arguments:
        sigma_data: The standard deviation :math:`\sigma_d` of a coordinate of the data.
        label: The noise label of the network.

    Raises:
        ValueError: If ``sigma_data`` is not positive.
    """

    sigma_data: float
    label: Label = LOG_NOISE

    def __post_init__(self) -> None:
        check_positive("sigma_data", self.sigma_data)

    def coefficients(self, t: Tensor, sde: SDE) -> Coefficients:
        sigma, spread = sde.sigma(t), self.sigma_data * sde.alpha(t)
        variance = sigma**2 + spread**2
        denoiser = Pair(self.sigma_data * spread / variance, self.sigma_data * sigma**2 / variance)
        noise = Pair(sigma / variance, -sigma * spread / variance)
        return Coefficients(Means(denoiser, noise), 1 / variance.sqrt(), self.label(t, sde))


@dataclass(frozen=True)
class Prediction(Parametrization):
    """The backbone receives :math:`x_t` and predicts one of the forms of the field itself."""

    form: ClassVar[Quantity]

    label: Label = LOG_NOISE

    def coefficients(self, t: Tensor, sde: SDE) -> Coefficients:
        return Coefficients(means(self.form, t, sde), torch.ones_like(t), self.label(t, sde))


@dataclass(frozen=True)
class NoisePrediction(Prediction):
    r"""The backbone receives :math:`x_t` and predicts the noise: :math:`s = -F(x) / \sigma`.

    References:
        Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), equation 11.
    """

    form = "noise"
    periodic = True


@dataclass(frozen=True)
class ScorePrediction(Prediction):
    """The backbone receives :math:`x_t` and predicts the score itself: :math:`s = F(x)`."""

    form = "score"
    periodic = True


@dataclass(frozen=True)
class DenoiserPrediction(Prediction):
    r"""The backbone receives :math:`x_t` and predicts the data: :math:`s = (\alpha F(x) - x) /
    \sigma^2`.

    References:
        Progressive distillation for fast sampling of diffusion models (Salimans and Ho, 2022),
        section 4.
    """

    form = "denoiser"


@dataclass(frozen=True)
class VelocityPrediction(Prediction):
    r"""The backbone receives :math:`x_t` and predicts the velocity :math:`\dot\alpha\,D +
    \dot\sigma\,E` of the probability flow, as flow matching does.

    References:
        Flow matching for generative modeling (Lipman, Chen, Ben-Hamu, Nickel and Le, 2023),
        equation 9.
    """

    form = "velocity"


@dataclass(frozen=True)
class VPrediction(Parametrization):
    r"""The backbone receives :math:`x_t` and predicts :math:`v = \alpha\varepsilon - \sigma x_0`.

    .. math:: D = \frac{\alpha x - \sigma F(x)}{\alpha^2 + \sigma^2}, \qquad
        E = \frac{\sigma x + \alpha F(x)}{\alpha^2 + \sigma^2} .

    References:
        Progressive distillation for fast sampling of diffusion models (Salimans and Ho, 2022),
        section 4 and appendix D, where the denominator is 1.
    """

    label: Label = LOG_NOISE

    def coefficients(self, t: Tensor, sde: SDE) -> Coefficients:
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        power = alpha**2 + sigma**2
        found = Means(Pair(alpha / power, -sigma / power), Pair(sigma / power, alpha / power))
        return Coefficients(found, torch.ones_like(t), self.label(t, sde))


@dataclass(frozen=True)
class TablePrediction(Parametrization):
    r"""The backbone predicts the noise of the steps of DDPM, whose standard deviations are in a
    table.

    .. math:: s = -F\big(x,\; t (N - 1)\big) \Big/ \sqrt{1 - \bar\alpha_i}, \qquad
        i = \lfloor t (N - 1) \rfloor.

    It turns a network that was trained on discrete steps into a field of :class:`~.VP`: the label
    is continuous in time, the standard deviation is that of the preceding step. At the steps
    themselves it is :class:`NoisePrediction` of :class:`~.DiscreteVP` with ``TimeLabel(levels -
    1)``.

    Arguments:
        levels: The number :math:`N` of steps.
        beta_min: The rate of the first step, times :math:`N`.
        beta_max: The rate of the last step, times :math:`N`.

    Raises:
        ValueError: If there are fewer than 2 levels, or too few for ``beta_max``.

    References:
        Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), equation 11.

        Score-based generative modeling through stochastic differential equations (Song et al.,
        2021), appendix C.
    """

    levels: int
    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        alphas_cumprod(self.beta_min, self.beta_max, self.levels)

    def coefficients(self, t: Tensor, sde: SDE) -> Coefficients:
        std = _table_std(self, t.dtype, t.device)[level_index(t, self.levels)]
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        noise = Pair(torch.zeros_like(t), sigma / std)
        denoiser = Pair(1 / alpha, -(sigma**2) / (alpha * std))
        return Coefficients(Means(denoiser, noise), torch.ones_like(t), (self.levels - 1) * t)


@lru_cache(maxsize=32)
def _table_std(table: TablePrediction, dtype: torch.dtype, device: torch.device) -> Tensor:
    # The first to ask may do so in inference mode, the next may need a gradient.
    with torch.inference_mode(False):
        left = alphas_cumprod(table.beta_min, table.beta_max, table.levels)
        return (1 - left).sqrt().to(dtype).to(device)

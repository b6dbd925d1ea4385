r"""Networks as score fields.

A backbone :math:`F` receives a scaled input and a label of the noise level; the score is affine in
its output,

.. math:: s(x, t) = c_{skip}\,x + c_{out}\,F(c_{in}\,x,\; c_{noise}),

with coefficients chosen by the *parametrisation*. All other forms of the field (denoiser,
noise, velocity, drift) are affine in the score, hence of the same kind, and are computed from
:math:`F` with combined coefficients: no form is obtained from another by subtracting
nearly equal numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scorefield.checks import check_positive, kind_of
from scorefield.domain import Domain, Euclidean, Torus
from scorefield.engine import in_blocks
from scorefield.errors import UnsupportedError, UserError
from scorefield.fields.base import Batch, Quantity, ScoreField, Times, affine, times
from scorefield.fields.classes import Classes
from scorefield.fields.inputs import check_values
from scorefield.sde.base import SDE
from scorefield.sde.tables import alphas_cumprod, check_levels, level_index


@dataclass(frozen=True)
class Label(ABC):
    """The encoding of the noise level that a network receives in place of the time."""

    @abstractmethod
    def __call__(self, t: Tensor, sde: SDE) -> Tensor:
        """The labels of times, elementwise."""


@dataclass(frozen=True)
class LogNoiseLabel(Label):
    r"""The logarithm of the noise level, :math:`\frac14 \ln(\sigma / \alpha)`.

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        table 1, :math:`c_{noise}` of column "Ours".
    """

    def __call__(self, t: Tensor, sde: SDE) -> Tensor:
        return sde.noise_level(t).log() / 4


LOG_NOISE = LogNoiseLabel()
"""The default label."""


@dataclass(frozen=True)
class SigmaLabel(Label):
    r"""The standard deviation :math:`\sigma(t)` itself."""

    def __call__(self, t: Tensor, sde: SDE) -> Tensor:
        return sde.sigma(t)


@dataclass(frozen=True)
class TimeLabel(Label):
    r"""The time multiplied by a constant, :math:`c\,t`.

    Arguments:
        scale: The constant :math:`c`; 999 maps :math:`[0, 1]` onto the indices of a thousand steps.

    Raises:
        ValueError: If it is not positive.
    """

    scale: float | int = 999.0

    def __post_init__(self) -> None:
        check_positive("TimeLabel: scale", self.scale)

    def __call__(self, t: Tensor, sde: SDE) -> Tensor:
        return self.scale * t


@dataclass(frozen=True)
class IndexLabel(Label):
    r"""The place :math:`\mathrm{round}((t_{max} - t)(N - 1))` in a table of :math:`N` noise levels
    in descending order: 0 is the greatest.

    Arguments:
        levels: The length :math:`N` of the table.

    Raises:
        ValueError: If it is below 2.
    """

    levels: int

    def __post_init__(self) -> None:
        check_levels(self.levels)

    def __call__(self, t: Tensor, sde: SDE) -> Tensor:
        return torch.round((sde.t_max - t) * (self.levels - 1))


class Coefficients(NamedTuple):
    r"""The coefficients of :math:`s = c_{skip}\,x + c_{out}\,F(c_{in}\,x,\; c_{noise})`.

    They are those of the score. Those of the denoiser, which table 1 of Karras et al. (2022) lists,
    follow as :math:`(1 + \sigma^2 c_{skip}) / \alpha` and :math:`\sigma^2 c_{out} / \alpha`; the
    converse would subtract nearly equal numbers at low noise.
    """

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


@dataclass(frozen=True)
class Parametrization(ABC):
    r"""What the backbone predicts, as coefficients of :math:`\alpha` and :math:`\sigma`, and the
    noise label :math:`c_{noise}`.
    """

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
    :math:`c_{out} = \lambda\sigma_d / \sqrt{\lambda^2 + \sigma_d^2}`; as a score,

    .. math:: s = -\frac{x}{\sigma^2 + \alpha^2\sigma_d^2}
        + \frac{\sigma_d}{\lambda\sqrt{\sigma^2 + \alpha^2\sigma_d^2}} F.

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
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        variance = sigma**2 + (alpha * self.sigma_data) ** 2
        scale = variance.sqrt()
        c_out = self.sigma_data / (sigma / alpha * scale)
        return Coefficients(-1 / variance, c_out, 1 / scale, self.label(t, sde))


@dataclass(frozen=True)
class NoisePrediction(Parametrization):
    r"""The backbone receives :math:`x_t` and predicts the noise: :math:`s = -F(x) / \sigma`.

    References:
        Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), equation 11.
    """

    label: Label = LOG_NOISE

    def coefficients(self, t: Tensor, sde: SDE) -> Coefficients:
        one = torch.ones_like(t)
        return Coefficients(0 * one, -1 / sde.sigma(t), one, self.label(t, sde))


@dataclass(frozen=True)
class ScorePrediction(Parametrization):
    """The backbone receives :math:`x_t` and predicts the score itself: :math:`s = F(x)`."""

    label: Label = LOG_NOISE

    def coefficients(self, t: Tensor, sde: SDE) -> Coefficients:
        one = torch.ones_like(t)
        return Coefficients(0 * one, one, one, self.label(t, sde))


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
        one = torch.ones_like(t)
        std = _table_std(self, t.dtype, t.device)[level_index(t, self.levels)]
        return Coefficients(0 * one, -1 / std, one, (self.levels - 1) * t)


@lru_cache(maxsize=32)
def _table_std(table: TablePrediction, dtype: torch.dtype, device: torch.device) -> Tensor:
    # The first to ask may do so in inference mode, the next may need a gradient.
    with torch.inference_mode(False):
        left = alphas_cumprod(table.beta_min, table.beta_max, table.levels)
        return (1 - left).sqrt().to(dtype).to(device)


class PreconditionedField(ScoreField):
    r"""A backbone as a score field, :math:`s = c_{skip}\,x + c_{out}\,F(c_{in}\,x,\; c_{noise})`.

    Arguments:
        backbone: A module called as ``backbone(x, label)`` with :math:`x` of shape ``(batch,
            *event)`` and a label of shape ``(batch,)``; returns the shape of ``x``. It computes in
            the dtype of its parameters; the result has the dtype of the input. A class-conditional
            one has an attribute ``classes``, their number :math:`K`, and is called as ``backbone(x,
            label, classes)`` where they are given: int64 from 0, with :math:`K` for no class unless
            its attribute ``unlabelled`` is false.
        sde: The forward process.
        sigma_data: Shorthand for ``parametrization=EDMScaling(sigma_data)``.
        parametrization: What the backbone predicts.
        domain: The space of :math:`x`; by default ``Euclidean(shape)``.
        shape: The event shape; by default the attribute ``event_shape`` of the backbone, otherwise
            learned in :func:`~.fit` or in the first call.

    Raises:
        TypeError: Unless exactly one of ``sigma_data`` and ``parametrization`` is given, or if both
            ``domain`` and ``shape`` are.
        ValueError: If the process or the parametrisation is not defined on the domain; in a call,
            if the backbone returns another shape.
    """

    def __init__(
        self,
        backbone: nn.Module,
        sde: SDE,
        sigma_data: float | None = None,
        parametrization: Parametrization | None = None,
        domain: Domain | None = None,
        *,
        shape: Sequence[int] | None = None,
    ) -> None:
        if (sigma_data is None) == (parametrization is None):
            raise UnsupportedError("give either sigma_data or a parametrization")
        if domain is not None and shape is not None:
            raise UnsupportedError("give either a domain or a shape")
        if shape is None:
            shape = getattr(backbone, "event_shape", None)
        if domain is None and shape is not None:
            domain = Euclidean(tuple(shape))
        super().__init__(sde, domain)
        self.backbone = backbone
        if sigma_data is not None:
            parametrization = EDMScaling(sigma_data)
        assert parametrization is not None
        if isinstance(domain, Torus) and isinstance(parametrization, EDMScaling):
            raise UserError(
                "EDM scaling adds a multiple of x to the score, which is not periodic; on a torus "
                "take NoisePrediction or ScorePrediction"
            )
        self.parametrization = parametrization

    _compiled: Callable[..., Tensor] | None = None

    @property
    def classes(self) -> int | None:
        return getattr(self.backbone, "classes", None)

    @property
    def unlabelled(self) -> bool:
        return getattr(self.backbone, "unlabelled", True)

    def predict(self, x: Batch, t: Times, quantity: Quantity, classes: Classes = None) -> Batch:
        c, rows = self._coefficients(x, t), self.class_rows(classes, x)
        u, label = c.c_in * x, c.c_noise.reshape(-1).expand(x.shape[0])
        output = in_blocks(self._compiled or self._output, u, label, rows)
        a, b = affine(x, t, self.sde, quantity)
        return (a + b * c.c_skip) * x + (b * c.c_out) * output

    def compile(self, *settings: Any, **named: Any) -> None:
        # As a whole: a compiled network has first derivatives only, and a potential needs two.
        self._compiled = torch.compile(self._output, *settings, **named)

    def __getstate__(self) -> dict[str, Any]:
        # What is compiled is that of these very weights, and not of a copy's.
        state = super().__getstate__()  # type: ignore[no-untyped-call]
        state.pop("_compiled", None)
        return state

    def _coefficients(self, x: Tensor, t: Times) -> Coefficients:
        return self.parametrization.coefficients(times(x, t), self.sde)

    def _output(self, u: Tensor, label: Tensor, classes: Tensor | None) -> Tensor:
        """The vector :math:`F(u, label)`, in the dtype of ``u``."""
        output = self._call(u, label, classes)
        self._check_output(output, u.shape)
        return output

    def _call(self, u: Tensor, label: Tensor, classes: Tensor | None) -> Tensor:
        dtype = next((p.dtype for p in self.backbone.parameters()), u.dtype)
        known = () if classes is None else (classes,)
        output: Tensor = self.backbone(u.to(dtype), label.to(dtype), *known)
        if not isinstance(output, Tensor):
            raise UserError(f"{type(self.backbone).__name__} gave no tensor but {kind_of(output)}")
        return output.to(u.dtype)

    def _check_output(self, output: Tensor, shape: tuple[int, ...]) -> None:
        check_values(f"{type(self).__name__}: {type(self.backbone).__name__}", output, shape)

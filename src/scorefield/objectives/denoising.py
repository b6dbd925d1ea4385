r"""Denoising score matching.

For :math:`x_t = \alpha x_0 + \sigma\varepsilon` the conditional score is
:math:`\nabla \log p(x_t \mid x_0) = -\varepsilon / \sigma`, and the field that minimises

.. math:: \mathbb{E}\; w(t)\,r\,\big\| \hat\varepsilon(x_t, t) - \varepsilon \big\|^2,
    \qquad \hat\varepsilon = -\sigma s,

is the score of :math:`p_t` whatever the positive weight :math:`w`. The factor :math:`r` is
:math:`1 / D`, the mean over the coordinates, or :math:`1 / 2`, half their sum, with which the
likelihood weight bounds a log-likelihood. With :math:`\lambda = \sigma/\alpha` the customary
weights are, in this form,

.. math::
    w_{edm} = \frac{\lambda^2 + \sigma_d^2}{\sigma_d^2}, \qquad
    w_{score} = 1, \qquad
    w_{likelihood} = \frac{g^2}{\sigma^2}, \qquad
    w_{velocity} = (\dot\sigma - f\sigma)^2 .

The first is :math:`(\lambda^2 + \sigma_d^2) / (\lambda\sigma_d)^2` on the denoiser's squared error,
the second :math:`\sigma^2` and the third :math:`g^2` on that of the score, and the fourth 1 on that
of the velocity :math:`\dot\alpha x_0 + \dot\sigma\varepsilon`: the loss of flow matching, on
:class:`~.RectifiedFlow` with :class:`UniformTime`.

The losses of SMLD and DDPM are the second weight with times from a table: :class:`TableLaw` on
:class:`~.VE` and on :class:`~.DiscreteVP`.

References:
    A connection between score matching and denoising autoencoders (Vincent, 2011), equation 8.

    Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
    table 1.

    Generative modeling by estimating gradients of the data distribution (Song and Ermon, 2019),
    equations 5 and 6, for SMLD.

    Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), equation 14, for DDPM.

    Maximum likelihood training of score-based diffusion models (Song, Durkan, Murray and Ermon,
    2021), equation 7.

    Flow matching for generative modeling (Lipman, Chen, Ben-Hamu, Nickel and Le, 2023),
    equation 9.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.checks import check_finite, check_positive
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.noise import Noise
from scorefield.objectives.pairing import Pairing
from scorefield.sde.base import SDE
from scorefield.sde.steps import DiscreteVP
from scorefield.sde.tables import check_levels

Weighting = Literal["edm", "score", "likelihood", "velocity"]
Reduction = Literal["mean", "half_sum"]


class Batch(NamedTuple):
    """What a training step sees: clean points, their times, standard normals, the classes of the
    points where the field knows any, where it has dropout the keys of its layers, and where images
    are augmented their labels and, for regularisers, the points before.
    """

    x: Float[Tensor, "batch *event"]
    t: Float[Tensor, " batch"]
    z: Float[Tensor, "batch *event"]
    classes: Int[Tensor, " batch"] | None = None
    keys: Int[Tensor, "batch layers 2"] | None = None
    labels: Float[Tensor, "batch labels"] | None = None
    before: Float[Tensor, "batch *event"] | None = None

    def split(self, parts: int) -> list[Batch]:
        """So many batches of consecutive points, whose sizes differ by one at most."""
        if parts == 1:
            return [self]
        pieces = [[None] * parts if d is None else d.tensor_split(parts) for d in self]
        return [Batch(*piece) for piece in zip(*pieces, strict=True)]


@dataclass(frozen=True)
class NoiseLaw(ABC):
    """The distribution of the training times."""

    @abstractmethod
    def quantile(self, sde: SDE, u: Tensor, lower: float, upper: float) -> Tensor:
        """The times at the quantiles ``u`` of the law, restricted to noise levels from
        ``lower`` to ``upper``.
        """

    def times(
        self,
        sde: SDE,
        noise: Noise,
        index: Tensor,
        step: int | Tensor = 0,
        purpose: str = "time",
        lower: float | None = None,
        upper: float | None = None,
    ) -> Tensor:
        """Draws one float64 time for each address of ``index`` and ``step``, which broadcast,
        between noise levels; those of ``sde.level_range`` by default.

        Raises:
            ValueError: If the two do not enclose a range within that of the process.
        """
        least, most = sde.level_range
        low = least if lower is None else lower
        high = most if upper is None else upper
        if not least <= low < high <= most:
            raise UserError(
                f"{purpose}: noise levels from {low:g} to {high:g} were requested, the process "
                f"has {least:g} to {most:g}"
            )
        u = noise.uniform(purpose, (), index, step, dtype=torch.float64)
        return self.quantile(sde, u, low, high)


@dataclass(frozen=True)
class LogNormal(NoiseLaw):
    r"""Noise levels with :math:`\ln\lambda \sim N(mean, std^2)`, conditioned on the range of the
    process (not clamped to it, which would pile probability on its ends).

    Arguments:
        mean: The mean of the log noise level.
        std: Its standard deviation.

    Raises:
        ValueError: If ``std`` is not positive.

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        table 1, "Noise distribution".
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        check_finite("LogNormal: mean", self.mean)
        check_positive("LogNormal: std", self.std)

    def quantile(self, sde: SDE, u: Tensor, lower: float, upper: float) -> Tensor:
        ends = torch.tensor([lower, upper], dtype=u.dtype, device="cpu")
        low, high = torch.special.ndtr((ends.log() - self.mean) / self.std).tolist()
        z = torch.special.ndtri(low + u * (high - low))
        return sde.time(torch.exp(self.mean + self.std * z).clamp(lower, upper))


@dataclass(frozen=True)
class LogUniform(NoiseLaw):
    """Noise levels uniform in their logarithm."""

    def quantile(self, sde: SDE, u: Tensor, lower: float, upper: float) -> Tensor:
        low, high = math.log(lower), math.log(upper)
        return sde.time(torch.exp(low + u * (high - low)))


@dataclass(frozen=True)
class UniformTime(NoiseLaw):
    """Times uniform in the range of the process."""

    def quantile(self, sde: SDE, u: Tensor, lower: float, upper: float) -> Tensor:
        ends = sde.time(torch.tensor([lower, upper], dtype=u.dtype, device="cpu"))
        low, high = ends.clamp(sde.t_min, sde.t_max).tolist()
        return low + u * (high - low)


@dataclass(frozen=True)
class TableLaw(NoiseLaw):
    r"""Each of the :math:`N` times :math:`t_i = i / (N - 1)` of a table with equal probability.

    With :class:`~.VE` these are the levels of SMLD, with
    :class:`~.DiscreteVP` the steps of DDPM.

    Arguments:
        levels: The length :math:`N` of the table.

    Raises:
        ValueError: If it is below 2. In use: if the process begins later than its table does or
            has a table of another length, or no level lies in the range.

    References:
        Generative modeling by estimating gradients of the data distribution (Song and Ermon,
        2019), equation 6.

        Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), algorithm 1.
    """

    levels: int

    def __post_init__(self) -> None:
        check_levels(self.levels)

    def quantile(self, sde: SDE, u: Tensor, lower: float, upper: float) -> Tensor:
        if sde.t_min > 0:
            raise UserError(
                f"TableLaw: a table begins at time 0, but t_min={sde.t_min:g} of "
                f"{type(sde).__name__}"
            )
        if isinstance(sde, DiscreteVP) and sde.levels != self.levels:
            raise UserError(
                f"TableLaw: levels={self.levels}, but the process has {sde.levels} levels"
            )
        first, count = _between(sde, self.levels, lower, upper)
        if count < 1:
            raise UserError(
                f"TableLaw: none of the {self.levels} levels lies between {lower:g} and {upper:g}"
            )
        times = torch.linspace(0, 1, self.levels, dtype=u.dtype, device=u.device)
        return times.clamp(max=sde.t_max)[first + (u * count).long()]


@lru_cache(maxsize=32)
def _between(sde: SDE, levels: int, lower: float, upper: float) -> tuple[int, int]:
    """The first time of a table between two noise levels, and the number of them."""
    times = torch.linspace(0, 1, levels, dtype=torch.float64, device="cpu")
    level = sde.noise_level(times.clamp(max=sde.t_max))
    # Levels at the very ends of the range are in it, however they were rounded.
    first = int((level < lower * (1 - 1e-9)).sum())
    return first, int((level <= upper * (1 + 1e-9)).sum()) - first


@dataclass(frozen=True)
class DenoisingScoreMatching:
    r"""Denoising score matching with a weight and a law of times.

    Arguments:
        weighting: ``edm``, ``score``, ``likelihood`` or ``velocity``.
        law: The distribution of the training times.
        sigma_data: The standard deviation :math:`\sigma_d` of the data; for ``edm`` only.
        reduction: ``mean`` of the squared error over coordinates, or ``half_sum``.
        pairing: Which noise the points of a batch are mixed with in a training: ``independent``, or
            by optimal ``transport``, see :mod:`~.pairing`, after which the field is no score.

    Raises:
        ValueError: For an unknown weighting, reduction or pairing, ``edm`` without a positive
            ``sigma_data``, or ``likelihood`` with the times of a table.
    """

    name: ClassVar[str] = "denoising"

    weighting: Weighting = "edm"
    law: NoiseLaw = LogNormal()
    sigma_data: float | None = None
    reduction: Reduction = "mean"
    pairing: Pairing = "independent"

    def __post_init__(self) -> None:
        if self.pairing not in get_args(Pairing):
            raise UserError(f"pairing is independent or transport, not {self.pairing!r}")
        if self.reduction not in ("mean", "half_sum"):
            raise UserError(f"reduction is mean or half_sum, not {self.reduction!r}")
        if self.weighting == "likelihood" and isinstance(self.law, TableLaw):
            raise UserError(
                "weighting='likelihood' is an integral over all times and has no meaning for the "
                "discrete ones of TableLaw; take 'score'"
            )
        if self.weighting not in get_args(Weighting):
            names = ", ".join(get_args(Weighting))
            raise UserError(f"weighting is one of {names}, not {self.weighting!r}")
        if self.weighting == "edm":
            check_positive("the sigma_data of edm weighting", self.sigma_data)

    def draw(
        self, field: ScoreField, noise: Noise, index: Tensor, step: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        """The times (float32) of a step, or of several at once, of the common shape of ``index``
        and ``step``; and normals with the event shape behind it.
        """
        t = self.law.times(field.sde, noise, index, step)
        z = noise.normal("perturbation", field.domain.shape, index, step)
        return t.to(z.dtype), z

    def weight(self, sde: SDE, t: Tensor) -> Tensor:
        r"""The weight :math:`w(t)` on the squared error of the noise, elementwise."""
        match self.weighting:
            case "edm":
                assert self.sigma_data is not None
                return (sde.noise_level(t) / self.sigma_data) ** 2 + 1
            case "likelihood":
                return sde.diffusion_squared(t) / sde.sigma(t) ** 2
            case "velocity":
                return (sde.sigma_dot(t) - sde.drift(t) * sde.sigma(t)) ** 2
            case _:
                return torch.ones_like(t)

    def target(
        self, field: ScoreField, batch: Batch, x_t: Float[Tensor, "batch *event"]
    ) -> Float[Tensor, "batch *event"]:
        """The noise that a field is to predict at noised points."""
        return field.domain.kernel_noise(batch.z, field.sde.sigma(batch.t))

    def __call__(self, field: ScoreField, batch: Batch) -> Float[Tensor, " batch"]:
        """The loss of each sample: the weighted squared error, reduced over coordinates."""
        x_t = field.sde.perturb(batch.x, batch.t, batch.z, field.domain)
        target = self.target(field, batch, x_t)
        error = (field.predict_noise(x_t, batch.t, batch.classes) - target).square()
        error = error.reshape(error.shape[0], -1)
        reduced = error.mean(dim=1) if self.reduction == "mean" else 0.5 * error.sum(dim=1)
        return self.weight(field.sde, batch.t) * reduced

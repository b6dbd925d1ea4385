r"""Denoising score matching.

For :math:`x_t = \alpha x_0 + \sigma\varepsilon` the conditional score is
:math:`\nabla \log p(x_t \mid x_0) = -\varepsilon / \sigma`, and the field that minimises

.. math:: \mathbb{E}\; w(t)\,\frac{1}{D}\,\big\| \hat\varepsilon(x_t, t) - \varepsilon \big\|^2,
    \qquad \hat\varepsilon = -\sigma s,

is the score of :math:`p_t` whatever the positive weight :math:`w`. With
:math:`\lambda = \sigma/\alpha` the customary weights are, in this form,

.. math::
    w_{edm} = \frac{\lambda^2 + \sigma_d^2}{\sigma_d^2}, \qquad
    w_{score} = 1, \qquad
    w_{likelihood} = \frac{g^2}{\sigma^2}.

The first is :math:`(\lambda^2 + \sigma_d^2) / (\lambda\sigma_d)^2` on the denoiser's squared error,
the second :math:`\sigma^2` and the third :math:`g^2` on that of the score.

References:
    A connection between score matching and denoising autoencoders (Vincent, 2011), equation 8.

    Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
    table 1.

    Maximum likelihood training of score-based diffusion models (Song, Durkan, Murray and Ermon,
    2021), equation 7.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.fields import ScoreField
from scorefield.noise import Noise
from scorefield.sde import SDE

Weighting = Literal["edm", "score", "likelihood"]


class Batch(NamedTuple):
    """What a training step sees: clean points, their times, and standard normals."""

    x: Float[Tensor, "batch *event"]
    t: Float[Tensor, " batch"]
    z: Float[Tensor, "batch *event"]


@dataclass(frozen=True)
class NoiseLaw(ABC):
    """The law of the training times."""

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
        """Draws one float64 time for each address.

        Arguments:
            sde: The process.
            noise: The randomness.
            index: The sample indices.
            step: The step or steps, broadcast against ``index``.
            purpose: The purpose of the address.
            lower: The least noise level; ``sde.sigma_min`` by default.
            upper: The largest; ``sde.sigma_max`` by default.

        Raises:
            ValueError: If the two do not enclose a range within that of the process.
        """
        low = sde.sigma_min if lower is None else lower
        high = sde.sigma_max if upper is None else upper
        if not sde.sigma_min <= low < high <= sde.sigma_max:
            raise ValueError(
                f"{purpose}: noise levels from {low:g} to {high:g} were asked for, the process "
                f"has {sde.sigma_min:g} to {sde.sigma_max:g}"
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
        if not self.std > 0:
            raise ValueError(f"LogNormal: std must be positive, got {self.std}")

    def quantile(self, sde: SDE, u: Tensor, lower: float, upper: float) -> Tensor:
        ends = torch.tensor([lower, upper], dtype=u.dtype, device=u.device)
        low, high = torch.special.ndtr((ends.log() - self.mean) / self.std)
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
        low, high = sde.time(torch.tensor([lower, upper], dtype=u.dtype, device=u.device))
        return low + u * (high - low)


@dataclass(frozen=True)
class DenoisingScoreMatching:
    r"""Denoising score matching with a weight and a law of times.

    Arguments:
        weighting: ``edm``, ``score`` or ``likelihood``.
        law: The law of the training times.
        sigma_data: The standard deviation :math:`\sigma_d` of the data; for ``edm`` only.

    Raises:
        ValueError: For an unknown weighting, or ``edm`` without a positive ``sigma_data``.
    """

    weighting: Weighting = "edm"
    law: NoiseLaw = LogNormal()
    sigma_data: float | None = None

    def __post_init__(self) -> None:
        if self.weighting not in ("edm", "score", "likelihood"):
            raise ValueError(f"weighting is edm, score or likelihood, not {self.weighting!r}")
        if self.weighting == "edm" and not (self.sigma_data is not None and self.sigma_data > 0):
            raise ValueError(f"edm weighting needs a positive sigma_data, got {self.sigma_data}")

    def draw(
        self, field: ScoreField, noise: Noise, index: Tensor, step: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        """The times (float32) and normals of a step, or of several at once.

        Returns:
            Times of the common shape of ``index`` and ``step``, and normals with the event shape
            behind it.
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
            case _:
                return torch.ones_like(t)

    def __call__(self, field: ScoreField, batch: Batch) -> Float[Tensor, " batch"]:
        """The loss of each sample: the weighted squared error, averaged over coordinates."""
        sde, domain = field.sde, field.domain
        x_t = sde.perturb(batch.x, batch.t, batch.z, domain)
        target = domain.kernel_noise(batch.z, sde.sigma(batch.t))
        error = (field.predict_noise(x_t, batch.t) - target).square()
        return self.weight(sde, batch.t) * error.reshape(error.shape[0], -1).mean(dim=1)

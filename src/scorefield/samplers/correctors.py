r"""Correctors: Langevin steps at one noise level, which (nearly) preserve its distribution.

.. math:: \bar x = x + \epsilon\,s(x, t), \qquad x' = \bar x + \sqrt{2\epsilon}\,z, \qquad
    z \sim N(0, I).

For :math:`\epsilon \to 0` the distribution of :math:`x_t` does not change; for a finite step it
moves by :math:`O(\epsilon)`, relative to the variance of the coordinates. The step size
:math:`\epsilon` is :math:`2 f^2 r^2` times a squared length that the corrector defines, with the
signal-to-noise ratio :math:`r` and the factor :math:`f` of the forward step there: 1 for VE,
:math:`\sqrt{1 - \beta_i}` for a table of VP, otherwise that of the discretisation.

References:
    Score-based generative modeling through stochastic differential equations (Song,
    Sohl-Dickstein, Kingma, Kumar, Ermon and Poole, 2021), section 4.2 and appendix G.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from scorefield.checks import check_count, check_positive
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import Classes
from scorefield.sde.base import SDE
from scorefield.sde.discrete import ForwardStep

Norm = Literal["sample", "batch"]


@dataclass(frozen=True)
class Corrector(ABC):
    """Steps at one noise level.

    Arguments:
        snr: The signal-to-noise ratio :math:`r`, a pure number.
        steps: The number of steps at each level.

    Raises:
        ValueError: If the ratio is not positive or ``steps`` not a positive integer.
    """

    snr: float = 0.16
    steps: int = 1

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_positive(f"{name}: snr", self.snr)
        check_count(f"{name}: steps", self.steps)

    @abstractmethod
    def scale(self, sde: SDE, t: Tensor, forward: ForwardStep) -> Tensor:
        """The factor of the step size that does not depend on the state, for times of any shape."""

    @abstractmethod
    def size(self, scale: float | Tensor, score: Tensor, z: Tensor) -> float | Tensor:
        r"""The step size :math:`\epsilon`, shaped to broadcast against the state."""

    def correct(
        self,
        field: ScoreField,
        x: Tensor,
        t: float | Tensor,
        scale: float | Tensor,
        draw: Callable[[int], Tensor],
        classes: Classes = None,
    ) -> Correction:
        """Takes all steps at one level.

        Arguments:
            field: The score field.
            x: States.
            t: Their times, or one for all.
            scale: The value of :meth:`scale` there, shaped to broadcast against ``x``.
            draw: Returns the standard normals of a step, by its number from 0.
            classes: The class of each state, or of all.
        """
        for k in range(self.steps):
            z, score, before = draw(k), field.score(x, t, classes), x
            size = self.size(scale, score, z)
            mean = x + size * score
            x = field.domain.wrap(mean + (2 * size) ** 0.5 * z)
        return Correction(x, mean, before, score)


class Correction(NamedTuple):
    """The new states, with (``x``) and without (``mean``) the noise of the last step; and the
    states before the last step, with the score there.
    """

    x: Tensor
    mean: Tensor
    before: Tensor
    score: Tensor


@dataclass(frozen=True)
class Langevin(Corrector):
    r"""Steps with a fixed ratio of the norms of score and noise.

    .. math:: \epsilon = 2 f^2 \Big(r \frac{\|z\|}{\|s\|}\Big)^2.

    Each sample has its own step size, from its own norms. The published method takes the means of
    both norms over the batch instead, which makes a sample depend on the others: ``norm="batch"``.

    The size depends on the state and on the noise that it multiplies, so it is meant for points of
    many coordinates :math:`D`, whose norms hardly vary. On a normal distribution, with per-sample
    steps, the harmonic mean of the squared distance from the mean is :math:`(1 + r^2)(D + 2)`
    variances instead of :math:`D - 2`; with batch means the variance grows by :math:`1 + r^2`
    alone.

    Arguments:
        snr: The signal-to-noise ratio :math:`r`.
        steps: The number of steps at each level.
        norm: Which norms: those of each ``"sample"``, or their means over the ``"batch"``.

    Raises:
        ValueError: If an argument is out of its range.

    References:
        Score-based generative modeling through stochastic differential equations (Song et al.,
        2021), algorithms 4 and 5, with batch means.
    """

    norm: Norm = "sample"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm not in get_args(Norm):
            raise UserError(f"norm is one of {', '.join(get_args(Norm))}, not {self.norm!r}")

    def scale(self, sde: SDE, t: Tensor, forward: ForwardStep) -> Tensor:
        return 2 * (forward.factor * self.snr) ** 2

    def size(self, scale: float | Tensor, score: Tensor, z: Tensor) -> Tensor:
        ratio = _norms(z, self.norm) / _norms(score, self.norm)
        return scale * ratio**2


@dataclass(frozen=True)
class AnnealedLangevin(Corrector):
    r"""Steps in proportion to the variance of the noise, :math:`\epsilon = 2 f^2 (r\,\sigma_t)^2`.

    Arguments and errors are those of :class:`Corrector`.

    References:
        Generative modeling by estimating gradients of the data distribution (Song and Ermon, 2019),
        algorithm 1.

        Score-based generative modeling through stochastic differential equations (Song et al.,
        2021), appendix G, for the step size.
    """

    def scale(self, sde: SDE, t: Tensor, forward: ForwardStep) -> Tensor:
        return 2 * (forward.factor * self.snr * sde.sigma(t)) ** 2

    def size(self, scale: float | Tensor, score: Tensor, z: Tensor) -> float | Tensor:
        return scale


def _norms(x: Tensor, norm: Norm) -> Tensor:
    """The norm of each point, or their mean, shaped to broadcast."""
    norms = torch.linalg.vector_norm(x.reshape(len(x), -1), dim=1)
    norms = norms if norm == "sample" else norms.mean(dim=0, keepdim=True)
    return norms.reshape(-1, *(1,) * (x.dim() - 1))

r"""Forward processes in steps.

From an earlier point :math:`s` to :math:`t`, a linear process makes the step

.. math:: x_t = a\,x_s + b\,z, \qquad z \sim N(0, I),

and a discretisation gives :math:`a` and :math:`b`: exactly, from the table that a network was
trained with, or to first order. Samplers that reverse the process take its steps from a
discretisation, and depend on no process or table.

References:
    Score-based generative modeling through stochastic differential equations (Song et al.,
    2021), section 3.4 and appendices C and E.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.sde.base import SDE
from scorefield.sde.exploding import VE
from scorefield.sde.preserving import VP
from scorefield.sde.steps import DiscreteVP
from scorefield.sde.tables import beta_table, check_levels, level_index, sigmas


class ForwardStep(NamedTuple):
    r"""A step :math:`x_t = a\,x_s + b\,z` of the forward process: the ``factor`` :math:`a`, the
    ``std`` :math:`b`, and the standard deviations of the noise in :math:`x_s` and :math:`x_t`.
    """

    factor: Tensor
    std: Tensor
    sigma_from: Tensor
    sigma_to: Tensor


@dataclass(frozen=True)
class Discretization(ABC):
    """A discretisation of a forward process into steps."""

    def step(self, sde: SDE, t: Tensor, s: Tensor | None) -> ForwardStep:
        r"""The step that arrives at :math:`t`.

        Arguments:
            sde: The process.
            t: Times of any shape; the step has their shape, dtype and device.
            s: The times at which the step begins, none later than its end; the clean data if
                not given.

        Raises:
            ValueError: If a time is not in :math:`[0, t_{max}]`, or a step would go backwards;
                or if the process is not of the kind that is discretised, or has too few levels.
        """
        on_cpu = t.device.type == "cpu"  # elsewhere, the host would wait for the numbers
        if on_cpu and not bool(((t >= 0) & (t <= sde.t_max)).all()):
            raise UserError(f"t must lie in [0, {sde.t_max:g}], got {_extremes(t)}")
        if on_cpu and s is not None and not bool(((s >= 0) & (s <= t)).all()):
            raise UserError(
                f"a step goes forward from s in [0, t], got s of {_extremes(s)} and t of "
                f"{_extremes(t)}"
            )
        return self._step(sde, t, s)

    @abstractmethod
    def _step(self, sde: SDE, t: Tensor, s: Tensor | None) -> ForwardStep:
        """The step between times that have been checked."""


@dataclass(frozen=True)
class Exact(Discretization):
    r"""The transition of the process itself,
    :math:`a = \alpha_t / \alpha_s`, :math:`b^2 = \sigma_t^2 - a^2\sigma_s^2`.

    Steps compose exactly: a grid may have any number of points, and no factor is negative.
    """

    def _step(self, sde: SDE, t: Tensor, s: Tensor | None) -> ForwardStep:
        sigma = sde.sigma(t)
        if s is None:
            return ForwardStep(sde.alpha(t), sigma, torch.zeros_like(sigma), sigma)
        factor, std = sde.transition(s, t)
        return ForwardStep(factor, std, sde.sigma(s).expand_as(sigma), sigma)


@dataclass(frozen=True)
class _Levels(Discretization):
    levels: int

    def __post_init__(self) -> None:
        check_levels(self.levels)


@dataclass(frozen=True)
class _Tabular(_Levels):
    """The levels of a table, one after the other.

    A time belongs to the level :math:`i` of :func:`~.level_index`, and the
    step starts at level :math:`i - 1` independent of ``s``; before the first level are the clean
    data.
    """

    @abstractmethod
    def table(self, sde: SDE) -> ForwardStep:
        """The steps to all levels, each a tensor of shape ``(levels,)`` in float64."""

    def _step(self, sde: SDE, t: Tensor, s: Tensor | None) -> ForwardStep:
        index = level_index(t, self.levels, sde.t_max)
        return ForwardStep(*(c[index] for c in _rounded(self, sde, t.dtype, t.device)))


@dataclass(frozen=True)
class SMLDSteps(_Tabular):
    r"""Score matching with Langevin dynamics, for :class:`VE`: :math:`a = 1`,
    :math:`b_i^2 = \sigma_i^2 - \sigma_{i-1}^2` with :math:`\sigma_{-1} = 0`.

    Arguments:
        levels: The number :math:`N` of levels.

    Raises:
        ValueError: If there are fewer than 2.

    References:
        Score-based generative modeling through stochastic differential equations (Song et al.,
        2021), equation 8.
    """

    def table(self, sde: SDE) -> ForwardStep:
        if not isinstance(sde, VE):
            raise UserError(f"sde: SMLD discretises VE, not {type(sde).__name__}")
        to = sigmas(sde.sigma_min, sde.sigma_max, self.levels)
        start = _previous_levels(to)
        return ForwardStep(torch.ones_like(to), ((to - start) * (to + start)).sqrt(), start, to)


@dataclass(frozen=True)
class DDPMSteps(_Tabular):
    r"""Denoising diffusion, for :class:`~.VP`, :math:`a_i^2 = 1 - \beta_i`,
    :math:`b_i^2 = \beta_i`.

    Marginals are those of the composed steps,
    :math:`\sigma_i^2 = 1 - \bar\alpha_i`; they are also those of :class:`~.DiscreteVP`, whose own
    discretisation this is.

    Arguments:
        levels: The number :math:`N` of levels.

    Raises:
        ValueError: If there are fewer than 2; in use, if the last step of the process leaves
            nothing of the data.

    References:
        Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), equations 2 and 4.

        Score-based generative modeling through stochastic differential equations (Song et al.,
        2021), equation 10.
    """

    def table(self, sde: SDE) -> ForwardStep:
        if not isinstance(sde, VP | DiscreteVP):
            raise UserError(f"sde: DDPM discretises VP, not {type(sde).__name__}")
        if isinstance(sde, VP):
            beta = beta_table("linear", sde.beta_min, sde.beta_max, self.levels)
        elif sde.levels == self.levels:
            beta = sde.table
        else:
            raise UserError(f"levels: the process has {sde.levels}, the steps {self.levels}")
        if float(beta[-1]) == 1:
            raise UserError(
                "sde: the last step of this DiscreteVP removes all of the data and cannot be "
                "reversed; take the discretization Exact()"
            )
        to = (1 - (1 - beta).cumprod(dim=0)).sqrt()
        return ForwardStep((1 - beta).sqrt(), beta.sqrt(), _previous_levels(to), to)


@dataclass(frozen=True)
class EulerForward(_Levels):
    r"""The step of Euler and Maruyama, for any process: :math:`a = 1 + f(t)\,h`,
    :math:`b = g(t) \sqrt h` with :math:`h = t_{max} / N` independent of ``s``.

    Arguments:
        levels: The number :math:`N` of steps from the data to the prior.

    Raises:
        ValueError: If there are fewer than 2; in use, if they are too few for the drift:
            :math:`1 + f(t)\,h \le 0`.

    References:
        Score-based generative modeling through stochastic differential equations (Song et al.,
        2021), appendix E.
    """

    def _step(self, sde: SDE, t: Tensor, s: Tensor | None) -> ForwardStep:
        h = sde.t_max / self.levels
        factor = 1 + sde.drift(t) * h
        if bool((factor <= 0).any()):
            raise UserError(
                f"levels={self.levels} are too few for the drift of {type(sde).__name__}: a step "
                f"would multiply the data by {float(factor.min()):g}"
            )
        sigma = sde.sigma(t)
        start = torch.zeros_like(sigma) if s is None else sde.sigma(s).expand_as(sigma)
        return ForwardStep(factor, sde.diffusion(t) * math.sqrt(h), start, sigma)


@lru_cache(maxsize=32)
def _rounded(
    discretization: _Tabular, sde: SDE, dtype: torch.dtype, device: torch.device
) -> ForwardStep:
    # The first call may be in inference mode, the next may need a gradient.
    with torch.inference_mode(False):
        return ForwardStep(*(c.to(dtype).to(device) for c in discretization.table(sde)))


def _previous_levels(levels: Tensor) -> Tensor:
    """The level before each; zero before the first."""
    return torch.cat([levels.new_zeros(1), levels[:-1]])


def _extremes(t: Tensor) -> str:
    low, high = float(t.min()), float(t.max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"

r"""Densities that are known up to a constant: energies.

An energy :math:`u` in units of :math:`kT` has the density :math:`p(x) = e^{-u(x)} / Z`, of which
:math:`Z` is not known, nor are samples without a Markov chain, nor the score of the diffused
density. What is known exactly is :math:`u` and its force :math:`-\nabla u`, the score of clean
data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.checks import inspect
from scorefield.domain import Domain
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import Classes
from scorefield.fields.forms import Batch, Times
from scorefield.noise import Noise
from scorefield.sde.exploding import EDM


class Energy(ScoreField, ABC):
    r"""The field of an energy at clean data: its potential is :math:`-u`, its score the force.

    It is that of ``EDM()`` at times up to ``t_min``, whose noise of 0.002 is neglected; the
    diffused density is not known, so that later times are refused. Markov kernels,
    :func:`~.mixing` and :func:`~.importance` take it.

    All of it is computed in float64 for any dtype of the points, and rounded once.
    """

    def __init__(self, domain: Domain) -> None:
        super().__init__(EDM(), domain)

    @abstractmethod
    def _energy(self, x: Tensor) -> Tensor:
        """The energy of float64 points, of shape ``(batch,)``."""

    @abstractmethod
    def _force(self, x: Tensor) -> Tensor:
        """Minus the gradient of the energy, shaped as the points."""

    @abstractmethod
    def start(self, noise: Noise, index: Int[Tensor, " n"]) -> Float[Tensor, "n *event"]:
        """Points of moderate energy from which Markov chains may start, float64."""

    def check_inputs(self, x: Batch, t: Times, first: float | None = None) -> None:
        super().check_inputs(x, t, 0.0)

        def check(times: Tensor) -> None:
            latest = float(times.max())
            # Rounded to float32, the least time may be a little later.
            if latest > self.sde.t_min * (1 + 1e-6):
                raise UserError(
                    f"{type(self).__name__} is known of clean data only, at times up to "
                    f"{self.sde.t_min:g}, got {latest:g}"
                )

        inspect(torch.as_tensor(t, dtype=torch.float64), check)

    def energy(self, x: Batch) -> Float[Tensor, " batch"]:
        r"""The energy :math:`u(x)` in units of :math:`kT`.

        Raises:
            ValueError: If ``x`` has another event shape.
        """
        self.check_inputs(x, 0.0)
        return self._energy(x.to(torch.float64)).to(x.dtype)

    def log_density(self, x: Batch, t: Times, classes: Classes = None) -> Float[Tensor, " batch"]:
        r"""The log-density up to a constant, :math:`-u(x)`, in nats."""
        self.class_rows(classes, x)
        self.check_inputs(x, t)
        return -self._energy(x.to(torch.float64)).to(x.dtype)

    @property
    def has_potential(self) -> bool:
        return True

    def potential(self, x: Batch, t: Times, classes: Classes = None) -> Float[Tensor, " batch"]:
        return self.log_density(x, t, classes)

    def score(self, x: Batch, t: Times, classes: Classes = None) -> Batch:
        self.class_rows(classes, x)
        return self._force(x.to(torch.float64)).to(x.dtype)

r"""Fits of the gradient of a periodic function, for estimates on a torus.

A potential on a torus is periodic. The linear functions and quadratic forms of
:class:`~.learners.RandomFeatures` are not, and neither is the integral of a field along rays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.checks import check_count
from scorefield.diagnostics.learners import Gradient, Learner, RandomFeatures, Values
from scorefield.diagnostics.potentials import periodic_waves
from scorefield.domain import Domain, Torus
from scorefield.errors import UserError
from scorefield.noise import Noise

_RIDGE = 0.01
"""The ridge of waves of unit energy. On a torus nothing lies beyond the points of a fit."""


@dataclass(frozen=True)
class PeriodicWaves:
    r"""Least squares on the sines and cosines :math:`\omega \cdot x` of periodic waves,
    :math:`\omega_i L_i / 2\pi \in \mathbb{Z}`, with a ridge; at most one for four coordinates
    of the points of a fit.

    They are the longest of many random waves. A constant field is not the gradient of a periodic
    function, so that no sum of waves has it. What shorter waves have of a gradient is missed:
    estimates are lower bounds. Of smooth errors in two coordinates 96 % or more were found, in
    eight 70 %.

    Arguments:
        waves: The number of waves, at least 2.
    """

    waves: int = 256

    def __post_init__(self) -> None:
        check_count("the number of periodic waves", self.waves, 2)

    def describe(self) -> str:
        return f"at most {self.waves} periodic waves"

    def at(
        self,
        offsets: Float[Tensor, "batch dim"],
        domain: Domain,
        sigma: float,
        noise: Noise,
        parts: int,
    ) -> Callable[[Values], Gradient]:
        if not isinstance(domain, Torus):
            raise UserError(
                f"PeriodicWaves is a family of potentials on a torus, not in {domain}: take "
                "RandomFeatures"
            )
        n, dim = offsets.shape
        count = min(self.waves, n // parts * dim // 4) // 2
        periods = domain.periods(offsets).expand(domain.shape).reshape(-1)
        frequencies = periodic_waves(periods, count, noise).repeat(2, 1)
        phases = offsets.new_tensor((0.0, torch.pi / 2)).repeat_interleave(len(frequencies) // 2)

        def slopes(at: Values) -> Tensor:
            return -(at.offsets @ frequencies.T + phases).sin()

        def fit(given: Values) -> Gradient:
            waves = slopes(given)
            gram = (waves.T @ waves) * (frequencies @ frequencies.T)
            scale = gram.diagonal().sqrt()
            ridge = _RIDGE * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
            wanted = (waves * (given.field @ frequencies.T)).sum(dim=0) / scale
            weights = torch.linalg.solve(gram / scale / scale.unsqueeze(1) + ridge, wanted) / scale
            return lambda at: (slopes(at) * weights) @ frequencies

        return fit


def waves_of(domain: Domain, count: int = 256) -> Learner:
    """The family of random waves of a domain."""
    return PeriodicWaves(count) if isinstance(domain, Torus) else RandomFeatures(count)

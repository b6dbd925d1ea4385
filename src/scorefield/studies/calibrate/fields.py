r"""Fields whose curl is known, on which instruments are calibrated.

A known field is conservative, or it has a planted curl: the exact score of a distribution plus a
rotation,

.. math:: s(x) = \nabla \log p_t(x) + \rho R x,

with a skew matrix :math:`R`. Then :math:`J - J^\top = 2\rho R` everywhere, whatever the data, and
:math:`\rho` is chosen such that the relative asymmetry is a given number. The curl lies in one
plane of random orientation (``plane``), or in all (``spread``); in two dimensions there is but one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from scorefield.fields.base import ScoreField
from scorefield.fields.classes import Classes
from scorefield.fields.planted import PlantedField, Radial, Turned
from scorefield.fields.potential import PotentialField
from scorefield.networks.mlp import MLP
from scorefield.noise import Noise
from scorefield.sde.exploding import EDM
from scorefield.targets.base import Target
from scorefield.targets.empirical import Empirical
from scorefield.targets.gaussian import Gaussian
from scorefield.targets.mixture import GaussianMixture

SIGMA = 0.5
"""The noise level at which instruments are calibrated; the data has a standard deviation near 1."""

Distribution = Literal["gaussian", "mixture", "empirical", "potential"]
Shape = Literal["none", "plane", "spread"]

_NOISE = Noise(20_260_000)
_COMPONENTS, _ITEMS = 4, 64
_LARGE, _ENTRIES = 20_000, 1 << 26


@dataclass(frozen=True)
class KnownField:
    """A field with a known answer."""

    field: ScoreField
    data: Target
    answers: Mapping[str, float] = field(default_factory=dict)


class _Claiming(PlantedField):
    """A planted field that claims to be the gradient of its base's potential, which it is not."""

    @property
    def has_potential(self) -> bool:
        return True

    def potential(self, x: Tensor, t: float | Tensor, classes: Classes = None) -> Tensor:
        return self.base.potential(x, t, classes)


def conservative(law: Distribution, dim: int) -> KnownField:
    """A field without curl, at which every instrument should find zero."""
    data = _data(law, dim)
    if law != "potential":
        return KnownField(data, data)
    backbone = MLP(dim, hidden=64, depth=2, outputs=1, seed=0)
    potential = PotentialField(backbone, data.sde, sigma_data=data.std).double()
    return KnownField(potential.requires_grad_(False), data)


def planted(law: Distribution, dim: int, shape: Shape, size: float) -> KnownField:
    r"""The score of a distribution with a curl of relative asymmetry ``size``."""
    data = _data(law, dim)
    # From |J - Jᵀ|² / 4|J|² = (ρ|R|)² / (|J₀|² + (ρ|R|)²), with |R| = 1.
    turn = size / math.sqrt(1 - size**2) * math.sqrt(_squared_jacobian(law, dim))
    dose = turn * SIGMA * math.hypot(SIGMA, 1.0)
    found = _Claiming(data, Turned(Radial(1.0), _skew(dim, shape)), dose)
    curl = 2 * turn
    answers = dict.fromkeys(("exterior derivative", "exterior derivative, probes", "loops"), curl)
    answers |= dict.fromkeys(("relative asymmetry", "relative asymmetry, probes"), size)
    # Of an affine field, with a bend of 1/2; see scorefield.diagnostics.path_gap.
    gap = 4 / math.pi * SIGMA**2 * curl * math.sqrt((dim + 2) / (dim - 1))
    answers |= {"growth": 0.0, "path gap": gap}
    # The rotation is free of divergence under the noisy density of an isotropic Gaussian, where it
    # is all that is no gradient, and graph cycles have no preferred plane; elsewhere none is known.
    if law == "gaussian":
        variance = data.std**2 + SIGMA**2
        error = SIGMA * turn * math.sqrt(variance / dim)
        # Between the ends of a chord e with middle y the rotation adds ρ (R y) · e.
        chord = turn**2 * 2 * SIGMA**2 * (data.std**2 + SIGMA**2 / 2)
        answers |= {"potential gap": math.sqrt(chord + gap**2 / 4), "score error": error}
        answers |= {"denoising loss": data.std**2 / variance + error**2}
        answers |= {"graph cycles": curl, "Hodge rest": size**2}
    return KnownField(found, data, answers)


@cache
def _data(law: Distribution, dim: int) -> Target:
    index = torch.arange(_COMPONENTS)
    sde = EDM(sigma_min=0.002, sigma_max=80.0)
    if law in ("gaussian", "potential"):
        return Gaussian(torch.zeros(dim, dtype=torch.float64), 1.0, sde=sde)
    means = _NOISE.normal("specimen/means", (dim,), index, dtype=torch.float64)
    means = 2 * means / means.norm(dim=1, keepdim=True)
    stds = torch.tensor([0.5, 0.7, 0.9, 1.1], dtype=torch.float64)
    mixture = GaussianMixture(means, stds=stds, sde=sde)
    if law == "mixture":
        return mixture
    return Empirical(mixture.sample(_ITEMS, 0, dtype=torch.float64), sde=sde)


@cache
def _squared_jacobian(law: Distribution, dim: int) -> float:
    r"""The mean of :math:`\|\nabla s\|_F^2` over noisy points at :data:`SIGMA`."""
    data = _data(law, dim)
    if isinstance(data, Gaussian):
        return dim / (data.std**2 + SIGMA**2) ** 2
    n = max(64, min(_LARGE, _ENTRIES // dim**2))
    x = data.sample(n, seed=1, dtype=torch.float64, t=SIGMA)
    rows = max(1, (1 << 22) // dim**2)
    return sum(float(data.jacobian(part, SIGMA).square().sum()) for part in x.split(rows)) / n


@cache
def _skew(dim: int, shape: Shape) -> Tensor:
    r"""A skew matrix with :math:`\|R\|_F = 1`."""
    z = _NOISE.normal(f"specimen/{shape}", (dim,), torch.arange(dim), dtype=torch.float64)
    if shape == "plane":
        q, _ = torch.linalg.qr(z[:2].T)
        z = torch.outer(q[:, 0], q[:, 1])
    matrix = z - z.T
    return matrix / matrix.norm()

r"""Distances of atoms from their sites.

The distance of a configuration of indistinguishable atoms from the sites :math:`m` is that to the
nearest of their :math:`n!` permutations,

.. math:: r(x) = \min_\pi \Big(\sum_i |x_i - m_{\pi(i)}|^2\Big)^{1/2},

each :math:`|\cdot|` the shortest on the torus. An atom at site :math:`i` is displaced by a normal
vector of width :math:`\sigma_e`. Where all of these are shorter than half the distance
:math:`\delta_i` of the site from the next one (or from itself, around the torus), every atom is
nearest to its own site, and :math:`r` is the length of the whole displacement. Its distribution is
that of :math:`\sigma_e \chi` with :math:`n d` degrees of freedom, up to

.. math:: \sum_i P\big(\chi_d > \delta_i / 2 \sigma_e\big)

in the distribution function.
"""

from __future__ import annotations

import math
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from scorefield.checks import check_floating
from scorefield.errors import UserError
from scorefield.metrics.exact_law import KolmogorovSmirnov, at_time, ks_test
from scorefield.metrics.sets import flat
from scorefield.targets.atoms import PseudoAtoms

_ORDERS = 5
"""The largest number of atoms for which all permutations are tried."""
_ROWS = 4096
_KNOWN = 0.01
"""The largest allowed error of the radial distribution function."""


class RadialLaw(NamedTuple):
    r"""The distribution of the distance from the nearest configuration: :math:`\sigma_e \chi` with
    ``dim`` :math:`= n d` degrees of freedom and the ``width`` :math:`\sigma_e` of an atom about its
    site, up to ``error``.
    """

    dim: int
    width: float
    error: float

    def cdf(self, r: Float[Tensor, " points"]) -> Float[Tensor, " points"]:
        """The probability of a distance up to ``r``."""
        half = torch.full_like(r, 0.5 * self.dim)
        return torch.special.gammainc(half, 0.5 * (r / self.width) ** 2)

    def density(self, r: Float[Tensor, " points"]) -> Float[Tensor, " points"]:
        """The density at the distance ``r``."""
        u = r / self.width
        scale = (0.5 * self.dim - 1) * math.log(2) + math.lgamma(0.5 * self.dim)
        return u ** (self.dim - 1) * torch.exp(-0.5 * u**2 - scale) / self.width


def radial_distances(x: Float[Tensor, "batch n d"], atoms: PseudoAtoms) -> Float[Tensor, " batch"]:
    """The distance of each point from the nearest configuration, float64.

    Up to five atoms all permutations are compared; for more, by linear assignment.

    References:
        On implementing 2D rectangular assignment algorithms (Crouse, 2016).
    """
    domain, sites = atoms.domain, atoms.positions
    check_floating("points", x)
    if x.shape[1:] != domain.shape:
        raise UserError(
            f"points of shape {tuple(x.shape[1:])} have no distance from atoms on {domain}"
        )
    points = flat(x).to(sites.device).reshape(x.shape).unsqueeze(2)
    parts = []
    for some in points.split(_ROWS):
        pairs = some.expand(-1, -1, len(sites), -1)
        cost = domain.displacement(sites.expand_as(pairs), pairs).square().sum(dim=3)
        parts.append(_cheapest(cost))
    return torch.cat(parts).sqrt()


def radial_law(atoms: PseudoAtoms, t: float | None = None) -> RadialLaw:
    """The exact distribution of :func:`radial_distances`.

    Raises:
        ValueError: If the atoms are so wide compared with the distances of their sites that the
            distribution is not known to 1 %.
    """
    clean, time = at_time(atoms, t)
    dims, width = atoms.domain.shape[1], float(clean.effective_width(time))
    half = 0.5 * _gaps(atoms) / width
    lost = torch.special.gammaincc(torch.full_like(half, 0.5 * dims), 0.5 * half**2)
    error = float(lost.sum())
    if error > _KNOWN:
        raise UserError(
            f"atoms of width {width:.3g} about sites {2 * width * float(half.min()):.3g} apart "
            f"overlap: their radial law is known only up to {min(error, 1.0):.2g}, not to "
            f"{_KNOWN:g}"
        )
    return RadialLaw(atoms.domain.dim, width, error)


def radial_ks(
    samples: Float[Tensor, "batch n d"],
    atoms: PseudoAtoms,
    t: float | None = None,
    confidence: float = 0.95,
) -> KolmogorovSmirnov:
    """The gap between the radial distances of samples and their exact distribution, whose error
    widens the interval; errors are those of :func:`radial_law`.
    """
    law = radial_law(atoms, t)
    return ks_test(radial_distances(samples, atoms), law.cdf, confidence, law.error)


def _cheapest(cost: Float[Tensor, "batch n n"]) -> Float[Tensor, " batch"]:
    """The smallest sum of one entry per row and column."""
    n = cost.shape[1]
    if n <= _ORDERS:
        orders = torch.tensor(list(permutations(range(n))), device=cost.device)
        sums = cost[:, torch.arange(n, device=cost.device), orders].sum(dim=2)
        return sums.amin(dim=1)
    found = [row[linear_sum_assignment(row)].sum() for row in cost.cpu().numpy()]
    return torch.as_tensor(np.array(found), device=cost.device)


def _gaps(atoms: PseudoAtoms) -> Float[Tensor, " n"]:
    """The distance of each site from the next one, or from itself around the torus."""
    n, sites = len(atoms.positions), atoms.positions
    pairs = sites.unsqueeze(1).expand(-1, n, -1)
    gaps = atoms.domain.displacement(pairs, pairs.transpose(0, 1)).norm(dim=2)
    gaps.fill_diagonal_(float(atoms.domain.periods(gaps).min()))
    return gaps.amin(dim=1)

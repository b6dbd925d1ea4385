r"""Particles whose energy is a sum over pairs: the double well and Lennard-Jones clusters.

Points are the relative coordinates of :mod:`scorefield.relative`, of shape
:math:`(n - 1, d)`: what is sampled has no centre of mass. With :math:`d_{ij} = |x_i - x_j|`,

.. math:: u = \sum_{i < j} v(d_{ij}) + \tfrac{k}{2} |y|^2
    = \tfrac12 \sum_{i \ne j} v(d_{ij}) + \tfrac{k}{2} \sum_i |x_i - \bar x|^2 ,

so that every pair counts once. Such energies are invariant under translations, rotations,
reflections and permutations.

References:
    Equivariant flows: exact likelihood generative learning for symmetric densities (Köhler, Klein
    and Noé, 2020), section 6 and appendix, for DW-4 and LJ-13.
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.checks import check_count, check_finite, check_not_negative, check_positive
from scorefield.domain import Euclidean
from scorefield.noise import Noise
from scorefield.relative import helmert, relative_coordinates
from scorefield.targets.energy import Energy

_SHAKE = 0.03
"""How far particles start from the sites of a lattice, in units of its spacing."""

_BETWEEN = 0.65
"""The spacing of the lattice in units of the middle distance: a pair of DW-4 is in a well then."""

_NEAREST = 1e-200
"""The least square of a distance, so that particles in one place have numbers."""


class PairEnergy(Energy):
    """Particles of one kind, whose energy is a sum over pairs, in a harmonic trap or in none."""

    pairs: Tensor

    def __init__(self, particles: int, dims: int, trap: float, spacing: float) -> None:
        name = type(self).__name__
        check_count(f"{name}: particles", particles, 2)
        check_count(f"{name}: dims", dims)
        check_not_negative(f"{name}: trap", trap)
        super().__init__(Euclidean((particles - 1, dims)))
        self.particles, self.dims, self.trap, self._spacing = particles, dims, trap, spacing
        one, other = torch.triu_indices(particles, particles, offset=1, device="cpu")
        places = helmert(particles, torch.zeros((), dtype=torch.float64, device="cpu")).T
        # What makes the differences of all pairs of the relative coordinates.
        self.register_buffer("pairs", places[one] - places[other], persistent=False)

    @abstractmethod
    def _pair(self, square: Tensor) -> tuple[Tensor, Tensor]:
        r"""The energy :math:`v(d)` of pairs, and its slope :math:`v'(d) / d`, by the squares of
        their distances.
        """

    def start(self, noise: Noise, index: Int[Tensor, " n"]) -> Float[Tensor, "n k d"]:
        """Shaken sites of a cubic lattice, those nearest to one of them, turned and put in order at
        random: a distribution with the symmetries of the energy, which chains from it keep.
        """
        reach = 1
        while (2 * reach + 1) ** self.dims < self.particles:
            reach += 1
        grid = list(product(range(-reach, reach + 1), repeat=self.dims))
        sites = torch.tensor(grid, dtype=torch.float64, device=index.device)
        nearest = sites[sites.square().sum(dim=1).argsort(stable=True)[: self.particles]]
        keys = noise.uniform("start order", (self.particles,), index, dtype=torch.float64)
        axes = noise.normal("start axes", (self.dims, self.dims), index, dtype=torch.float64)
        turned = nearest[keys.argsort(dim=1)] @ _orthogonal(axes)
        z = noise.normal("start", self.domain.shape, index, dtype=torch.float64)
        return self._spacing * (relative_coordinates(turned) + _SHAKE * z)

    def distances(self, x: Float[Tensor, "batch k d"]) -> Float[Tensor, "batch pairs"]:
        r"""The distances of all :math:`n (n - 1) / 2` pairs."""
        self.check_inputs(x, 0.0)
        return self._squares(self._apart(x.to(torch.float64))).sqrt().to(x.dtype)

    def _energy(self, x: Tensor) -> Tensor:
        energies, _ = self._pair(self._squares(self._apart(x)))
        return energies.sum(dim=1) + 0.5 * self.trap * x.square().sum(dim=(1, 2))

    def _force(self, x: Tensor) -> Tensor:
        apart = self._apart(x)
        _, slopes = self._pair(self._squares(apart))
        return -((slopes.unsqueeze(1) * apart) @ self.pairs).mT - self.trap * x

    def _apart(self, x: Tensor) -> Tensor:
        """The differences of all pairs, of shape (batch, d, pairs): one product of matrices."""
        return x.mT @ self.pairs.T

    @staticmethod
    def _squares(apart: Tensor) -> Tensor:
        return apart.square().sum(dim=1).clamp(min=_NEAREST)


class DoubleWell(PairEnergy):
    r"""Particles whose pairs have two preferred distances; four in the plane are DW-4.

    .. math:: u = \frac{1}{2\tau} \sum_{i \ne j}
        \big[ a\,(d_{ij} - d_0) + b\,(d_{ij} - d_0)^2 + c\,(d_{ij} - d_0)^4 \big]

    over ordered pairs, so that each pair has the weight :math:`1 / \tau`. With :math:`a = 0` the
    wells of a pair are at :math:`d_0 \pm \sqrt{-b / 2c}`, 2.51 and 5.49 for the values of DW-4, of
    the depth :math:`b^2 / 4c\tau`, 4.44.

    Arguments:
        particles: The number :math:`n` of particles.
        dims: The number :math:`d` of dimensions.
        a: The coefficient of the linear term.
        b: The coefficient of the quadratic term.
        c: The coefficient of the quartic term, positive.
        d0: The distance :math:`d_0` between the wells, positive.
        tau: The temperature :math:`\tau`, positive.

    Raises:
        ValueError: If an argument is out of its range.

    References:
        Equivariant flows: exact likelihood generative learning for symmetric densities (Köhler,
        Klein and Noé, 2020), section 6.1.
    """

    def __init__(
        self,
        particles: int = 4,
        dims: int = 2,
        a: float = 0.0,
        b: float = -4.0,
        c: float = 0.9,
        d0: float = 4.0,
        tau: float = 1.0,
    ) -> None:
        super().__init__(particles, dims, 0.0, _BETWEEN * d0)
        check_finite("DoubleWell: a", a)
        check_finite("DoubleWell: b", b)
        for name, value in (("c", c), ("d0", d0), ("tau", tau)):
            check_positive(f"DoubleWell: {name}", value)
        self.a, self.b, self.c, self.d0, self.tau = a, b, c, d0, tau

    def _pair(self, square: Tensor) -> tuple[Tensor, Tensor]:
        distance = square.sqrt()
        off = distance - self.d0
        # Products, since powers take ten times as long.
        squared = off * off
        energy = off * self.a + squared * (self.b + self.c * squared)
        slope = self.a + off * (2 * self.b + 4 * self.c * squared)
        return energy / self.tau, slope / (self.tau * distance)


class LennardJones(PairEnergy):
    r"""A Lennard-Jones cluster in a harmonic trap; thirteen particles in space are LJ-13.

    .. math:: u = \frac{\varepsilon}{2\tau} \sum_{i \ne j} \Big[ \Big( \frac{r_m}{d_{ij}} \Big)^{12}
        - 2 \Big( \frac{r_m}{d_{ij}} \Big)^6 \Big] + \frac{k}{2} \sum_i |x_i - \bar x|^2

    over ordered pairs, so that each pair has a well of the depth :math:`\varepsilon / \tau` at
    :math:`r_m`. A sum over ordered pairs without the half is this energy with twice the
    :math:`\varepsilon`; published energies of "LJ-13" are to be compared with that in mind.

    Arguments:
        particles: The number :math:`n` of particles.
        dims: The number :math:`d` of dimensions.
        eps: The depth :math:`\varepsilon` of the well of a pair, positive.
        rm: The distance :math:`r_m` of the well, positive.
        tau: The temperature :math:`\tau`, positive.
        trap: The constant :math:`k` of the trap, in units of :math:`kT`; positive, since the
            particles would evaporate.

    Raises:
        ValueError: If an argument is out of its range.

    References:
        Equivariant flows: exact likelihood generative learning for symmetric densities (Köhler,
        Klein and Noé, 2020), section 6.2.
    """

    def __init__(
        self,
        particles: int = 13,
        dims: int = 3,
        eps: float = 1.0,
        rm: float = 1.0,
        tau: float = 1.0,
        trap: float = 1.0,
    ) -> None:
        super().__init__(particles, dims, trap, rm)
        for name, value in (("eps", eps), ("rm", rm), ("tau", tau), ("trap", trap)):
            check_positive(f"LennardJones: {name}", value)
        self.eps, self.rm, self.tau = eps, rm, tau

    def _pair(self, square: Tensor) -> tuple[Tensor, Tensor]:
        second = self.rm**2 / square
        # Products, since powers take ten times as long.
        sixth = second * second * second
        depth = self.eps / self.tau
        return depth * sixth * (sixth - 2), 12 * depth * sixth * (1 - sixth) / square


def _orthogonal(normals: Float[Tensor, "n d d"]) -> Float[Tensor, "n d d"]:
    """Uniform orthogonal matrices from matrices of standard normals."""
    q, r = torch.linalg.qr(normals)
    # Without the signs they would not be uniform.
    return q * r.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)

"""Indistinguishable atoms on a torus."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.checks import check_floating, check_positive
from scorefield.domain import Torus
from scorefield.errors import UserError
from scorefield.fields.forms import Times
from scorefield.noise import Noise
from scorefield.sde.base import SDE
from scorefield.targets.base import Steps, Target
from scorefield.targets.permanent import MOST, assignment, log_permanent
from scorefield.wrapped import WrappedNormal, wrapped_cdf


class PseudoAtoms(Target):
    r"""Indistinguishable atoms that vibrate about fixed sites of a periodic box.

    .. math:: p_0(x) = \frac{1}{n!} \sum_\pi \prod_i W(x_i - m_{\pi(i)};\ \sigma_d), \qquad
        p_t: \sigma_d^2 \to \sigma_e^2 = \sigma_d^2 + \sigma^2,

    with the wrapped normal density :math:`W` of each coordinate; :math:`p_t` is :math:`p_0` with
    :math:`\sigma_e` in place of :math:`\sigma_d`. With the probability :math:`P_{ij}(x)` that atom
    :math:`i` is at site :math:`j` and :math:`s_{ij} = \nabla \ln W(x_i - m_j; \sigma_e)`,

    .. math:: s_i = \sum_j P_{ij}\,s_{ij}, \qquad
        \nabla s = \mathrm{diag}\Big(\sum_j P_{ij} \nabla s_{ij}\Big) + \mathrm{Cov}_\pi[s],

    the covariance over the distribution of assignments. Points have the shape (atoms, dimensions).

    The posterior mean is that in the covering space, :math:`x + \sigma^2 s`; :attr:`mean` and
    :attr:`std` are those of the sites in the box. An evaluation holds about :math:`2^{n-1} n`
    numbers per point.

    Arguments:
        positions: The sites :math:`m_j`, of shape :math:`(n, d)`.
        std: The standard deviation :math:`\sigma_d` of an atom's coordinate about its site.
        period: The period of the box, or one for each dimension.
        sde: A forward process that preserves the mean; ``EDM()`` by default.

    Raises:
        ValueError: If the sites have another shape or are not finite, there are more than 16, the
            standard deviation or a period is not positive, or the process does not preserve the
            mean.
    """

    positions: Tensor
    domain: Torus

    def __init__(
        self,
        positions: Tensor | Sequence[Sequence[float]],
        std: float,
        period: float | tuple[float, ...] = 1.0,
        sde: SDE | None = None,
    ) -> None:
        sites = torch.as_tensor(positions, dtype=torch.float64)
        if sites.dim() != 2 or not sites.numel() or not bool(sites.isfinite().all()):
            raise UserError(
                f"the sites of atoms must be finite and of shape (atoms, dimensions), got "
                f"{tuple(sites.shape)}"
            )
        if len(sites) > MOST:
            raise UserError(f"{len(sites)} atoms have too many orders, {MOST} is the most")
        check_positive("the standard deviation of an atom", std)
        domain = Torus(tuple(sites.shape), period)
        super().__init__(domain, sde)
        self.width = std
        self.register_buffer("positions", domain.wrap(sites))

    @property
    def mean(self) -> Float[Tensor, "n d"]:
        return self.positions.mean(dim=0).expand(self.domain.shape)

    @property
    def std(self) -> float:
        spread = (self.positions - self.positions.mean(dim=0)).square().mean()
        return math.sqrt(float(spread) + self.width**2)

    def draw(
        self, noise: Noise, index: Tensor, step: Steps = 0, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "..."]:
        order = noise.uniform("data order", self.domain.shape[:1], index, step, torch.float64)
        z = noise.normal("data", self.domain.shape, index, step, torch.float64)
        x = self.positions[order.argsort(dim=-1)] + self.width * z
        # Wrap again, since rounding may give the period itself.
        return self.domain.wrap(self.domain.wrap(x).to(dtype))

    def effective_width(self, t: Times) -> Tensor:
        r"""The width :math:`\sigma_e` of an atom at a time, float64."""
        time = torch.as_tensor(t, dtype=torch.float64, device=self.positions.device)
        return (self.sde.sigma(time) ** 2 + self.width**2).sqrt()

    def marginal_density(
        self, u: Float[Tensor, " points"], t: float, axis: int = 0
    ) -> Float[Tensor, " points"]:
        r"""The density :math:`\frac1n \sum_j W(u - m_j)` of one coordinate of an atom."""
        delta, width, period = self._along(u, t, axis)
        delta = delta - torch.round(delta)
        density = torch.exp(WrappedNormal(delta, width).log_prob()) / period
        return density.mean(dim=1).to(u.dtype)

    def marginal_cdf(
        self, u: Float[Tensor, " points"], t: float, axis: int = 0
    ) -> Float[Tensor, " points"]:
        """The probability that one coordinate of an atom is between 0 and ``u``, a point of the
        box.
        """
        end, width, _ = self._along(u, t, axis)
        start, _, _ = self._along(torch.zeros_like(u), t, axis)
        mass = wrapped_cdf(end, width) - wrapped_cdf(start, width)
        return mass.mean(dim=1).to(u.dtype)

    def cell_probabilities(self, bins: int, t: float) -> Float[Tensor, "bins bins"]:
        """The probabilities of the cells of a regular grid over a torus of two dimensions; raises
        ``ValueError`` on any other.
        """
        atoms, dims = self.domain.shape
        if atoms * dims != 2:
            raise UserError(f"a grid of cells needs two coordinates, not {atoms * dims}")
        edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=self.positions.device)
        masses = []
        for axis in range(dims):
            period = self.domain.periods(self.positions).expand(dims)[axis]
            end, width, _ = self._along(edges * period, t, axis)
            masses.append(wrapped_cdf(end, width).diff(dim=0))
        if atoms == 1:
            return masses[0] * masses[1].T
        first, second = masses[0].unbind(dim=1)
        return 0.5 * (torch.outer(first, second) + torch.outer(second, first))

    def _along(self, u: Tensor, t: float, axis: int) -> tuple[Tensor, Tensor, Tensor]:
        """Displacements from all sites along an axis, and widths, in periods; and the period."""
        check_floating("coordinates", u)
        period = self.domain.periods(self.positions).expand(self.domain.shape[1])[axis]
        delta = (u.to(torch.float64).unsqueeze(1) - self.positions[:, axis]) / period
        return delta, (self.effective_width(t) / period).expand_as(delta), period

    def _pairs(self, x: Tensor, sigma: Tensor) -> WrappedNormal:
        """The density of each coordinate of each atom about each site, in periods: (B, n, n, d)."""
        atoms, dims = self.domain.shape
        points = x.reshape(-1, atoms, 1, dims).expand(-1, -1, atoms, -1)
        period = self.domain.periods(x)
        delta = self.domain.displacement(self.positions.expand_as(points), points)
        width = (sigma**2 + self.width**2).sqrt().reshape(-1, 1, 1, 1)
        return WrappedNormal(delta / period, (width / period).expand_as(delta))

    def _log_weight(self, pairs: WrappedNormal) -> Tensor:
        return (pairs.log_prob() - self.domain.periods(self.positions).log()).sum(dim=3)

    def _log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        weight = self._log_weight(self._pairs(x, sigma))
        return log_permanent(weight) - math.lgamma(len(self.positions) + 1)

    def _score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        pairs = self._pairs(x, sigma)
        scores = pairs.score() / self.domain.periods(x)
        p = assignment(self._log_weight(pairs))
        return (p.unsqueeze(3) * scores).sum(dim=2).reshape(x.shape)

    def _denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x + sigma**2 * self._score(x, alpha, sigma)

    def _jacobian(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        pairs, period = self._pairs(x, sigma), self.domain.periods(x)
        scores, weight = pairs.score() / period, self._log_weight(pairs)
        bend = pairs.curvature() / period**2
        p, columns = assignment(weight), []
        atoms, dims = self.domain.shape
        for atom in range(atoms):
            for axis in range(dims):
                # What moves with a coordinate is one row of the weights.
                direction = torch.zeros_like(weight)
                direction[:, atom] = scores[:, atom, :, axis]
                turned = torch.func.jvp(assignment, (weight,), (direction,))[1]
                columns.append((turned.unsqueeze(3) * scores).sum(dim=2).reshape(x.shape))
        own = (p.unsqueeze(3) * bend).sum(dim=2).reshape(x.shape)
        return torch.stack(columns, dim=2) + torch.diag_embed(own)

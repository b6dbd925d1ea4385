"""Regularisers on circulation, without Jacobians: around loops, and around graph cycles."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scorefield.calculus import (
    circulation,
    nearest_neighbours,
    per_coordinate,
    planes,
    propose_cycles,
    regular_polygons,
    squared_area,
    squared_curl,
)
from scorefield.calculus import quadrature as quadrature_rule
from scorefield.fields import ScoreField
from scorefield.noise import Noise
from scorefield.objectives.balance import BalancedWeight
from scorefield.objectives.denoising import NoiseLaw
from scorefield.objectives.objective import Regularizer


class LoopCirculation(Regularizer):
    r"""The squared curl seen by regular polygons of several radii around noised points.

    With the circulation :math:`C` around a polygon of area :math:`|B|` in a random plane,
    :math:`\frac{\sigma^4}{D} \mathbb{E}[D(D-1) C^2 / |B|^2]`, averaged over radii, estimates the
    same number as :class:`~scorefield.objectives.asymmetry.Asymmetry`; exactly so for affine
    fields.

    Arguments:
        weight: The weight, averaged over steps.
        radii: The radii of the polygons, in units of :math:`\sigma`.
        sides: The number of their sides.
        quadrature: The rule on each side; see :func:`~scorefield.calculus.quadrature`.
        rows: The number of points, at most the batch; each is the centre of one loop a radius.
        every: Evaluated at every ``every``-th step.
        sigma_max: The largest noise level.

    Raises:
        ValueError: If an argument is out of range.
    """

    name = "loops"

    def __init__(
        self,
        weight: float,
        radii: Sequence[float] = (0.25, 0.5, 1.0),
        sides: int = 4,
        quadrature: str = "midpoint",
        rows: int = 16,
        every: int = 1,
        sigma_max: float | None = None,
    ) -> None:
        super().__init__(weight, every, sigma_max)
        if not radii or min(radii) <= 0:
            raise ValueError(f"loops: radii must be positive, got {list(radii)}")
        if sides < 3 or rows < 1:
            raise ValueError(f"loops: sides >= 3 and rows >= 1 must hold, got {sides}, {rows}")
        self.radii = tuple(radii)
        self.sides = sides
        self.rule = quadrature_rule(quadrature)
        self.rows = rows

    def draw(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, rows: int, step: Tensor
    ) -> tuple[Tensor, ...]:
        index = torch.arange(min(rows, self.rows))
        t = law.times(field.sde, noise, index, step, "loops/time", self.upper(field.sde))
        z = noise.normal("loops/perturbation", field.domain.shape, index, step)
        index = torch.arange(index.numel() * len(self.radii))
        return t, z, planes(noise, "loops/plane", field.domain, index, step)

    def energy(self, field: ScoreField, x: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        t, z, plane = draws
        domain, copies = field.domain, len(self.radii)
        x_t = field.sde.perturb(x[: t.shape[0]], t, z, domain).repeat(copies, *(1,) * (x.dim() - 1))
        sigma = field.sde.sigma(t)
        radii = torch.cat([radius * sigma for radius in self.radii])
        vertices = regular_polygons(x_t, radii, plane, self.sides, domain)
        t, sigma = t.repeat(copies), sigma.repeat(copies)
        turn = circulation(field.score, vertices, t, self.rule, domain)
        numerator, denominator = squared_curl(turn, squared_area(vertices, domain), domain.dim)
        return per_coordinate(numerator / denominator, sigma, domain.dim).mean()


class CycleCirculation(Regularizer):
    r"""The squared curl seen by cycles of the nearest-neighbour graph of noised points.

    All points of a step share one noise level. The circulation :math:`C` of a cycle needs the
    field at its vertices only, which all cycles share, and
    :math:`\frac{\sigma^4}{D} D(D-1) \sum C^2 / \sum |B|^2` weighs cycles by their squared area, so
    that flat ones do no harm. The trapezoid rule is exact for affine fields.

    Arguments:
        weight: The weight, averaged over steps, or the first weight of ``balance``.
        balance: A controller of the weight; the weight is fixed if not given.
        points: The number of points, at most the batch.
        cycles: The number of walks that are proposed as cycles, for each length.
        neighbours: The number of nearest neighbours in the graph.
        lengths: The numbers of vertices of the cycles.
        quadrature: ``trapezoid``, or ``left`` for the biased rule of the published benchmark.
        every: Evaluated at every ``every``-th step.
        sigma_max: The largest noise level.

    Raises:
        ValueError: If an argument is out of range.
    """

    name = "cycles"

    def __init__(
        self,
        weight: float,
        balance: BalancedWeight | None = None,
        points: int = 128,
        cycles: int = 128,
        neighbours: int = 4,
        lengths: Sequence[int] = (3,),
        quadrature: str = "trapezoid",
        every: int = 1,
        sigma_max: float | None = None,
    ) -> None:
        super().__init__(weight, every, sigma_max)
        if quadrature not in ("trapezoid", "left"):
            raise ValueError(f"cycles: quadrature is trapezoid or left, not {quadrature!r}")
        if not lengths or min(lengths) < 3 or cycles < 1 or not 1 <= neighbours < points:
            raise ValueError(
                "cycles: lengths >= 3, cycles >= 1 and 1 <= neighbours < points must hold, got "
                f"lengths={list(lengths)}, cycles={cycles}, neighbours={neighbours}, "
                f"points={points}"
            )
        self.balance = balance
        self.points = points
        self.cycles = cycles
        self.neighbours = neighbours
        self.lengths = tuple(lengths)
        self.rule = quadrature_rule(quadrature)

    def effective_weight(self, denoising: Tensor, energy: Tensor) -> Tensor | float:
        if self.balance is None:
            return self.weight
        return self.balance(denoising, energy)

    def draw(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, rows: int, step: Tensor
    ) -> tuple[Tensor, ...]:
        index = torch.arange(min(rows, self.points))
        t = law.times(field.sde, noise, index[:1], step, "cycles/time", self.upper(field.sde))
        z = noise.normal("cycles/perturbation", field.domain.shape, index, step)
        walks = torch.arange(self.cycles)
        draws = [
            noise.uniform(f"cycles/walk-{n}", (n,), walks, step, dtype=torch.float64)
            for n in self.lengths
        ]
        return t.expand(-1, index.numel()), z, *draws

    def energy(self, field: ScoreField, x: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        t, z, *walks = draws
        domain = field.domain
        x_t = field.sde.perturb(x[: t.shape[0]], t, z, domain)
        score = field.score(x_t, t)
        graph = nearest_neighbours(x_t.flatten(1), self.neighbours)
        numerators, denominators = [], []
        for draw in walks:
            cycles, closed = propose_cycles(graph, draw)
            turn = self._circulation(score[cycles], x_t[cycles], field)
            numerator, denominator = squared_curl(
                turn, squared_area(x_t[cycles], domain), domain.dim
            )
            numerators.append(numerator * closed)
            denominators.append(denominator * closed)
        # A step in which no walk closes into a cycle has nothing to say.
        area = torch.cat(denominators).sum()
        curl = torch.cat(numerators).sum() / torch.where(area > 0, area, torch.ones_like(area))
        return per_coordinate(curl.reshape(1), field.sde.sigma(t[:1]), domain.dim).mean()

    def _circulation(self, score: Tensor, vertices: Tensor, field: ScoreField) -> Tensor:
        edges = field.domain.displacement(vertices, vertices.roll(-1, dims=1))
        ends = {0.0: score, 1.0: score.roll(-1, dims=1)}
        parts = zip(self.rule.nodes, self.rule.weights, strict=True)
        mean = sum((w * ends[c] for c, w in parts), torch.zeros_like(score))
        return (mean * edges).flatten(1).sum(dim=1)

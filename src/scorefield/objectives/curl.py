"""Regularisers on curl: by the asymmetry of the Jacobian, and without Jacobians by the circulation
around loops and graph cycles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from scorefield.calculus.asymmetry import Variant, per_coordinate, probed_asymmetry
from scorefield.calculus.circulation import (
    circulation,
    find_cycles,
    nearest_neighbours,
    planes,
    quadrature,
    regular_polygons,
    squared_area,
    squared_curl,
)
from scorefield.checks import check_positive
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.noise import Noise
from scorefield.objectives.denoising import NoiseLaw
from scorefield.objectives.regularizer import PointRegularizer, Regularizer
from scorefield.world import ALONE, World

Probe = Literal["rademacher", "gaussian"]


class Asymmetry(PointRegularizer):
    r"""The mean squared asymmetry :math:`\sigma^4 \|J - J^\top\|_F^2 / D` of the score's Jacobian.

    Estimated at noisy points by ``probes`` random probes :math:`v` each, with one pass of forward
    mode (:math:`Jv`) and one of reverse mode (:math:`J^\top v`); unbiased.

    Arguments:
        variant: ``difference`` for :math:`\|Jv - J^\top v\|^2`; ``trace`` for
            :math:`2(\|J^\top v\|^2 - \langle Jv, J^\top v\rangle)`, of the same mean.
        probe: ``rademacher`` or ``gaussian``.
        probes: The number of probes a point.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Quasi-conservative score-based generative models (Chao et al., 2023), equations 9 and 12.
    """

    name = "asymmetry"

    variant: Variant = "trace"
    probe: Probe = "rademacher"
    probes: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("variant", Variant)
        self._check_choice("probe", Probe)
        self._check_least(1, "probes")

    def directions(
        self, field: ScoreField, noise: Noise, index: Tensor, step: Tensor
    ) -> tuple[Tensor, ...]:
        draw = noise.signs if self.probe == "rademacher" else noise.normal
        return (draw("asymmetry/probe", (self.probes, *field.domain.shape), index, step),)

    def energy(self, field: ScoreField, x: Tensor, t: Tensor, *directions: Tensor) -> Tensor:
        (v,) = directions
        x, t = x.repeat_interleave(self.probes, 0), t.repeat_interleave(self.probes, 0)
        skew, _ = probed_asymmetry(field.score, x, t, v.flatten(0, 1), self.variant)
        return per_coordinate(skew, field.sde.sigma(t), field.domain.dim).mean()


class LoopCirculation(PointRegularizer):
    r"""The squared curl seen by regular polygons of several radii around noised points.

    With the circulation :math:`C` around a polygon of area :math:`|B|` in a random plane,
    :math:`\frac{\sigma^4}{D} \mathbb{E}[D(D-1) C^2 / |B|^2]`, averaged over radii, estimates the
    same number as :class:`Asymmetry`; exactly so for affine
    fields.

    Arguments:
        radii: The radii of the polygons, in units of :math:`\sigma`.
        sides: The number of their sides.
        quadrature: The rule on each side; see :func:`~.quadrature`.
        rows: The number of points, at most the batch; each is the centre of one loop a radius.

    Raises:
        ValueError: If an argument is out of range.
    """

    name = "loops"

    rows: int = 16
    radii: Sequence[float] = (0.25, 0.5, 1.0)
    sides: int = 4
    quadrature: str = "midpoint"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.radii = tuple(self.radii)
        if not self.radii:
            raise UserError("loops: at least one radius is needed")
        for radius in self.radii:
            check_positive("loops: each of the radii", radius)
        self._check_least(3, "sides")
        self._rule = quadrature(self.quadrature)

    def directions(
        self, field: ScoreField, noise: Noise, index: Tensor, step: Tensor
    ) -> tuple[Tensor, ...]:
        loops = torch.arange(index.numel() * len(self.radii), device=index.device)
        plane = planes(noise, "loops/plane", field.domain, loops, step)
        return (plane.unflatten(1, (len(self.radii), -1)).transpose(1, 2),)

    def energy(self, field: ScoreField, x: Tensor, t: Tensor, *directions: Tensor) -> Tensor:
        (plane,) = directions
        domain, copies = field.domain, len(self.radii)
        x, sigma = x.repeat(copies, *(1,) * (x.dim() - 1)), field.sde.sigma(t)
        radii = torch.cat([radius * sigma for radius in self.radii])
        vertices = regular_polygons(x, radii, plane.transpose(0, 1).flatten(0, 1), self.sides)
        t, sigma = t.repeat(copies), sigma.repeat(copies)
        turn = circulation(field.score, vertices, t, self._rule, domain)
        numerator, denominator = squared_curl(turn, squared_area(vertices), domain.dim)
        return per_coordinate(numerator / denominator, sigma, domain.dim).mean()


class CycleCirculation(Regularizer):
    r"""The squared curl seen by cycles of the nearest-neighbour graph of noised points.

    All points of a step share one noise level. With the circulation :math:`C` around a cycle of
    area :math:`|B|`, :math:`\frac{\sigma^4}{D} D(D-1) \sum C^2 / \sum |B|^2` weighs cycles by their
    squared area, so that flat ones do no harm; a step in which no cycle is found has no such
    term.

    The edges of a graph are as long as the points are apart. On edges longer than
    :math:`\sigma` the score bends, and the error of a low quadrature exceeds the curl that is
    sought: longer edges are left out, and on the others the rule should have degree 3.

    Arguments:
        points: The number of points, at most the batch.
        cycles: The largest number of cycles that are measured, for each length; eight times as
            many walks are proposed.
        neighbours: The number of nearest neighbours in the graph.
        lengths: The numbers of vertices of the cycles.
        quadrature: The rule on each edge; see :func:`~.quadrature`. That of the
            published benchmark is ``left``.
        reach: The length of the longest edge, in units of :math:`\sigma`.

    Raises:
        ValueError: If an argument is out of range, or a batch has no more points than
            ``neighbours``.
    """

    name = "cycles"

    points: int = 128
    cycles: int = 32
    neighbours: int = 4
    lengths: Sequence[int] = (3,)
    quadrature: str = "gauss-2"
    reach: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.lengths = tuple(self.lengths)
        if not self.lengths or min(self.lengths) < 3:
            raise UserError(f"cycles: lengths must be at least 3, got {list(self.lengths)}")
        self._check_least(1, "cycles", "neighbours")
        if self.neighbours >= self.points:
            raise UserError(
                f"cycles: {self.points} points cannot have {self.neighbours} neighbours each"
            )
        check_positive("cycles: reach", self.reach)
        self._rule = quadrature(self.quadrature)

    def draw(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, rows: int, step: Tensor
    ) -> tuple[Tensor, ...]:
        if rows <= self.neighbours:
            raise UserError(f"cycles: {rows} points cannot have {self.neighbours} neighbours each")
        index = torch.arange(min(rows, self.points), device=step.device)
        t = self.times(field, law, noise, index[:1], step)
        z = noise.normal("cycles/perturbation", field.domain.shape, index, step)
        walks = torch.arange(8 * self.cycles, device=step.device)
        draws = [
            noise.uniform(f"cycles/walk-{n}", (n,), walks, step, dtype=torch.float64)
            for n in self.lengths
        ]
        return t, z, *draws

    def evaluate(self, field: ScoreField, x: Tensor, draws: tuple[Tensor, ...]) -> Tensor | None:
        return self.share(field, x, draws, ALONE)

    def share(
        self, field: ScoreField, x: Tensor, draws: tuple[Tensor, ...], world: World
    ) -> Tensor | None:
        # The graph and the areas are those of all processes, the circulations are shared out.
        t, z, *walks = draws
        domain, sigma = field.domain, field.sde.sigma(t)
        x_t = field.sde.perturb(x[: z.shape[0]], t, z, domain)
        graph = nearest_neighbours(domain.embed(x_t), self.neighbours)
        numerators, denominators = [], []
        for draw in walks:
            reach = self.reach * sigma
            vertices = find_cycles(x_t, graph, draw, domain, reach)[: self.cycles]
            if not len(vertices):
                continue
            denominators.append(squared_area(vertices))
            rows = world.rows(len(vertices))
            vertices, areas = vertices[rows], denominators[-1][rows]
            if not len(vertices):
                continue
            t_all = t.expand(len(vertices))
            turn = circulation(field.score, vertices, t_all, self._rule, domain)
            numerators.append(squared_curl(turn, areas, domain.dim)[0])
        if not denominators:
            return None
        if not numerators:
            return x.new_zeros(())
        curl = torch.cat(numerators).sum() / torch.cat(denominators).sum()
        return per_coordinate(curl.reshape(1), sigma, domain.dim).mean()

r"""Line integrals of a field along bent paths, to a stated tolerance.

A path runs from :math:`a` to :math:`b` beside the chord :math:`e = b - a`,

.. math:: \gamma(\tau) = a + \tau e + \sin(\pi\tau)\, \delta, \qquad 0 \le \tau \le 1.

Along a gradient :math:`\nabla\phi` the integral :math:`\int s \cdot \mathrm{d}\gamma` is
:math:`\phi(b) - \phi(a)` for any detour :math:`\delta`. For an affine field, with the skew
part :math:`A = J - J^\top`, a detour at a right angle to the chord adds
:math:`-\frac{2}{\pi}\, \delta^\top A\, e`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from scorefield.calculus.circulation import quadrature
from scorefield.calculus.derivatives import VectorField, evaluate
from scorefield.checks import check_count, check_positive
from scorefield.domain import Domain
from scorefield.errors import UserError
from scorefield.fields.classes import classes_at
from scorefield.noise import Noise

_RULE = quadrature("gauss-4")
_NODES, _WEIGHTS = _RULE.nodes, _RULE.weights
_COORDINATES = 2**18
"""The number of coordinates evaluated at once, which bounds the memory."""


@dataclass(frozen=True)
class Paths:
    r"""A batch of paths :math:`\gamma(\tau) = a + \tau e + \sin(\pi\tau)\, \delta`: the starts
    :math:`a`, chords :math:`e`, and detours :math:`\delta` of their middles.
    """

    start: Float[Tensor, "batch *event"]
    chord: Float[Tensor, "batch *event"]
    detour: Float[Tensor, "batch *event"]

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, index: Tensor) -> Paths:
        """Some of the paths."""
        return Paths(self.start[index], self.chord[index], self.detour[index])

    def at(
        self, tau: Float[Tensor, " nodes"], domain: Domain
    ) -> tuple[Float[Tensor, "batch nodes *event"], Float[Tensor, "batch nodes *event"]]:
        r"""The points :math:`\gamma(\tau)` and the velocities :math:`\dot\gamma(\tau)`."""
        start, chord, detour = (x.unsqueeze(1) for x in (self.start, self.chord, self.detour))
        tau = tau.reshape(-1, *(1,) * (chord.dim() - 2))
        aside, along = (math.pi * tau).sin(), math.pi * (math.pi * tau).cos()
        return domain.wrap(start + tau * chord + aside * detour), chord + along * detour


class LineIntegrals(NamedTuple):
    r"""Line integrals and their errors.

    Arguments:
        value: The integrals, in the unit of the field times that of :math:`x`.
        error: An upper bound on the error of each: of a path the change in the last refinement,
            of a loop the scatter of its rules and rounding.
        resolved: Whether the quadrature is within the tolerance.
    """

    value: Float[Tensor, "*lines"]
    error: Float[Tensor, "*lines"]
    resolved: Bool[Tensor, "*lines"]


def detours(
    noise: Noise,
    purpose: str,
    chord: Float[Tensor, "batch *event"],
    index: Tensor,
) -> Float[Tensor, "batch *event"]:
    """Unit vectors of uniformly random direction at a right angle to each chord."""
    event = chord.shape[1:]
    if event.numel() < 2:
        raise UserError(f"a bent path needs two dimensions or more, the event shape is {event}")
    return across(noise.normal(purpose, event, index, dtype=torch.float64), chord)


def across(
    z: Float[Tensor, "batch *event"], chord: Float[Tensor, "batch *event"]
) -> Float[Tensor, "batch *event"]:
    """The unit vectors of the parts of vectors that are at a right angle to each chord."""
    z, e = (v.to(torch.float64).flatten(1) for v in (z, chord))
    z = z - (z * e).sum(dim=1, keepdim=True) / e.square().sum(dim=1, keepdim=True) * e
    return (z / z.norm(dim=1, keepdim=True)).reshape(chord.shape).to(chord.dtype)


def line_integrals(
    fn: VectorField,
    paths: Paths,
    t: Float[Tensor, " batch"],
    domain: Domain,
    tolerance: float,
    epsilon: float,
    steepness: Float[Tensor, " batch"],
    panels: int = 64,
    classes: Int[Tensor, " batch"] | None = None,
) -> LineIntegrals:
    r"""The integrals :math:`\int_0^1 s(\gamma) \cdot \dot\gamma\, \mathrm{d}\tau` along paths.

    The range of :math:`\tau` is cut into equal panels with four Gauss–Legendre nodes each. Their
    number is doubled, for those paths alone that need it, until an integral changes by no more
    than the tolerance. With points and values of relative precision :math:`\epsilon`, rounding adds
    :math:`\epsilon \int (|s| + L |\gamma|)\, |\mathrm{d}\gamma|` to the tolerance.

    Arguments:
        tolerance: The largest change that ends the refinement, in the unit of the integral.
        steepness: The size :math:`L` of the Jacobian of ``fn`` along each path.
        panels: The largest number of panels, at least 2.
    """
    check_positive("the tolerance of a line integral", tolerance)
    check_count("panels", panels, 2)
    value, size = _composite(fn, paths, t, classes, domain, steepness, 1)
    bound = tolerance + epsilon * size
    error = torch.full_like(value, torch.inf)
    active, count = torch.arange(len(paths), device=t.device), 2
    while len(active) and count <= panels:
        some = paths[active], t[active], classes_at(classes, active)
        finer, _ = _composite(fn, *some, domain, steepness[active], count)
        error[active] = (finer - value[active]).abs()
        value[active] = finer
        active, count = active[~(error[active] <= bound[active])], 2 * count
    return LineIntegrals(value, error, error <= bound)


def _composite(
    fn: VectorField,
    paths: Paths,
    t: Tensor,
    classes: Tensor | None,
    domain: Domain,
    steepness: Tensor,
    panels: int,
) -> tuple[Tensor, Tensor]:
    r"""The integrals by panels, and :math:`\int (|s| + L |\gamma|)\, |\mathrm{d}\gamma|`."""
    left = torch.arange(panels, dtype=t.dtype, device=t.device).reshape(-1, 1)
    nodes, weights = (torch.tensor(v, dtype=t.dtype, device=t.device) for v in (_NODES, _WEIGHTS))
    tau, weight = ((left + nodes) / panels).reshape(-1), (weights / panels).repeat(panels)
    rows = max(1, _COORDINATES // max(1, tau.numel() * domain.dim))
    parts = []
    for block in torch.arange(len(paths), device=t.device).split(rows):
        points, velocity = paths[block].at(tau, domain)
        home = block.repeat_interleave(tau.numel())
        value = evaluate(fn, points.flatten(0, 1), t[home], classes_at(classes, home))
        value = value.reshape(len(block), tau.numel(), -1)
        points, velocity = (v.reshape(value.shape) for v in (points, velocity))
        reach = value.norm(dim=2) + steepness[block].unsqueeze(1) * points.norm(dim=2)
        along = torch.stack(((value * velocity).sum(dim=2), reach * velocity.norm(dim=2)))
        parts.append((weight * along).sum(dim=2))
    integral, size = torch.cat(parts, dim=1)
    return integral, size

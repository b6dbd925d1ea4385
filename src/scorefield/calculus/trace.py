r"""Traces of Jacobians: exact, or by random probes.

For a random vector :math:`v` with :math:`\mathbb{E}\,vv^\top = I` and independent of the matrix,
:math:`\mathbb{E}\,v^\top A v = \mathrm{tr}\,A`. With signs the variance is
:math:`2 \sum_{i \ne j} \bar A_{ij}^2` of the symmetric part :math:`\bar A`, nothing for a diagonal
one; with normals it is :math:`2 \sum_{ij} \bar A_{ij}^2`.

For a matrix :math:`Q` of orthonormal columns that is independent of :math:`v`, and
:math:`P = I - QQ^\top`,

.. math:: \mathrm{tr}\,A = \mathrm{tr}\,Q^\top A Q + \mathrm{tr}\,P A P
    = \sum_i q_i^\top A q_i + \mathbb{E}\,(Pv)^\top A\,(Pv),

since :math:`\mathrm{tr}\,PAP = \mathrm{tr}\,A P^2 = \mathrm{tr}\,A P`. Only the part of :math:`A`
that :math:`Q` does not span is random, which is small if few directions matter. The estimate is
unbiased for any :math:`Q`.

References:
    A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines
    (Hutchinson, 1990), section 2.

    Hutch++: optimal stochastic trace estimation (Meyer, Musco, Musco and Woodruff, 2021),
    algorithm 1.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.calculus.derivatives import VectorField, evaluate
from scorefield.fields.classes import classes_at
from scorefield.fields.gradient import differentiable
from scorefield.noise import Noise

ProbeKind = Literal["rademacher", "gaussian", "variance_reduced"]

_ROWS = 256
"""The number of rows evaluated at once if there are fewer points: in small batches the overhead
of a pass exceeds its arithmetic."""


def value_and_products(
    fn: VectorField,
    x: Float[Tensor, "batch *event"],
    t: Float[Tensor, " batch"],
    v: Float[Tensor, "vectors batch *event"],
    classes: Int[Tensor, " batch"] | None = None,
) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, "vectors batch *event"]]:
    r"""The vectors :math:`f(x)`, and the products :math:`J^\top v` of their Jacobians.

    ``fn`` is evaluated at each point once, and each product is a pass back through that evaluation;
    where the points are few they are repeated, so that one pass serves several products.

    Arguments:
        v: The vectors, several for each point.
    """
    count, batch = v.shape[:2]
    copies = min(count, max(1, _ROWS // max(1, batch)))
    products = torch.zeros_like(v, memory_format=torch.contiguous_format)
    with differentiable(), torch.enable_grad():
        again = torch.arange(batch, device=x.device).repeat(copies)
        points = x.detach()[again].requires_grad_()
        value = evaluate(fn, points, t[again], classes_at(classes, again))
        for start in range(0, count if value.requires_grad else 0, copies):
            some = v[start : start + copies]
            rest = v.new_zeros(copies - len(some), *v.shape[1:])
            (product,) = torch.autograd.grad(
                value,
                points,
                torch.cat((some, rest)).reshape(points.shape),
                retain_graph=start + copies < count,
                materialize_grads=True,
            )
            product = product.reshape(copies, *v.shape[1:])
            products[start : start + copies] = product[: len(some)]
    return value[:batch].detach(), products


def basis(x: Float[Tensor, "batch *event"]) -> Float[Tensor, "dim batch *event"]:
    """The unit vectors, for each point; their forms add up to the exact trace."""
    dim = x.shape[1:].numel()
    unit = torch.eye(dim, dtype=x.dtype, device=x.device)
    return unit.reshape(dim, 1, *x.shape[1:]).expand(dim, *x.shape)


def draw_probes(
    noise: Noise,
    kind: ProbeKind,
    shape: tuple[int, ...],
    index: Int[Tensor, " batch"],
    numbers: range,
    dtype: torch.dtype,
) -> Float[Tensor, "probes batch *event"]:
    """Probes at the addresses ``("probe", index, number)``: signs, or normals for ``gaussian``."""
    steps = torch.arange(numbers.start, numbers.stop, device=index.device).unsqueeze(1)
    draw = noise.normal if kind == "gaussian" else noise.signs
    return draw("probe", shape, index, steps, dtype=dtype)


def without(
    v: Float[Tensor, "probes batch *event"], q: Float[Tensor, "rank batch *event"]
) -> Float[Tensor, "probes batch *event"]:
    """Vectors minus their projections on orthonormal directions, point by point."""
    flat, axes = v.flatten(2), q.flatten(2)
    part = torch.einsum("kbd,rbd->krb", flat, axes)
    return (flat - torch.einsum("krb,rbd->kbd", part, axes)).reshape(v.shape)


def orthonormal(
    sketch: Float[Tensor, "rank batch *event"],
) -> Float[Tensor, "rank batch *event"]:
    """Orthonormal directions that span given vectors, of each point."""
    q = torch.linalg.qr(sketch.flatten(2).permute(1, 2, 0)).Q
    return q.permute(2, 0, 1).reshape(sketch.shape)

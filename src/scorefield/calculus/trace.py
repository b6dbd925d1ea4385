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

from scorefield.noise import Noise

ProbeKind = Literal["rademacher", "gaussian", "variance_reduced"]


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

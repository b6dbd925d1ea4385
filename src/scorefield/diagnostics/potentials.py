r"""Potentials that are fitted to a field under the noisy density: its own, and random waves.

The Poincaré potential of a field :math:`f` about a centre :math:`c` is the integral along rays,
:math:`\psi_P(x) = \int_0^1 f(\gamma) \cdot (x - c)\,\mathrm{d}\tau` with
:math:`\gamma = c + \tau (x - c)`. Its gradient is :math:`f` minus the deviation

.. math:: f - \nabla\psi_P = \int_0^1 \tau\,(J - J^\top)(\gamma)\,(x - c)\,\mathrm{d}\tau,

which is zero if the field is a gradient, in any dimension.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.calculus.circulation import quadrature
from scorefield.calculus.derivatives import VectorField, jvp_vjp
from scorefield.diagnostics.protocol import Points, blocks
from scorefield.fields.classes import classes_at
from scorefield.noise import Noise

NODES = 8
"""The number of nodes on a ray."""
_SCALES = 4
"""The number of wave lengths, from that of the noise to that of the noisy data."""
_TRIED = 32
"""The number of random waves of a torus for each that is taken."""


def deviation(
    fn: VectorField, points: Points, centre: Tensor, nodes: int
) -> Float[Tensor, "batch dim"]:
    """The deviation of a field from the gradient of its own potential, in float64."""
    rule = quadrature(f"gauss-{nodes}")
    parts = []
    for rows in blocks(len(points.t), centre.numel(), points.t.device):
        x, t, known = points.noisy[rows], points.t[rows], classes_at(points.classes, rows)
        ray = x - centre
        off = torch.zeros_like(x)
        for tau, weight in zip(rule.nodes, rule.weights, strict=True):
            forward, backward = jvp_vjp(fn, centre + tau * ray, t, ray, known)
            off += weight * tau * (forward - backward)
        parts.append(flat(off))
    return torch.cat(parts)


def random_waves(
    offsets: Float[Tensor, "batch dim"], sigma: float, count: int, noise: Noise
) -> tuple[Float[Tensor, "count dim"], Float[Tensor, " count"]]:
    r"""The frequencies :math:`\omega` and phases :math:`b` of random features
    :math:`\cos(\omega \cdot u + b)` of the points' offsets :math:`u` from their centre.

    References:
        Random features for large-scale kernel machines (Rahimi and Recht, 2007), section 3.
    """
    dim, index = offsets.shape[1], torch.arange(count, device=offsets.device)
    longest = 2 * max(float(offsets.square().mean().sqrt()), sigma)
    lengths = sigma * (longest / sigma) ** ((index % _SCALES).double() / (_SCALES - 1))
    direction = noise.normal("diagnostics/wave", (dim,), index, dtype=torch.float64)
    # Points lie apart by the root of the dimension; so do the waves.
    frequencies = direction / (dim**0.5 * lengths).unsqueeze(1)
    phases = noise.uniform("diagnostics/phase", (), index, dtype=torch.float64)
    return frequencies, 2 * torch.pi * phases


def periodic_waves(
    periods: Float[Tensor, " dim"], count: int, noise: Noise
) -> Float[Tensor, "some dim"]:
    r"""The frequencies :math:`\omega`, with :math:`\omega_i L_i / 2\pi` whole, of at most so many
    waves that are periodic in each coordinate: the longest of many random ones, of which none is
    another's negative.
    """
    unit = periods / (2 * torch.pi)
    index = torch.arange(_TRIED * count, device=periods.device)
    direction = noise.normal("diagnostics/wave", periods.shape, index, dtype=torch.float64)
    shares = 2.0 ** (index % _SCALES) / len(periods) ** 0.5
    whole = torch.round(direction * shares.unsqueeze(1))
    # The first coordinate in which a wave varies decides its sign.
    first = whole.gather(1, (whole != 0).byte().argmax(dim=1, keepdim=True))
    found = (whole * first.sign()).unique(dim=0)
    found = found[found.any(dim=1)] / unit
    return found[found.norm(dim=1).argsort(stable=True)[:count]]


def flat(x: Tensor) -> Float[Tensor, "batch dim"]:
    """The rows as vectors, in float64."""
    return x.reshape(x.shape[0], -1).double()


def centred(x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
    """The rows minus their mean."""
    return x - x.mean(dim=0)


def nearest_form(
    moments: Float[Tensor, "*many rank rank"], variances: Float[Tensor, " rank"]
) -> Float[Tensor, "*many rank rank"]:
    r"""The symmetric matrix :math:`A` whose gradient :math:`A w` is nearest to a field :math:`y`.

    In the axes in which the points :math:`w` have the second moments
    :math:`\lambda_i`, with :math:`M = \mathbb{E}\,y w^\top` there, it is
    :math:`A_{ij} = (M + M^\top)_{ij} / (\lambda_i + \lambda_j)`.
    """
    return (moments + moments.mT) / (variances + variances.unsqueeze(1))

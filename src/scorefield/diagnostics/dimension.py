r"""The intrinsic dimension of data, by the Jacobian of the denoiser.

At the noise level :math:`\lambda = \sigma / \alpha` and the point :math:`\hat x = x_t / \alpha`,

.. math:: d_\lambda(\hat x)
    = \mathrm{tr}\,\frac{\partial\,\mathbb{E}[x_0 \mid \hat x]}{\partial \hat x}
    = D + \sigma^2\,\nabla \cdot s(x_t, t)

counts the directions that the denoiser keeps. Of the exact score it is
:math:`\mathrm{tr}\,\mathrm{Cov}[x_0 \mid \hat x] / \lambda^2`: a direction in which the data are
normal with standard deviation :math:`\tau` counts :math:`\tau^2 / (\tau^2 + \lambda^2)`, about one
where they spread wider than the noise, and nothing where they are narrower. Of data on a smooth
manifold it tends to the manifold's dimension as :math:`\lambda \to 0`. On a circle of radius
:math:`R`, at the distance :math:`r` from its axis,

.. math:: d_\lambda = \frac{R^2}{\lambda^2} \big( 1 - A(\kappa)^2 \big), \qquad
    A = \frac{I_1}{I_0}, \qquad \kappa = \frac{r R}{\lambda^2},

which is :math:`R / r` at little noise. Below the distance between training points, the score of the
training set itself has dimension 0.

The trace is that of the symmetric part of the Jacobian: curl does not change it.

Over noisy points, the mean of the exact score's is :math:`D` times the denoising loss. The estimate
:math:`D + \sigma^2 (\nabla \cdot s + |s|^2)` of Kamkari et al. is made at clean points, where
:math:`|s|^2` is small; its mean over noisy points is :math:`D` for any data, by Stein's identity.

References:
    Diffusion models encode the intrinsic dimension of data manifolds (Stanczuk, Batzolis, Deveney
    and Schönlieb, 2024, arXiv 2212.12611), on scores that point to the manifold.

    A geometric view of data complexity: efficient local intrinsic dimension estimation with
    diffusion models (Kamkari, Ross, Hosseinzadeh, Cresswell and Loaiza-Ganem, 2024, arXiv
    2406.03537), for the divergence of the score.

    On gauge freedom, conservativity and intrinsic dimensionality estimation in diffusion models
    (Horvat and Pfister, 2024, arXiv 2402.03845).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.calculus.derivatives import basis, value_and_products
from scorefield.checks import check_count
from scorefield.diagnostics.protocol import Points, Profile, Protocol, blocks, form, measure
from scorefield.estimate import Estimate, mean
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import Classes, classes_at
from scorefield.points import Given
from scorefield.targets.base import Target

UNIT = "dimensions"


def intrinsic_dimension(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    probes: int | None = None,
    classes: Classes = None,
) -> Profile:
    r"""The mean of :math:`d_\lambda` over noisy points, by noise level, in dimensions.

    The dimension of the data is the height of a plateau: of levels below the curvature of the data
    and the distance between their parts, and above the distance between training points and the
    levels at which the field is wrong. The standard error is that over points and probes together.
    ``field``, ``data``, ``protocol`` and ``classes`` are those of :mod:`scorefield.diagnostics`.

    Arguments:
        probes: Random signs per point, whose number is fixed; the exact trace, at :math:`D`
            products with the Jacobian in place of one a probe, if not given.

    Raises:
        ValueError: If ``probes`` is not positive, or a trace is not finite.

    Example:
        >>> intrinsic_dimension(field, data, Protocol([0.02, 0.05, 0.1], n=512))
    """
    if probes is not None:
        check_count("the probes of a trace", probes)

    def at(points: Points) -> Estimate:
        return mean(_dimensions(field, points, protocol, probes).cpu().numpy(), UNIT)

    return measure(
        "intrinsic_dimension", UNIT, at, field, data, protocol, classes, probes=probes or "exact"
    )


def _dimensions(
    field: ScoreField, points: Points, protocol: Protocol, probes: int | None
) -> Float[Tensor, " batch"]:
    """The trace at each point, with the data as the unit of the points."""
    dim = field.domain.dim
    traces = [
        _traces(field, points, rows, protocol, probes)
        for rows in blocks(len(points.t), dim * (probes or dim), points.t.device)
    ]
    return field.sde.alpha(points.t) * torch.cat(traces)


def _traces(
    field: ScoreField, points: Points, rows: Tensor, protocol: Protocol, probes: int | None
) -> Float[Tensor, " rows"]:
    """The traces of the Jacobians of the denoiser at some of the points."""
    x, t, known = points.noisy[rows], points.t[rows], classes_at(points.classes, rows)
    if probes is None and field.has_jacobian:
        divergence = field.jacobian(x, t, known).diagonal(dim1=1, dim2=2).sum(dim=1)
        return (field.domain.dim + field.sde.sigma(t) ** 2 * divergence) / field.sde.alpha(t)
    if probes is None:
        v = basis(x)
    else:
        purpose, shape = "diagnostics/intrinsic_dimension", (probes, *x.shape[1:])
        signs = protocol.noise.signs(purpose, shape, points.indices[rows], dtype=x.dtype)
        v = signs.movedim(1, 0)
    _, products = value_and_products(form(field, "denoiser"), x, t, v, known)
    forms = (v * products).reshape(*v.shape[:2], -1).sum(dim=2)
    return forms.sum(dim=0) if probes is None else forms.mean(dim=0)

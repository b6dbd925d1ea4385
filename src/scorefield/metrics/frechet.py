r"""The Fréchet distance between the first two moments of named features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.estimate import Estimate
from scorefield.metrics.sets import WIDE, flat, set_of, variance_of_means
from scorefield.networks.features import COORDINATES, Features
from scorefield.points import Given


def frechet_distance(
    samples: Given,
    reference: Given,
    features: Features = COORDINATES,
) -> Estimate:
    r"""The squared Fréchet distance between two sets of features, in squared units of the features.

    It is that of the two normal distributions with the moments of the sets,

    .. math:: d^2 = |\mu_1 - \mu_2|^2
        + \mathrm{tr}\big(C_1 + C_2 - 2 (C_1^{1/2} C_2 C_1^{1/2})^{1/2}\big),

    computed in float64 from the singular values of the product of the centred sets, in
    :math:`O((n + m) D^2)` operations or, of fewer samples than features, :math:`O((n + m)^2 D)`. It
    depends on means and covariances only, and is biased upwards for finite sets, the more, the more
    features there are.

    The standard error covers the draw of both sets, of at least 2 samples, through the influence of
    each sample, :math:`2 (\mu_1 - \mu_2) \cdot \delta + \delta^T (I - T)\,\delta` with
    :math:`\delta = x - \mu_1` and the optimal map
    :math:`T = C_1^{-1/2} (C_1^{1/2} C_2 C_1^{1/2})^{1/2} C_1^{-1/2}`. The interval is
    one for the mean distance of sets of these sizes, and the settings say so: the distance of the
    distributions is below it where the bias exceeds the error, as between equal ones; there the
    influences are noise, and the interval covers 99 %, and 98 % between similar ones, as the
    settings say.

    References:
        The Fréchet distance between multivariate normal distributions (Dowson and Landau, 1982).
    """
    x, y = (flat(features(set_), least=2) for set_ in map(set_of, (samples, reference)))
    if x.shape[1] != y.shape[1]:
        raise UserError(
            f"features {features.name!r} of the two sets have {x.shape[1]} and {y.shape[1]} columns"
        )
    shift = x.mean(dim=0) - y.mean(dim=0)
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    own_x, own_y = x.square().sum(dim=1), y.square().sum(dim=1)
    moved_x, moved_y, cross = _transport(x, y)
    n, m = len(x) - 1, len(y) - 1
    spread = float(own_x.sum()) / n + float(own_y.sum()) / m
    value = float(shift.square().sum()) + spread - 2 * cross
    u = 2 * x @ shift + own_x - moved_x
    v = -2 * y @ shift + own_y - moved_y
    unit = f"squared units of the {features.name}"
    settings = {"features": features.name, "dim": x.shape[1], "reference": len(y), **WIDE}
    # Equal moments leave a rounding error of either sign.
    return Estimate(
        max(value, 0.0), variance_of_means(u, v) ** 0.5, min(len(x), len(y)), unit, settings
    )


def _transport(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
    r"""The products :math:`\delta^T T \delta` of the samples of both centred sets with their
    optimal maps, and :math:`\mathrm{tr}(C_1^{1/2} C_2 C_1^{1/2})^{1/2}`, the nuclear norm of
    :math:`X Y^T / \sqrt{(n - 1)(m - 1)}`.

    With :math:`X = Q_x R_x`, :math:`Y = Q_y R_y` and :math:`R_x R_y^T = U S V^T`, the product of
    row :math:`i` is that of row :math:`i` of :math:`Q_x U` with
    :math:`\sqrt{(n - 1) / (m - 1)}\,S`. Nothing is inverted and no root of an eigenvalue taken, so
    that null directions of a covariance contribute rounding errors and not their square roots.
    """
    (q_x, r_x), (q_y, r_y) = torch.linalg.qr(x), torch.linalg.qr(y)
    left, s, right = torch.linalg.svd(r_x @ r_y.mT, full_matrices=False)
    n, m = len(x) - 1, len(y) - 1
    scale = math.sqrt(n / m)
    moved_x = (q_x @ left).square() @ s * scale
    moved_y = (q_y @ right.mT).square() @ s / scale
    return moved_x, moved_y, float(s.sum()) / math.sqrt(n * m)

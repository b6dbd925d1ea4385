r"""The Fréchet distance between the first two moments of named features."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.errors import UserError
from scorefield.estimate import Estimate
from scorefield.metrics.sets import flat, variance_of_means
from scorefield.networks.features import COORDINATES, Features


def frechet_distance(
    samples: Float[Tensor, "n *event"],
    reference: Float[Tensor, "m *event"],
    features: Features = COORDINATES,
) -> Estimate:
    r"""The squared Fréchet distance between two sets of features, in squared units of the features.

    It is that of the two normal distributions with the moments of the sets,

    .. math:: d^2 = |\mu_1 - \mu_2|^2
        + \mathrm{tr}\big(C_1 + C_2 - 2 (C_1^{1/2} C_2 C_1^{1/2})^{1/2}\big),

    computed in float64. It depends on means and covariances only, and is biased upwards for finite
    sets, the more, the more features there are.

    The standard error covers the draw of both sets, of at least 2 samples, through the influence of
    each sample, :math:`2 (\mu_1 - \mu_2) \cdot \delta + \delta^T (I - T)\,\delta` with
    :math:`\delta = x - \mu_1` and the optimal map
    :math:`T = C_1^{-1/2} (C_1^{1/2} C_2 C_1^{1/2})^{1/2} C_1^{-1/2}`.

    References:
        The Fréchet distance between multivariate normal distributions (Dowson and Landau, 1982).
    """
    x, y = (flat(features(set_), least=2) for set_ in (samples, reference))
    if x.shape[1] != y.shape[1]:
        raise UserError(
            f"features {features.name!r} of the two sets have {x.shape[1]} and {y.shape[1]} columns"
        )
    shift = x.mean(dim=0) - y.mean(dim=0)
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    c_x, c_y = x.mT @ x / (len(x) - 1), y.mT @ y / (len(y) - 1)
    to_y, cross = _optimal_map(c_x, c_y)
    to_x, _ = _optimal_map(c_y, c_x)
    value = float(shift.square().sum() + c_x.trace() + c_y.trace() - 2 * cross)
    u = 2 * x @ shift + (x * (x - x @ to_y)).sum(dim=1)
    v = -2 * y @ shift + (y * (y - y @ to_x)).sum(dim=1)
    unit = f"squared units of the {features.name}"
    settings = {"features": features.name, "dim": x.shape[1], "reference": len(y)}
    # Equal moments leave a rounding error of either sign.
    return Estimate(
        max(value, 0.0), variance_of_means(u, v) ** 0.5, min(len(x), len(y)), unit, settings
    )


def _optimal_map(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    r"""The map :math:`T` between two centred normal distributions on the range of the first, and
    :math:`\mathrm{tr}(C_1^{1/2} C_2 C_1^{1/2})^{1/2}`.
    """
    values, axes = torch.linalg.eigh(start)
    floor = values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
    root = values.clamp(min=0).sqrt()
    inverse = torch.where(values > floor, 1 / root, torch.zeros_like(root))
    half = (axes * root) @ axes.mT
    middle, frame = torch.linalg.eigh(half @ end @ half)
    middle = middle.clamp(min=0).sqrt()
    back = (axes * inverse) @ axes.mT
    return back @ ((frame * middle) @ frame.mT) @ back, middle.sum()

r"""Modes of a known mixture: how many a set of samples covers, and in what proportion."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from scorefield.checks import check_floating, check_positive
from scorefield.errors import UserError
from scorefield.estimate import Estimate
from scorefield.metrics.sets import WIDE, flat
from scorefield.sde.exploding import EDM
from scorefield.targets.mixture import GaussianMixture


def mode_coverage(
    samples: Float[Tensor, "n d"],
    mixture: GaussianMixture,
    share: float = 0.25,
    within: float = 4.0,
) -> Estimate:
    r"""The number of modes that the samples cover, an exact number for these samples.

    A sample hits the mode that is nearest in standard deviations,
    :math:`r_k^2 = (x - m_k)^T \Sigma_k^{-1} (x - m_k)`, if it lies in the ellipsoid that holds as
    much of the mode's probability as :math:`\pm` ``within`` standard deviations hold of a normal
    on the line. A mode is covered if it is hit by at least ``share``, in (0, 1], times the
    :math:`n w_k` expected samples, and by at least one. The settings contain the number of modes,
    of samples, and the fraction of the samples that hit a mode.
    """
    x = _points(samples, mixture)
    if not 0 < share <= 1:
        raise UserError(f"the share that covers a mode must be in (0, 1], got {share}")
    check_positive("the size of a mode", within)
    means, covariances = mixture.means.to(x), mixture.covariances.to(x)
    factor = torch.linalg.cholesky(covariances)
    delta = (x.unsqueeze(0) - means.unsqueeze(1)).mT
    distance = torch.linalg.solve_triangular(factor, delta, upper=False).square().sum(dim=1)
    nearest, mode = distance.min(dim=0)
    # Use the tail itself: 1 minus it would lose digits.
    limit = stats.chi2.isf(2 * stats.norm.sf(within), df=x.shape[1])
    inside = nearest <= limit
    hits = torch.bincount(mode[inside], minlength=len(means))
    expected = share * len(x) * mixture.weights.to(x)
    covered = int(((hits >= expected) & (hits > 0)).sum())
    settings = {
        "modes": len(means),
        "samples": len(x),
        "share": share,
        "within": within,
        "inside": float(inside.to(x.dtype).mean()),
    }
    return Estimate(float(covered), 0.0, 0, "modes", settings)


def mode_weight_tv(samples: Float[Tensor, "n d"], mixture: GaussianMixture) -> Estimate:
    r"""The total variation between the modes' shares of the samples and their true weights, a pure
    number in [0, 1].

    It is

    .. math:: TV = \frac12 \sum_k |\hat w_k - w_k|, \qquad
        \hat w_k = \frac1n \sum_i p(k \mid x_i),

    with the mixture's own responsibilities, so that :math:`\hat w_k` is unbiased for samples of
    the mixture even where modes overlap.

    The standard error is that of the mean of :math:`\frac12 \sum_k \pm p(k \mid x_i)` with the
    signs of :math:`\hat w_k - w_k`, and the interval one for the mean distance of so many samples,
    as the settings say; where the shares agree the signs are noise, and the interval covers 99 %.
    As a sum of absolute values, the distance is positive for samples of the mixture too:
    ``settings["null"]`` is its mean
    :math:`\frac12 \sum_k \sqrt{2 w_k (1 - w_k) / (\pi n)}` for :math:`n` of them (exact for large
    :math:`n` and separate modes, an upper bound where modes overlap).
    """
    x = _points(samples, mixture, least=2)
    clean = mixture.under(EDM())
    responsibility = torch.cat([clean.responsibilities(part, 0.0) for part in x.split(4096)])
    weights = mixture.weights.to(x)
    excess = responsibility.mean(dim=0) - weights
    influence = 0.5 * responsibility @ excess.sign()
    null = 0.5 * float((2 * weights * (1 - weights) / (math.pi * len(x))).sqrt().sum())
    error = float(influence.std()) / math.sqrt(len(x))
    settings = {"modes": len(weights), "null": null, **WIDE}
    return Estimate(0.5 * float(excess.abs().sum()), error, len(x), "", settings)


def _points(samples: Tensor, mixture: GaussianMixture, least: int = 1) -> Tensor:
    check_floating("samples", samples)
    if samples.shape[1:] != mixture.domain.shape:
        raise UserError(
            f"samples of shape {tuple(samples.shape[1:])} cannot be compared with a mixture on "
            f"shape {mixture.domain.shape}"
        )
    return flat(samples, least).to(mixture.means.device)

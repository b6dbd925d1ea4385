r"""The Inception Score, from the logits of a classifier."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorefield.estimate import Estimate
from scorefield.metrics.moments import Moments


def score_rows(logits: Tensor) -> Tensor:
    r"""The rows ``(n, 1 + C)`` whose :class:`~.Moments` determine the score: the negative entropy
    :math:`\sum_c p_c \ln p_c` of each sample, and its probabilities :math:`p_c`; float64.
    """
    log_p = torch.log_softmax(logits.to(torch.float64), dim=1)
    p = log_p.exp()
    # The product is zero where the probability underflows.
    return torch.cat((torch.where(p > 0, p * log_p, 0.0).sum(dim=1, keepdim=True), p), dim=1)


def inception_score(moments: Moments) -> Estimate:
    r"""The Inception Score of all samples at once, not of ten splits, from the moments of their
    :func:`score_rows`.

    .. math:: IS = \exp\big(\mathbb{E}_x\,\mathrm{KL}(p(y|x)\,\|\,\bar p(y))\big)

    With the mean :math:`\bar p` of :math:`n` samples :math:`\ln IS` is too small by
    :math:`\frac{1}{2n} \sum_c \mathrm{var}(p_c) / \bar p_c`, to the order :math:`1/n`; the value is
    corrected by it, and ``settings["uncorrected"]`` is the score without. The standard error is
    that of the influence :math:`\sum_c p_c \ln p_c - \sum_c p_c \ln \bar p_c` of each sample.

    Raises:
        ValueError: For fewer than 2 samples.

    References:
        Improved techniques for training GANs (Salimans et al., 2016), section 4.

        Effectively unbiased FID and Inception Score and where to find them (Chong and Forsyth,
        2020), section 3.
    """
    n, covariance = moments.n, moments.covariance
    p = moments.mean[1:]
    seen = p > 0
    log_p = torch.where(seen, p, 1.0).log()
    log_score = float(moments.mean[0] - p @ log_p)
    spread = float((covariance.diagonal()[1:][seen] / p[seen]).sum()) / (2 * n)
    weights = torch.cat((p.new_ones(1), -log_p))
    variance = max(float(weights @ covariance @ weights), 0.0)
    value = math.exp(log_score + spread)
    settings = {"classes": len(p), "uncorrected": math.exp(log_score)}
    return Estimate(value, value * math.sqrt(variance / n), n, "", settings)

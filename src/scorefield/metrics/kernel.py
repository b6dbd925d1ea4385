r"""The maximum mean discrepancy, with a Gaussian and with a polynomial kernel.

With a kernel :math:`k` and distributions :math:`P, Q`,

.. math:: \mathrm{MMD}^2(P, Q) = \mathbb{E}\,k(x, x') + \mathbb{E}\,k(y, y')
    - 2\,\mathbb{E}\,k(x, y), \qquad x, x' \sim P,\; y, y' \sim Q,

which for a Gaussian kernel vanishes only if :math:`P = Q`.

References:
    A kernel two-sample test (Gretton, Borgwardt, Rasch, Schölkopf and Smola, 2012), lemma 6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.estimate import Estimate, Variance
from scorefield.metrics.sets import flat, flat_pair, set_of
from scorefield.points import Given

_LADDER = (0.125, 0.25, 0.5, 1.0)
_MEDIAN_POINTS = 1024
_BLOCK = 1024

_Kernel = Callable[[Tensor, Tensor], Tensor]


class _Moments(NamedTuple):
    """Moments of a kernel matrix over pairs: E k, its row and column means, and ``spread``, the
    mean square of the doubly centred kernel.
    """

    mean: float
    left: Tensor
    right: Tensor
    spread: float


def mmd(
    samples: Given,
    reference: Given,
    bandwidths: Sequence[float] | None = None,
) -> Estimate:
    r"""The unbiased estimate of :math:`\mathrm{MMD}^2`, a pure number between 0 (equal) and 2 in
    expectation.

    The kernel is a mean of Gaussian kernels,

    .. math:: k(x, y) = \frac1J \sum_j \exp\Big(-\frac{|x - y|^2}{2 h_j^2}\Big).

    The estimate omits the pairs of a sample with itself, so that its mean over repetitions is the
    true value, and single values may be negative. Its errors cover the draw of both sets, of at
    least 4 samples, for the given bandwidths. Time grows with :math:`(n + m)^2`, memory with
    :math:`n + m`.

    By Hoeffding's decomposition the variance is :math:`v_0 + L`. The degenerate part :math:`v_0` is
    all of it for equal distributions; the linear part :math:`L` grows with the distance
    :math:`\theta`, and as the variance of :math:`\sum_k \lambda_k \delta_k^2` with normal
    :math:`\delta_k` of variance :math:`1/n + 1/m`, it is at most :math:`\sqrt{8 v_0}\,\theta`. An
    estimate of :math:`L` added to :math:`v_0` is large just when the value is, and its interval
    then holds zero nearly always; the interval therefore holds the :math:`\theta` with
    :math:`(\hat\theta - \theta)^2 \le q^2 (v_0 + b\,\theta)`. Where the value exceeds
    :math:`2 \sqrt{v_0}`, :math:`b` is the estimate of :math:`L` over the value, and elsewhere the
    bound :math:`\sqrt{8 v_0}`; the standard error is :math:`\sqrt{v_0 + L}` and
    :math:`\sqrt{v_0}`. The interval covers 93 to 97 % for equal, similar and different
    distributions.

    Arguments:
        bandwidths: The bandwidths :math:`h_j`, in units of the data; by default the
            :func:`kernel_bandwidths` of ``reference``.

    References:
        A kernel two-sample test (Gretton et al., 2012), equation 3.

        A class of statistics with asymptotically normal distribution (Hoeffding, 1948), section 5.
    """
    x, y = flat_pair(samples, reference, least=4)
    if bandwidths is None:
        bandwidths = kernel_bandwidths(reference)
    if not bandwidths or not all(math.isfinite(h) and h > 0 for h in bandwidths):
        raise UserError(f"the bandwidths of a kernel must be positive, got {bandwidths}")
    kernel = partial(_gaussian, bandwidths=bandwidths)
    return _discrepancy(x, y, kernel, {"bandwidths": tuple(bandwidths)})


def kid(samples: Given, reference: Given) -> Estimate:
    r"""The kernel distance of features, a pure number: :math:`\mathrm{MMD}^2`, unbiased, with the
    cubic kernel.

    .. math:: k(x, y) = \Big(\frac{x \cdot y}{D} + 1\Big)^3

    All pairs of both sets, of at least 4 samples each, are summed, not those of
    random subsets, whose scatter is no error of their mean. Errors, time and memory are those of
    :func:`mmd`. On the 2,048 features of Inception it is the Kernel Inception Distance.

    References:
        Demystifying MMD GANs (Bińkowski, Sutherland, Arbel and Gretton, 2018), section 4.
    """
    x, y = flat_pair(samples, reference, least=4)
    return _discrepancy(x, y, _cubic, {"kernel": "(x.y/D + 1)^3", "dim": x.shape[1]})


def kernel_bandwidths(points: Given) -> tuple[float, ...]:
    """⅛, ¼, ½ and 1 times the :func:`median_distance` of a set, in units of the data."""
    median = median_distance(points)
    return tuple(scale * median for scale in _LADDER)


def median_distance(points: Given) -> float:
    """The median distance between two points of a set, in units of the data; of more than 1024
    points the first 1024 are used. More than half of the pairs must not coincide.
    """
    rows = flat(set_of(points), least=2)[:_MEDIAN_POINTS]
    median = float(torch.pdist(rows).median())
    if median == 0:
        raise UserError("the median distance is zero: more than half of the points coincide")
    return median


def _discrepancy(x: Tensor, y: Tensor, kernel: _Kernel, settings: dict[str, Any]) -> Estimate:
    """The unbiased estimate of MMD² between two sets, with its variance."""
    n, m = len(x), len(y)
    xx, yy, xy = (_within(x, kernel), _within(y, kernel), _between(x, y, kernel))
    value = xx.mean + yy.mean - 2 * xy.mean
    alone = 2 * xx.spread / (n * (n - 1)) + 2 * yy.spread / (m * (m - 1)) + 4 * xy.spread / (n * m)
    # The row means contain the degenerate part's noise, which is not part of the influence's
    # variance.
    linear_x = float((xx.left - xy.left).var()) - xx.spread / (n - 1) - xy.spread / m
    linear_y = float((yy.left - xy.right).var()) - yy.spread / (m - 1) - xy.spread / n
    linear, slope = 0.0, math.sqrt(8 * alone)
    if value > 2 * math.sqrt(alone):
        linear = min(max(4 * linear_x / n + 4 * linear_y / m, 0.0), slope * value)
        slope = linear / value
    settings = {**settings, "reference": m}
    error, variance = math.sqrt(alone + linear), Variance(alone, slope)
    return Estimate(value, error, min(n, m), "", settings, variance=variance)


def _cubic(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.mT).div_(a.shape[1]).add_(1).pow_(3)


def _gaussian(a: Tensor, b: Tensor, bandwidths: Sequence[float]) -> Tensor:
    square = torch.addmm(b.square().sum(dim=1), a, b.mT, alpha=-2)
    square = square.add_(a.square().sum(dim=1, keepdim=True)).clamp_(min=0)
    total, k, last = torch.zeros_like(square), square, 0.0
    for h in sorted(bandwidths, reverse=True):
        # Halving the bandwidth raises a Gaussian to its fourth power, far cheaper than an exp.
        k = k.square_().square_() if last == 2 * h else (square * (-0.5 / h**2)).exp_()
        total, last = total.add_(k), h
    return total.div_(len(bandwidths))


def _between(x: Tensor, y: Tensor, kernel: _Kernel) -> _Moments:
    """The moments of k(x, y) over all pairs of two sets."""
    n, m = len(x), len(y)
    left, right, square = x.new_zeros(n), x.new_zeros(m), 0.0
    for i in range(0, n, _BLOCK):
        for j in range(0, m, _BLOCK):
            k = kernel(x[i : i + _BLOCK], y[j : j + _BLOCK])
            left[i : i + _BLOCK] += k.sum(dim=1)
            right[j : j + _BLOCK] += k.sum(dim=0)
            square += float(torch.linalg.vector_norm(k)) ** 2
    mean, square = float(left.sum()) / (n * m), square / (n * m)
    left, right = left / m, right / n
    conditional = _mean_square(left, square, m) + _mean_square(right, square, n)
    return _Moments(mean, left, right, max(square - conditional + mean**2, 0.0))


def _within(x: Tensor, kernel: _Kernel) -> _Moments:
    """The moments of k(x, x') over all pairs of different points of a set."""
    n = len(x)
    row, square = x.new_zeros(n), 0.0
    for i in range(0, n, _BLOCK):
        for j in range(i, n, _BLOCK):
            k = kernel(x[i : i + _BLOCK], x[j : j + _BLOCK])
            if j == i:
                k.diagonal().zero_()
            row[i : i + _BLOCK] += k.sum(dim=1)
            if j > i:
                row[j : j + _BLOCK] += k.sum(dim=0)
            square += (1 + (j > i)) * float(torch.linalg.vector_norm(k)) ** 2
    pairs = n * (n - 1)
    mean, square, row = float(row.sum()) / pairs, square / pairs, row / (n - 1)
    conditional = 2 * _mean_square(row, square, n - 1)
    return _Moments(mean, row, row, max(square - conditional + mean**2, 0.0))


def _mean_square(means: Tensor, square: float, count: int) -> float:
    """E[E[k | x]²] from the means of ``count`` terms each, without their noise."""
    return (float(means.square().mean()) - square / count) / (1 - 1 / count)

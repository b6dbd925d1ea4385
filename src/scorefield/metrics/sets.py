r"""The common part of all distances between two sets of samples.

A distance is a functional :math:`T(\hat P, \hat Q)` of two empirical distributions, of
:math:`n` and :math:`m` independent samples. Its standard error is that of its first-order expansion

.. math:: T(\hat P, \hat Q) \approx T(P, Q)
    + \frac1n \sum_i u(x_i) + \frac1m \sum_j v(y_j),

the *infinitesimal jackknife*: with the exact influence :math:`u, v` of each sample, no resampling
is needed. Where the two distributions agree the influences vanish and only the order of magnitude
of the error is right; there a distance is compared with
:func:`~scorefield.metrics.floor.noise_floor`.

References:
    The infinitesimal jackknife (Jaeckel, 1972).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.errors import UserError


def flat_pair(samples: Tensor, reference: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    """Two sets as float64 matrices, one sample per row, of at least ``least`` samples each."""
    if samples.shape[1:] != reference.shape[1:]:
        raise UserError(
            f"two sets of samples need one event shape, got {tuple(samples.shape[1:])} and "
            f"{tuple(reference.shape[1:])}"
        )
    return flat(samples, least), flat(reference, least)


def flat(samples: Tensor, least: int = 1) -> Tensor:
    """A set as a float64 matrix, one sample per row."""
    if samples.dim() == 0 or len(samples) < least:
        raise UserError(
            f"a set of at least {least} samples is needed, got shape {tuple(samples.shape)}"
        )
    rows = samples.detach().to(torch.float64).reshape(len(samples), -1)
    bad = int((~torch.isfinite(rows).all(dim=1)).sum())
    if bad:
        raise UserError(f"{bad} of {len(samples)} samples are not finite")
    return rows


def variance_of_means(u: Float[Tensor, " n"], v: Float[Tensor, " m"]) -> float:
    r"""The variance :math:`s_u^2 / n + s_v^2 / m` of the sum of the means of two samples."""
    return float(u.var() / len(u) + v.var() / len(v))

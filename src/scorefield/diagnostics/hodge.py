r"""The Hodge split of a field under the noisy density: its gradient part and its residual.

Among all gradients there is one nearest to the field :math:`f` in the mean over noisy points, and
the residual is orthogonal to every gradient:

.. math:: f = \nabla\psi + v, \qquad
    \mathbb{E}\,|f|^2 = \mathbb{E}\,|\nabla\psi|^2 + \mathbb{E}\,|v|^2, \qquad
    \psi = \arg\min \mathbb{E}\,|f - \nabla\psi|^2.

The potential is fitted within the span of

* the field's own Poincaré potential about the centre :math:`c` of the data,
  :math:`\psi_P(x) = \int_0^1 f(\gamma) \cdot (x - c)\,\mathrm{d}\tau` with
  :math:`\gamma = c + \tau (x - c)`, whose deviation is

  .. math:: f - \nabla\psi_P = \int_0^1 \tau\,(J - J^\top)(\gamma)\,(x - c)\,\mathrm{d}\tau,

  zero if the field is a gradient, in any dimension;
* linear functions and the isotropic quadratic form;
* the quadratic form :math:`\frac12 u^\top S u` of the centred points :math:`u` whose gradient is
  nearest to the deviation :math:`g = f - \nabla\psi_P`: by the normal equations

  .. math:: S \Sigma + \Sigma S = M + M^\top, \qquad
      \Sigma = \mathbb{E}\,u u^\top, \quad M = \mathbb{E}\,g u^\top;

* random Fourier features :math:`\cos(\omega \cdot x + b)` of several lengths.

The residual includes gradients outside the span of this family, and the error of fitting S to
finitely many points: its energy is an upper bound of the energy that is not a gradient. The bound
is tight for affine fields and normal noisy points: the fit of S adds at most about :math:`2 D / 3
n` of the residual for n points in four folds. With fewer points than dimensions, uneven variances
make it loose.

References:
    Random features for large-scale kernel machines (Rahimi and Recht, 2007), section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.diagnostics.potentials import (
    NODES,
    centred,
    deviation,
    flat,
    nearest_form,
    random_waves,
)
from scorefield.diagnostics.protocol import Points, Profile, Protocol, form, measure
from scorefield.domain import Euclidean
from scorefield.errors import UserError
from scorefield.estimate import Estimate, ratio
from scorefield.fields.base import ScoreField, check_field
from scorefield.fields.classes import Classes
from scorefield.noise import Noise
from scorefield.points import Given
from scorefield.targets.base import Target

_WORKSPACE = 1 << 23
"""The number of entries of the gradients of the family in memory (64 MiB in float64)."""
_RIDGES = tuple(10.0**k for k in range(-10, 3))
_FORM_RIDGE = 1e-6
"""The ridge of the variances in the normal equations of S, in units of their mean."""


class HodgeSplit(NamedTuple):
    """The fraction of the energy of a field that is a gradient, and that of the residual,
    ``rest``.
    """

    gradient: Profile
    rest: Profile


class FoldMoments(NamedTuple):
    r"""Sums :math:`\sum X^\top X` and :math:`\sum X^\top y` over the points of a fold, centred in
    it, times :math:`m / (m - 1)` for :math:`m` points.
    """

    gram: Float[Tensor, "columns columns"]
    product: Float[Tensor, " columns"]

    def of(self, columns: list[int]) -> FoldMoments:
        """The sums for some columns."""
        return FoldMoments(self.gram[columns][:, columns], self.product[columns])


class Form(NamedTuple):
    r"""A symmetric matrix :math:`S = L V^\top + V L^\top`, with ``left`` :math:`L` and ``right``
    :math:`V`.
    """

    left: Float[Tensor, "dim rank"]
    right: Float[Tensor, "dim rank"]

    def times(self, u: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """The products S u."""
        return (u @ self.right) @ self.left.T + (u @ self.left) @ self.right.T


def hodge_split(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    features: int = 256,
    folds: int = 4,
    classes: Classes = None,
) -> HodgeSplit:
    r"""The fractions :math:`\mathbb{E}\,|\nabla\psi|^2 / \mathbb{E}\,|f|^2` and
    :math:`\mathbb{E}\,|v|^2 / \mathbb{E}\,|f|^2` of the predicted noise :math:`f`, by noise level;
    pure numbers that add up to 1.

    The coefficients of the potential are fitted by ridge regression on all folds but one, with the
    ridge that is best when each of these is left out in turn, and the residual is measured on the
    fold that was left out. The potential is not fitted to these points, so that fitting errors
    increase the residual. S is fitted on the folds other than this one and the one at whose points
    it is evaluated. The share of linear functions is removed in each fold without bias.

    The numerical error is the change by half the number of features, plus that by half the number
    of nodes on the rays from the centre. ``field``, ``data``, ``protocol`` and ``classes`` are
    those of :mod:`scorefield.diagnostics`.

    Arguments:
        features: The number of random Fourier features, at least 2.
        folds: The number of folds, at least 3, of at least two points each.

    Raises:
        ValueError: If the domain is not flat, an argument is out of range, or there are fewer than
            two points per fold.
    """
    check_field(field)
    if not isinstance(field.domain, Euclidean):
        raise UserError(f"a Hodge split needs straight rays in flat space, not {field.domain}")
    if features < 2 or folds < 3:
        raise UserError(
            f"a Hodge split takes at least 2 waves and 3 folds, got {features} and {folds}"
        )
    if protocol.n < 2 * folds:
        raise UserError(
            f"a Hodge split in {folds} folds needs {2 * folds} points, the protocol has "
            f"{protocol.n}"
        )

    def at(points: Points) -> Estimate:
        centre = float(field.sde.alpha(points.t[0])) * points.clean.mean(dim=0)
        sigma, offsets = float(field.sde.sigma(points.t[0])), flat(points.noisy - centre)
        value = flat(field.predict_noise(points.noisy, points.t, points.classes))
        energy = value.square().sum(dim=1)

        off, coarse = (
            deviation(form(field, "noise"), points, centre, nodes) for nodes in (NODES, NODES // 2)
        )

        def rest(off: Tensor, waves: int) -> Estimate:
            family = _Family(value - off, offsets, off, sigma, waves, folds, protocol.noise)
            return ratio(_left(family).cpu().numpy(), energy.cpu().numpy())

        best = rest(off, features)
        coarser = (rest(off, features // 2), rest(coarse, features))
        error = sum(abs(best.value - other.value) for other in coarser)
        return replace(best, numerical_error=error)

    settings: dict[str, Any] = {"quantity": "noise", "features": features, "folds": folds}
    rest = measure("hodge_rest", "", at, field, data, protocol, classes, **settings)
    gradient = replace(
        rest,
        name="hodge_gradient",
        estimates=tuple(replace(e, value=1.0 - e.value) for _, e in rest),
    )
    return HodgeSplit(gradient, rest)


class _Family:
    """The gradients of the family at the points of a level; the last columns are one form for each
    fold that may be left out.
    """

    def __init__(
        self,
        own: Tensor,
        offsets: Tensor,
        off: Tensor,
        sigma: float,
        waves: int,
        folds: int,
        noise: Noise,
    ) -> None:
        n = len(offsets)
        self.frequencies, self.phases = random_waves(offsets, sigma, waves, noise)
        self.own, self.offsets = own, offsets
        self.parts = [slice(a, b) for a, b in pairwise(n * k // folds for k in range(folds + 1))]
        self.wanted = [centred(off[part]) for part in self.parts]
        self.forms = self._forms([centred(offsets[part]) for part in self.parts])

    def __len__(self) -> int:
        return len(self.phases) + 2 + len(self.parts)

    def columns(self, left_out: int) -> list[int]:
        """The columns fitted without a fold."""
        common = len(self) - len(self.parts)
        return [*range(common), common + left_out]

    def within(self, fold: int) -> Iterator[tuple[slice, Float[Tensor, "rows columns dim"]]]:
        """The gradients at the points of a fold, with the rows of the fold that they are at."""
        part, size = self.parts[fold], len(self.wanted[fold])
        at_once = max(1, _WORKSPACE // (len(self) * self.offsets.shape[1]))
        for start in range(0, size, at_once):
            rows = slice(start, min(start + at_once, size))
            points = slice(part.start + rows.start, part.start + rows.stop)
            yield rows, self._gradients(points, fold)

    def _gradients(self, points: slice, fold: int) -> Tensor:
        u = self.offsets[points]
        phase = u @ self.frequencies.T + self.phases
        waves = -phase.sin().unsqueeze(2) * self.frequencies
        forms = [self.forms[frozenset((fold, k))].times(u) for k in range(len(self.parts))]
        return torch.cat((waves, torch.stack((u, self.own[points], *forms), dim=1)), dim=1)

    def _forms(self, offsets: list[Tensor]) -> dict[frozenset[int], Form]:
        """The forms fitted without one fold, or two."""
        folds = range(len(self.parts))
        forms = {}
        for unseen in {frozenset((j, k)) for j in folds for k in folds}:
            seen = [j for j in folds if j not in unseen]
            forms[unseen] = _form(
                torch.cat([offsets[j] for j in seen]), torch.cat([self.wanted[j] for j in seen])
            )
        return forms


def _form(u: Float[Tensor, "batch dim"], wanted: Float[Tensor, "batch dim"]) -> Form:
    r"""The form whose gradient is nearest to the deviation.

    With the right singular vectors V and squared singular values :math:`\lambda` of the points,
    :math:`(V^\top S V)_{ij} = (V^\top (M + M^\top) V)_{ij} / (\lambda_i + \lambda_j)`; beyond the
    space that the points span, :math:`S V = M V / \lambda`.
    """
    left, size, right = torch.linalg.svd(u, full_matrices=False)
    variances, v = size.square(), right.T
    variances = variances + _FORM_RIDGE * variances.mean()
    moment = wanted.T @ (left * size)
    inner = v.T @ moment
    within = nearest_form(inner, variances)
    across = (moment - v @ inner) / variances
    return Form(across + v @ within / 2, v)


def _left(family: _Family) -> Float[Tensor, " batch"]:
    """The squared residuals at each point of a potential fitted on other folds."""
    means, moments = [], []
    for fold, y in enumerate(family.wanted):
        mean = y.new_zeros(len(family), y.shape[1])
        for _, x in family.within(fold):
            mean += x.sum(dim=0) / len(y)
        gram, product = mean.new_zeros(len(family), len(family)), mean.new_zeros(len(family))
        for rows, x in family.within(fold):
            flat = (x - mean).transpose(0, 1).flatten(1)
            gram += flat @ flat.T
            product += flat @ y[rows].flatten()
        unbiased = len(y) / (len(y) - 1)
        means.append(mean)
        moments.append(FoldMoments(gram * unbiased, product * unbiased))
    squares = []
    for fold, (y, mean) in enumerate(zip(family.wanted, means, strict=True)):
        columns = family.columns(fold)
        weights = torch.zeros_like(moments[fold].product)
        weights[columns] = _fit([m.of(columns) for j, m in enumerate(moments) if j != fold])
        left = y.clone()
        for rows, x in family.within(fold):
            left[rows] -= torch.einsum("bkd,k->bd", x - mean, weights)
        squares.append(left.square().sum(dim=1) * len(y) / (len(y) - 1))
    return torch.cat(squares)


def _fit(folds: Sequence[FoldMoments]) -> Float[Tensor, " columns"]:
    """The weights of the columns, with the ridge that is best on folds left out; zero where none
    helps.
    """
    total = _total(folds)
    scale = total.gram.diagonal().sqrt().clamp(min=torch.finfo(total.gram.dtype).tiny)
    losses = torch.zeros_like(scale[:1]).expand(len(_RIDGES))
    for k, left_out in enumerate(folds):
        w = _ridges(_total([m for j, m in enumerate(folds) if j != k]), scale)
        losses = losses + ((w @ left_out.gram) * w).sum(dim=1) - 2 * w @ left_out.product
    best = int(losses.argmin())
    return _ridges(total, scale)[best] if losses[best] < 0 else torch.zeros_like(scale)


def _ridges(moments: FoldMoments, scale: Tensor) -> Float[Tensor, "ridges columns"]:
    """Ridge regressions on columns of unit energy, one for each ridge."""
    values, vectors = torch.linalg.eigh(moments.gram / scale / scale.unsqueeze(1))
    ridges = torch.tensor(_RIDGES, dtype=values.dtype, device=values.device).unsqueeze(1)
    shrunk = vectors.T @ (moments.product / scale) / (values.clamp(min=0) + ridges)
    return shrunk @ vectors.T / scale


def _total(folds: Sequence[FoldMoments]) -> FoldMoments:
    gram, product = (torch.stack(values).sum(dim=0) for values in zip(*folds, strict=True))
    return FoldMoments(gram, product)

r"""How much of a field is a gradient? Its Hodge split under the noisy density.

Among all gradients there is one nearest to the field :math:`f` in the mean over noisy points, and
what is left is orthogonal to every gradient:

.. math:: f = \nabla\psi + v, \qquad
    \mathbb{E}\,|f|^2 = \mathbb{E}\,|\nabla\psi|^2 + \mathbb{E}\,|v|^2, \qquad
    \psi = \arg\min \mathbb{E}\,|f - \nabla\psi|^2.

The potential is sought among combinations of

* the field's own Poincaré potential about the centre :math:`c` of the data,
  :math:`\psi_P(x) = \int_0^1 f(\gamma) \cdot (x - c)\,\mathrm{d}\tau` with
  :math:`\gamma = c + \tau (x - c)`, which is off by

  .. math:: f - \nabla\psi_P = \int_0^1 \tau\,(J - J^\top)(\gamma)\,(x - c)\,\mathrm{d}\tau,

  that is, by nothing if the field is a gradient, whatever its dimension;
* linear functions, the isotropic quadratic form, and all quadratic forms in few dimensions;
* random waves :math:`\cos(\omega \cdot x + b)` of several lengths.

What a potential outside of this family would still take from the rest counts as rest, so that the
rest is an upper bound of the energy that is no gradient. It is tight for affine fields where the
noisy points are normal, and in many dimensions of equal variance in all directions.

References:
    Random features for large-scale kernel machines (Rahimi and Recht, 2007), section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations_with_replacement, pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.calculus import jvp_vjp, quadrature
from scorefield.diagnostics.protocol import Points, Profile, Protocol, form, measure
from scorefield.domain import Euclidean
from scorefield.estimate import Estimate, ratio
from scorefield.fields import ScoreField
from scorefield.noise import Noise
from scorefield.targets import Target

_NODES = 8
_ENTRIES = 1 << 16
"""The entries of the points at which the field is differentiated at once."""
_WORKSPACE = 1 << 23
"""The entries that the gradients of the family may have at once (64 MiB in float64)."""
_FEW = 8
"""The number of dimensions up to which all quadratic forms belong to the family."""
_SCALES = 4
"""The number of wave lengths, from that of the noise to that of the noisy data."""
_RIDGES = tuple(10.0**k for k in range(-10, 3))


class HodgeSplit(NamedTuple):
    """The fractions of the energy of a field that are a gradient, and that are not."""

    gradient: Profile
    rest: Profile


class Moments(NamedTuple):
    r"""Sums :math:`\sum X^\top X` and :math:`\sum X^\top y` over the points of a fold, centred in
    it, times :math:`m / (m - 1)` for :math:`m` points.
    """

    gram: Float[Tensor, "columns columns"]
    product: Float[Tensor, " columns"]


def hodge_split(
    field: ScoreField,
    data: Target | Tensor,
    protocol: Protocol,
    features: int = 256,
    folds: int = 4,
) -> HodgeSplit:
    r"""The fractions :math:`\mathbb{E}\,|\nabla\psi|^2 / \mathbb{E}\,|f|^2` and
    :math:`\mathbb{E}\,|v|^2 / \mathbb{E}\,|f|^2` of the predicted noise :math:`f`, by noise level;
    pure numbers that add up to 1.

    The coefficients of the potential are fitted by ridge regression on all folds but one, the
    ridge being what serves best when each of these is left out in turn, and the rest is measured
    on the fold that was left out. Linear functions need no fit: their share is removed in each
    fold without bias. The rest is therefore that of a potential which has not seen the points,
    and fitting errors add to it.

    The numerical error is what halving the number of waves changes, plus what halving the number
    of nodes on the rays from the centre does.

    Arguments:
        field: The field.
        data: Where the points come from.
        protocol: The noise levels and points.
        features: The number of waves.
        folds: The number of folds, at least 3.

    Raises:
        ValueError: If the domain is not flat, an argument is out of range, there are fewer than
            two points a fold, or a value is not finite.
    """
    if not isinstance(field.domain, Euclidean):
        raise ValueError(f"a Hodge split needs straight rays in flat space, not {field.domain}")
    if features < 2 or folds < 3:
        raise ValueError(
            f"a Hodge split takes at least 2 waves and 3 folds, got {features} and {folds}"
        )
    if protocol.n < 2 * folds:
        raise ValueError(
            f"a Hodge split in {folds} folds needs {2 * folds} points, the protocol has "
            f"{protocol.n}"
        )

    def at(points: Points) -> Estimate:
        centre = float(field.sde.alpha(points.t[0])) * points.clean.mean(dim=0)
        sigma, offsets = float(field.sde.sigma(points.t[0])), _flat(points.noisy - centre)
        value = _flat(field.predict_noise(points.noisy, points.t))
        energy = value.square().sum(dim=1)

        def rest(nodes: int, waves: int) -> Estimate:
            off = _off(field, points, centre, nodes)
            family = _Family(value - off, offsets, sigma, waves, protocol.noise)
            return ratio(_left(off, family, folds).cpu().numpy(), energy.cpu().numpy())

        best = rest(_NODES, features)
        coarser = (rest(_NODES, features // 2), rest(_NODES // 2, features))
        error = sum(abs(best.value - other.value) for other in coarser)
        return replace(best, numerical_error=error)

    settings: dict[str, Any] = {"quantity": "noise", "features": features, "folds": folds}
    rest = measure("hodge_rest", "", at, field, data, protocol, **settings)
    gradient = replace(
        rest,
        name="hodge_gradient",
        estimates=tuple(replace(e, value=1.0 - e.value) for _, e in rest),
    )
    return HodgeSplit(gradient, rest)


class _Family:
    """The gradients of the family at the points of a level, a few points at a time.

    Arguments:
        own: The gradient of the field's own potential.
        offsets: The points, relative to the centre.
        sigma: The noise level.
        waves: The number of waves.
        noise: The source of their frequencies and phases.
    """

    def __init__(
        self, own: Tensor, offsets: Tensor, sigma: float, waves: int, noise: Noise
    ) -> None:
        dim, index = offsets.shape[1], torch.arange(waves, device=offsets.device)
        longest = 2 * max(float(offsets.square().mean().sqrt()), sigma)
        lengths = sigma * (longest / sigma) ** ((index % _SCALES).double() / (_SCALES - 1))
        direction = noise.normal("diagnostics/wave", (dim,), index, dtype=torch.float64)
        # Points lie apart by the root of the dimension; so do the waves.
        self.frequencies = direction / (dim**0.5 * lengths).unsqueeze(1)
        phases = noise.uniform("diagnostics/phase", (), index, dtype=torch.float64)
        self.phases = 2 * torch.pi * phases
        self.forms = list(combinations_with_replacement(range(dim), 2)) if dim <= _FEW else []
        self.own, self.offsets = own, offsets

    def __len__(self) -> int:
        return len(self.phases) + len(self.forms) + 2

    def within(self, part: range) -> Iterator[tuple[slice, Float[Tensor, "rows columns dim"]]]:
        """The gradients at the points of a fold, with the rows of the fold that they are at."""
        at_once = max(1, _WORKSPACE // (len(self) * self.offsets.shape[1]))
        for start in range(0, len(part), at_once):
            rows = slice(start, min(start + at_once, len(part)))
            points = part[rows]
            yield rows, self._gradients(slice(points.start, points.stop))

    def _gradients(self, points: slice) -> Tensor:
        u = self.offsets[points]
        phase = u @ self.frequencies.T + self.phases
        waves = -phase.sin().unsqueeze(2) * self.frequencies
        forms = u.new_zeros(len(u), len(self.forms), u.shape[1])
        for k, (i, j) in enumerate(self.forms):
            forms[:, k, i] += u[:, j]
            forms[:, k, j] += u[:, i]
        return torch.cat((waves, forms, u.unsqueeze(1), self.own[points].unsqueeze(1)), dim=1)


def _left(off: Tensor, family: _Family, folds: int) -> Float[Tensor, " batch"]:
    """The squares of what is left of ``off`` at each point by a potential fitted elsewhere."""
    n = len(off)
    parts = [range(a, b) for a, b in pairwise(n * k // folds for k in range(folds + 1))]
    wanted = [off[p.start : p.stop] - off[p.start : p.stop].mean(dim=0) for p in parts]
    means, moments = [], []
    for part, y in zip(parts, wanted, strict=True):
        mean = off.new_zeros(len(family), off.shape[1])
        for _, x in family.within(part):
            mean += x.sum(dim=0) / len(part)
        gram, product = mean.new_zeros(len(family), len(family)), mean.new_zeros(len(family))
        for rows, x in family.within(part):
            flat = (x - mean).transpose(0, 1).flatten(1)
            gram += flat @ flat.T
            product += flat @ y[rows].flatten()
        unbiased = len(part) / (len(part) - 1)
        means.append(mean)
        moments.append(Moments(gram * unbiased, product * unbiased))
    squares = []
    for k, (part, y, mean) in enumerate(zip(parts, wanted, means, strict=True)):
        weights = _fit([m for j, m in enumerate(moments) if j != k])
        left = y.clone()
        for rows, x in family.within(part):
            left[rows] -= torch.einsum("bkd,k->bd", x - mean, weights)
        squares.append(left.square().sum(dim=1) * len(part) / (len(part) - 1))
    return torch.cat(squares)


def _fit(folds: Sequence[Moments]) -> Float[Tensor, " columns"]:
    """The weights of the columns, with the ridge that serves best on folds left out; none, where
    nothing serves better.
    """
    total = _total(folds)
    scale = total.gram.diagonal().sqrt().clamp(min=torch.finfo(total.gram.dtype).tiny)
    losses = torch.zeros_like(scale[:1]).expand(len(_RIDGES))
    for k, left_out in enumerate(folds):
        w = _ridges(_total([m for j, m in enumerate(folds) if j != k]), scale)
        losses = losses + ((w @ left_out.gram) * w).sum(dim=1) - 2 * w @ left_out.product
    best = int(losses.argmin())
    return _ridges(total, scale)[best] if losses[best] < 0 else torch.zeros_like(scale)


def _ridges(moments: Moments, scale: Tensor) -> Float[Tensor, "ridges columns"]:
    """Ridge regressions on columns of unit energy, one for each ridge."""
    values, vectors = torch.linalg.eigh(moments.gram / scale / scale.unsqueeze(1))
    ridges = torch.tensor(_RIDGES, dtype=values.dtype, device=values.device).unsqueeze(1)
    shrunk = vectors.T @ (moments.product / scale) / (values.clamp(min=0) + ridges)
    return shrunk @ vectors.T / scale


def _total(folds: Sequence[Moments]) -> Moments:
    gram, product = (torch.stack(values).sum(dim=0) for values in zip(*folds, strict=True))
    return Moments(gram, product)


def _off(
    field: ScoreField, points: Points, centre: Tensor, nodes: int
) -> Float[Tensor, "batch dim"]:
    """What the gradient of the field's own potential about the centre is off by, in float64."""
    fn, rule = form(field, "noise"), quadrature(f"gauss-{nodes}")
    at_once = max(1, _ENTRIES // centre.numel())
    parts = []
    for x, t in zip(points.noisy.split(at_once), points.t.split(at_once), strict=True):
        ray = x - centre
        off = torch.zeros_like(x)
        for tau, weight in zip(rule.nodes, rule.weights, strict=True):
            forward, backward = jvp_vjp(fn, centre + tau * ray, t, ray)
            off += weight * tau * (forward - backward)
        parts.append(_flat(off))
    return torch.cat(parts)


def _flat(x: Tensor) -> Float[Tensor, "batch dim"]:
    return x.reshape(x.shape[0], -1).double()

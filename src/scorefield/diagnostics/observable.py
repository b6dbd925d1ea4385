r"""The observable part of a score error: the one that moves mass.

Let :math:`r` be the error of a score, in units of the noise. The probability flow moves the density
:math:`p_t` by :math:`\nabla \cdot (p_t\,r)`, to which only one gradient contributes, the projection
of :math:`r` onto gradients in the mean over noisy points:

.. math:: \sup_\varphi \frac{\mathbb{E}[\nabla\varphi \cdot r]^2}{\mathbb{E}|\nabla\varphi|^2}
    = \mathbb{E}|\nabla\psi|^2, \qquad
    \nabla \cdot (p\,\nabla\psi) = \nabla \cdot (p\,r).

The rest, :math:`r - \nabla\psi`, moves none, however large it is. The root of the supremum is the
norm of :math:`\nabla \cdot (p\,r)` in the dual of the Sobolev space with weight :math:`p`.

**Estimator.** The points are divided into three parts. Of each two, gradients :math:`g_a` and
:math:`g_b` are fitted to :math:`r` (see :mod:`~.learners`), and at the points of the third

.. math:: h = r \cdot (g_a + g_b) - g_a \cdot g_b, \qquad
    \mathbb{E}\,h = \mathbb{E}|\nabla\psi|^2
    - \mathbb{E}\,(g_a - \nabla\psi) \cdot (g_b - \nabla\psi)

is averaged. The two fits have independent errors, whose product is zero on average but for what
both miss: a potential outside the learner's family, which makes the estimate a lower bound. An
error free of :math:`\nabla \cdot (p\,r)` has estimates around zero, some of them negative.

**On a torus** potentials are periodic. A constant field, or another that winds around the
torus, counts only by its projection onto gradients of periodic functions, which moves mass. There
are no rays from a centre and no potential of the field's own: the family is that of
:class:`~.PeriodicWaves`, and the lower bound is close in few dimensions only.

**Variance.** Let :math:`r = \nabla\psi + v` and :math:`g_a = \nabla\psi + e_a`, where to first
order :math:`e_a(x)` is the mean of :math:`K(x, x_l)\,v_l` over the points of part :math:`a`, with a
symmetric kernel :math:`K`. The mean of :math:`h` over :math:`n` points is that of :math:`u = 2 r
\cdot \nabla\psi - |\nabla\psi|^2`, and of products of two points of different parts. Each pair is
in it three times: in :math:`v \cdot e_b` at the one point, in :math:`v \cdot e_a` at the other, and
in :math:`-\mathbb{E}\,e_a \cdot e_b`; together :math:`v \cdot (2 - K)\,e_b`, once. The scatter of
:math:`h` has the first two as if they were independent, and nothing of the third. With
:math:`d = g_a - g_b`, and an error :math:`e` that is the fit, at one part, to :math:`v` times
random signs, which has the variance of :math:`e_a` and is independent of the estimate,

.. math:: n \operatorname{Var} \bar h = \operatorname{Var} u
    + \mathbb{E}\big(v \cdot (2 - K)\,e\big)^2, \qquad
    \operatorname{Var} u = \operatorname{Var} h - \operatorname{Var}(v \cdot d) ,

where :math:`K e` is the fit to :math:`e`, and :math:`r - \tfrac12 (g_a + g_b)` stands for
:math:`v`. A variance of :math:`u` below zero is taken to be zero.

References:
    Khelifa, arXiv 2606.06179 (2026): the dual Sobolev norm of a score error.

    Double/debiased machine learning for treatment and structural parameters (Chernozhukov et al.,
    2018): cross-fitting.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.diagnostics.learners import Gradient, Learner, SmallNetwork, Values
from scorefield.diagnostics.periodic import waves_of
from scorefield.diagnostics.potentials import NODES, deviation, flat
from scorefield.diagnostics.protocol import Points, Profile, Protocol, form, measure
from scorefield.domain import Domain, Euclidean, Torus
from scorefield.engine import device_of
from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean
from scorefield.fields.base import ScoreField, check_field, evaluation_mode
from scorefield.fields.classes import Classes
from scorefield.points import Given
from scorefield.targets.base import Target

_PARTS = 3
_SIGNS = 8
"""The number of random signs of each point, times the dimension."""
_LEAST, _LEAST_ON_TORUS = 8 * _PARTS, 64


def least_points(domain: Domain) -> int:
    """The least number of points: on a torus there are no linear functions, and fewer points leave
    too few waves.
    """
    return _LEAST_ON_TORUS if isinstance(domain, Torus) else _LEAST


def observable_error(
    field: ScoreField,
    reference: Target | ScoreField,
    protocol: Protocol,
    data: Target | Given | None = None,
    learner: Learner | None = None,
    classes: Classes = None,
) -> Profile:
    r"""The part :math:`\tfrac1D \mathbb{E}|\nabla\psi|^2` of the mean square error :math:`\tfrac1D
    \mathbb{E}|r|^2` of the predicted noise that moves mass, by noise level.

    It is to be compared with the square of :func:`~.score_error`. ``field``, ``protocol`` and
    ``classes`` are those of :mod:`scorefield.diagnostics`. The numerical error is that of the
    field's own potential, whose change by half the nodes on the rays from the centre it is; on a
    torus, where there is none, it is zero.

    Arguments:
        reference: The exact score, as a target; or another field, such as the
            :class:`~.IdealScore` of the training set or a second model, and the estimate is the
            part of their difference that would move mass.
        data: Where the points come from; needed unless the reference is a target.
        learner: The family of potentials, :class:`~.RandomFeatures` or
            :class:`~.SmallNetwork`, on a torus :class:`~.PeriodicWaves`; by default 256 random
            waves.

    Raises:
        ValueError: If the two fields have different domains or are on two devices, the learner is
            for another domain, data are missing, or the protocol has fewer than 24 points, on a
            torus 64.
    """
    check_field(field)
    other, data = _reference(field, reference, data)
    sde, domain, exact = field.sde, field.domain, isinstance(reference, Target)
    if protocol.n < (least := least_points(domain)):
        raise UserError(f"an observable error needs {least} points, the protocol has {protocol.n}")
    learner = waves_of(domain) if learner is None else learner
    rays = isinstance(domain, Euclidean)

    def difference(x: Tensor, t: Tensor, known: Tensor | None = None) -> Tensor:
        # The other's points and time at the same noise level, where its process is another.
        time = other.sde.time(sde.noise_level(t))
        scale = (other.sde.alpha(time) / sde.alpha(t)).reshape(-1, *(1,) * (x.dim() - 1))
        noise = other.predict_noise(scale * x, time, known)
        return field.predict_noise(x, t, known) - noise

    def at(points: Points) -> Estimate:
        centre = float(sde.alpha(points.t[0])) * points.clean.mean(dim=0)
        error = flat(difference(points.noisy, points.t, points.classes))
        if not error.any():
            return mean(error.sum(dim=1).cpu().numpy())
        offsets, sigma = flat(points.noisy - centre), float(sde.sigma(points.t[0]))
        fit = learner.at(offsets, domain, sigma, protocol.noise, _PARTS)

        def held_out(nodes: int) -> list[_HeldOut]:
            own = torch.zeros_like(error)
            if rays:
                # An exact score is the gradient of its own potential.
                curled = form(field, "noise") if exact else difference
                own = error - deviation(curled, points, centre, nodes)
            return _cross_fitted(Values(offsets, own, error), fit)

        parts = held_out(NODES)
        count = 1 if isinstance(learner, SmallNetwork) else max(1, _SIGNS // domain.dim)
        signs = protocol.noise.signs(
            "diagnostics/observable", (count,), points.indices, dtype=torch.float64
        )
        found = _estimate(parts, fit, signs.T)
        coarser = float(_draws(held_out(NODES // 2)).mean()) if rays else found.value
        change = abs(found.value - coarser)
        return replace(found, numerical_error=change).scaled(1 / domain.dim)

    with evaluation_mode(other):
        return measure(
            "observable_error", "", at, field, data, protocol, classes, learner=learner.describe()
        )


def _reference(
    field: ScoreField, reference: Target | ScoreField, data: Target | Given | None
) -> tuple[ScoreField, Target | Given]:
    """The field to compare with, and the data."""
    if isinstance(reference, Target):
        other: ScoreField = reference.under(field.sde).to(device_of(field))
        data = reference if data is None else data
    else:
        check_field(reference)
        other = reference
    if data is None:
        raise UserError("between two fields, an observable error needs data for its points")
    if other.domain != field.domain:
        raise UserError(f"the fields are of two domains, {field.domain} and {other.domain}")
    if device_of(other) != device_of(field):
        raise UserError(f"the fields are on two devices, {device_of(field)} and {device_of(other)}")
    return other, data


class _HeldOut(NamedTuple):
    """The points of a part, with fits to the two others."""

    here: Values
    one: Float[Tensor, "batch dim"]
    other: Float[Tensor, "batch dim"]


def _cross_fitted(values: Values, fit: Callable[[Values], Gradient]) -> list[_HeldOut]:
    n = len(values.field)
    parts = torch.arange(n, device=values.field.device).tensor_split(_PARTS)
    fits = [fit(values.rows(part)) for part in parts]
    found = []
    for k, part in enumerate(parts):
        here = values.rows(part)
        found.append(_HeldOut(here, *(g(here) for j, g in enumerate(fits) if j != k)))
    return found


def _draws(parts: list[_HeldOut]) -> Float[Tensor, " batch"]:
    """The draws h."""
    return torch.cat([(p.here.field * (p.one + p.other) - p.one * p.other).sum(1) for p in parts])


def _estimate(
    parts: list[_HeldOut], fit: Callable[[Values], Gradient], signs: Float[Tensor, "count batch"]
) -> Estimate:
    """The mean of the draws, with the variance of products of two points."""
    draws = _draws(parts)
    rests = [p.here.field - (p.one + p.other) / 2 for p in parts]
    single = [(rest * (p.one - p.other)).sum(dim=1) for rest, p in zip(rests, parts, strict=True)]
    of_points = max(float(draws.var() - torch.cat(single).var()), 0.0)
    squares = []
    for drawn in signs:
        signed = drawn.split([len(rest) for rest in rests])
        for k, part in enumerate(parts):
            noise = (signed[k - 1].unsqueeze(1)) * rests[k - 1]
            error = fit(parts[k - 1].here._replace(field=noise))(part.here)
            again = fit(part.here._replace(field=error))(part.here)
            squares.append((rests[k] * (2 * error - again)).sum(dim=1).square().mean())
    of_pairs = float(torch.stack(squares).mean())
    found = mean(draws.cpu().numpy())
    deviation = math.sqrt((of_points + of_pairs) / len(draws))
    return replace(found, standard_error=deviation, freedom=None)

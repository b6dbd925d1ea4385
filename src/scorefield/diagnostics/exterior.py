r"""Is the field locally a gradient? The exterior derivative :math:`J - J^\top`.

In exact form the whole Jacobian is computed, a few points at a time, so that the memory does not
grow with their number; with probes, random :math:`J v` and :math:`J^\top v` estimate the same
norms without bias, and the standard error covers points and probes together.

Where the protocol has a precision, the number of probes doubles until the standard error that
the probes add at the given points, known from the scatter between the probes of a point, is that
fraction of the value, or until there are 1024 a point. A field without curl has nothing to be
precise about: probes also end where what they see is rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.calculus import VectorField, exact_asymmetry, jacobian, probed_asymmetry
from scorefield.diagnostics.protocol import (
    Points,
    Profile,
    Protocol,
    form,
    measure,
    precision_of,
)
from scorefield.estimate import Estimate, mean, ratio, root
from scorefield.fields import ScoreField
from scorefield.fields.base import Quantity, affine
from scorefield.targets import Target

UNITS: dict[Quantity, str] = {
    "score": "1/data²",
    "noise": "1/data",
    "denoiser": "",
    "velocity": "1/time",
    "drift": "1/time",
}

MOST_PROBES = 1024
"""The number of probes a point at which a precision is given up."""

_WORKSPACE = 1 << 26
"""The bytes that the Jacobians held at once may have (64 MiB), if more than one is."""
_ENTRIES = 1 << 16
"""The entries of the points that are probed in one evaluation of the field."""
_ROUNDING = 64.0
"""In units of the machine precision, the ratio of the norms of J - Jᵀ and J that means nothing."""


class Asymmetries(NamedTuple):
    """Both numbers that one set of Jacobians gives."""

    exterior: Profile
    relative: Profile


class Norms(NamedTuple):
    r"""Squared norms :math:`\|J - J^\top\|_F^2` and :math:`\|J\|_F^2`, of shape (probes, points);
    exact ones are a single row.
    """

    skew: Tensor
    whole: Tensor


def exterior_derivative(
    field: ScoreField,
    data: Target | Tensor,
    protocol: Protocol,
    probes: int | None = None,
    quantity: Quantity = "denoiser",
) -> Profile:
    r"""The root mean square of :math:`\|J - J^\top\|_F` over noisy points, by noise level.

    Arguments:
        field: The field.
        data: Where the points come from.
        protocol: The noise levels and points; its precision decides how many probes follow the
            first ones.
        probes: Rademacher probes a point, where the protocol has a precision those of the first
            round; the exact Jacobian if not given.
        quantity: The form of the field whose Jacobian is meant. The denoiser's is a pure
            number, :math:`\sigma^2/\alpha` times the score's.

    Returns:
        A profile. Where a precision was asked for, its settings tell the probes used at each
        noise level and the levels at which they did not reach it.

    Raises:
        ValueError: If ``probes`` is not positive, or a value is not finite.
    """

    def at(points: Points) -> Estimate:
        norms, told = _norms(field, points, protocol, probes, quantity, (_exterior_error,))
        rounding = _rounding(field, protocol)
        return replace(_exterior(norms, rounding, UNITS[quantity]), settings=told)

    settings = {"quantity": quantity, "probes": probes or "exact"}
    return _tell(
        measure("exterior_derivative", UNITS[quantity], at, field, data, protocol, **settings)
    )


def relative_asymmetry(
    field: ScoreField,
    data: Target | Tensor,
    protocol: Protocol,
    probes: int | None = None,
    quantity: Quantity = "score",
) -> Profile:
    r"""The relative asymmetry, by noise level; a pure number in [0, 1].

    .. math:: \frac12 \sqrt{\frac{\mathbb{E}\,\|J - J^\top\|_F^2}{\mathbb{E}\,\|J\|_F^2}}

    It is 0 for a gradient and 1 for a rotation. Arguments, settings and errors are those of
    :func:`exterior_derivative`.
    """

    def at(points: Points) -> Estimate:
        norms, told = _norms(field, points, protocol, probes, quantity, (_relative_error,))
        return replace(_relative(norms, _rounding(field, protocol)), settings=told)

    settings = {"quantity": quantity, "probes": probes or "exact"}
    return _tell(measure("relative_asymmetry", "", at, field, data, protocol, **settings))


def asymmetries(
    field: ScoreField,
    data: Target | Tensor,
    protocol: Protocol,
    probes: int | None = None,
    quantity: Quantity = "denoiser",
) -> Asymmetries:
    r"""The exterior derivative and the relative asymmetry from one set of Jacobians.

    The Jacobians are those of the score, whose relative asymmetry is reported; the exterior
    derivative is told in the form ``quantity``, of which the skew part is the score's times the
    factor between the two. Arguments, settings and errors are otherwise those of
    :func:`exterior_derivative`; a precision holds for both.
    """
    relatives = []

    def at(points: Points) -> Estimate:
        errors = (_exterior_error, _relative_error)
        norms, told = _norms(field, points, protocol, probes, "score", errors)
        rounding = _rounding(field, protocol)
        relatives.append(replace(_relative(norms, rounding), settings=told))
        _, factor = affine(points.noisy[:1], points.t[:1], field.sde, quantity)
        exterior = replace(_exterior(norms, rounding, UNITS["score"]), settings=told)
        return exterior.scaled(abs(float(factor)), UNITS[quantity])

    settings = {"quantity": quantity, "probes": probes or "exact"}
    exterior = measure(
        "exterior_derivative", UNITS[quantity], at, field, data, protocol, **settings
    )
    relative = Profile(
        "relative_asymmetry", "", tuple(relatives), protocol, {**settings, "quantity": "score"}
    )
    return Asymmetries(_tell(exterior), _tell(relative))


def _exterior(norms: Norms, rounding: float, unit: str) -> Estimate:
    skew = root(mean(norms.skew.mean(dim=0).cpu().numpy()), unit)
    return replace(skew, numerical_error=rounding * float(norms.whole.mean()) ** 0.5)


def _relative(norms: Norms, rounding: float) -> Estimate:
    skew, whole = (values.mean(dim=0).cpu().numpy() for values in norms)
    return replace(root(ratio(skew, whole)), numerical_error=rounding).scaled(0.5)


def _exterior_error(norms: Norms) -> float:
    """The relative standard error of the root mean square that the probes add."""
    return _added(norms.skew) / (2 * float(norms.skew.mean()))


def _relative_error(norms: Norms) -> float:
    """The relative standard error of the root of the ratio that the probes add."""
    share = norms.skew.mean() / norms.whole.mean()
    return _added(norms.skew - share * norms.whole) / (2 * float(norms.skew.mean()))


def _added(draws: Tensor) -> float:
    """The standard error of the mean of draws (probes, points) where the points are given."""
    probes, points = draws.shape
    return math.sqrt(float(draws.var(dim=0).sum()) / probes) / points


def _norms(
    field: ScoreField,
    points: Points,
    protocol: Protocol,
    probes: int | None,
    quantity: Quantity,
    errors: tuple[Callable[[Norms], float], ...],
) -> tuple[Norms, dict[str, int | float]]:
    """The squared norms at the points, and what was done to know them."""
    fn = form(field, quantity)
    if probes is None:
        return _exact(fn, points), {}
    if probes < 1:
        raise ValueError(f"probes must be positive, got {probes}")
    if protocol.precision is None:
        return _probed(fn, points, protocol, 0, probes), {"probes": probes}
    used = min(max(2, probes), MOST_PROBES)
    norms = _probed(fn, points, protocol, 0, used)
    rounding = _rounding(field, protocol) ** 2
    while True:
        skew, whole = float(norms.skew.mean()), float(norms.whole.mean())
        if not rounding * whole < skew < math.inf:
            return norms, {"probes": used, "probe_error": 0.0}
        error = max(relative(norms) for relative in errors)
        if error <= protocol.precision or used == MOST_PROBES:
            return norms, {"probes": used, "probe_error": error}
        further = _probed(fn, points, protocol, used, min(2 * used, MOST_PROBES))
        norms = Norms(*(torch.cat(pair) for pair in zip(norms, further, strict=True)))
        used = norms.skew.shape[0]


def _exact(fn: VectorField, points: Points) -> Norms:
    dim = points.noisy.shape[1:].numel()
    at_once = max(1, _WORKSPACE // (dim**2 * points.noisy.element_size()))
    parts = [
        exact_asymmetry(jacobian(fn, x, t))
        for x, t in zip(points.noisy.split(at_once), points.t.split(at_once), strict=True)
    ]
    skew, whole = (torch.cat(values).unsqueeze(0) for values in zip(*parts, strict=True))
    return Norms(skew, whole)


def _probed(fn: VectorField, points: Points, protocol: Protocol, start: int, end: int) -> Norms:
    """The estimates of the probes ``start … end - 1`` of each point."""
    n, *event = points.noisy.shape
    at_once = max(1, _ENTRIES // points.noisy.shape[1:].numel())
    row = torch.arange(n, device=points.t.device).repeat(end - start)
    step = torch.arange(start, end, device=points.t.device).repeat_interleave(n)
    parts = []
    for chosen, steps in zip(row.split(at_once), step.split(at_once), strict=True):
        v = protocol.noise.signs(
            "diagnostics/probe", event, points.indices[chosen], steps, dtype=protocol.dtype
        )
        parts.append(probed_asymmetry(fn, points.noisy[chosen], points.t[chosen], v))
    skew, whole = (torch.cat(values).reshape(-1, n) for values in zip(*parts, strict=True))
    return Norms(skew, whole)


def _rounding(field: ScoreField, protocol: Protocol) -> float:
    """How large a relative asymmetry rounding alone may make."""
    return _ROUNDING * precision_of(field, protocol.dtype)


def _tell(profile: Profile) -> Profile:
    """The profile with what its precision took among its settings."""
    precision = profile.protocol.precision
    if precision is None or profile.settings["probes"] == "exact":
        return profile
    missed = [s for s, e in profile if e.settings["probe_error"] > precision]
    told = {
        "probes": [e.settings["probes"] for e in profile.estimates],
        "precision": precision,
        **({"precision_missed_at": missed} if missed else {}),
    }
    return replace(profile, settings={**profile.settings, **told})

r"""The exterior derivative :math:`J - J^\top` and the relative asymmetry.

The Jacobians are exact, or probed at random; the standard error covers points and probes together.
Where the protocol has a precision, the number of probes doubles until the standard error that they
add is that fraction of the value, see :mod:`scorefield.diagnostics.asymmetry`; the settings then
contain the probes used at each noise level and the levels at which the precision was not reached.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from scorefield.diagnostics.asymmetry import Norms, ProbeError, Probing, asymmetry_at
from scorefield.diagnostics.protocol import Points, Profile, Protocol, measure
from scorefield.estimate import Estimate, mean, ratio, root
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import Classes
from scorefield.fields.forms import Quantity, affine
from scorefield.points import Given
from scorefield.targets.base import Target

UNITS: dict[Quantity, str] = {
    "score": "1/data²",
    "noise": "1/data",
    "denoiser": "",
    "velocity": "1/time",
    "drift": "1/time",
}


class Asymmetries(NamedTuple):
    """Both numbers from one set of Jacobians."""

    exterior: Profile
    relative: Profile


def exterior_derivative(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    probes: int | None = None,
    quantity: Quantity = "denoiser",
    classes: Classes = None,
) -> Profile:
    r"""The root mean square of :math:`\|J - J^\top\|_F` over noisy points, by noise level, for the
    Jacobian :math:`J`, of shape :math:`(D, D)`.

    ``field``, ``data``, ``protocol`` and ``classes`` are those of :mod:`scorefield.diagnostics`.

    Arguments:
        probes: Rademacher probes per point, or per point in the first round if the protocol has a
            precision; exact Jacobians if not given.
        quantity: The parametrisation whose Jacobian is used. The denoiser's is a pure number,
            :math:`\sigma^2/\alpha` times the score's; the score's is in 1/data².

    Raises:
        ValueError: If ``probes`` is not positive, or a value is not finite.
    """
    unit = UNITS[quantity]

    def at(points: Points) -> Estimate:
        norms = _norms(field, points, protocol, probes, quantity, (_exterior_error,))
        return _exterior(norms, unit)

    settings = {"quantity": quantity, "probes": probes or "exact"}
    found = measure("exterior_derivative", unit, at, field, data, protocol, classes, **settings)
    return _with_precision(found)


def relative_asymmetry(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    probes: int | None = None,
    quantity: Quantity = "score",
    classes: Classes = None,
) -> Profile:
    r"""The relative asymmetry, by noise level; a pure number in [0, 1].

    .. math:: \frac12 \sqrt{\frac{\mathbb{E}\,\|J - J^\top\|_F^2}{\mathbb{E}\,\|J\|_F^2}}

    It is 0 for a gradient and 1 for a rotation. Arguments, settings and errors are those of
    :func:`exterior_derivative`.
    """

    def at(points: Points) -> Estimate:
        return _relative(_norms(field, points, protocol, probes, quantity, (_relative_error,)))

    settings = {"quantity": quantity, "probes": probes or "exact"}
    found = measure("relative_asymmetry", "", at, field, data, protocol, classes, **settings)
    return _with_precision(found)


def asymmetries(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    probes: int | None = None,
    quantity: Quantity = "denoiser",
    classes: Classes = None,
) -> Asymmetries:
    r"""The exterior derivative and the relative asymmetry from one set of Jacobians.

    The Jacobians are those of the score, whose relative asymmetry is reported; the exterior
    derivative is reported in the parametrisation ``quantity``, whose skew part is the score's times
    the factor between the two. Arguments, settings and errors are otherwise those of
    :func:`exterior_derivative`; a precision holds for both.
    """
    unit = UNITS[quantity]
    relatives: list[Estimate] = []

    def at(points: Points) -> Estimate:
        errors = (_exterior_error, _relative_error)
        norms = _norms(field, points, protocol, probes, "score", errors)
        relatives.append(_relative(norms))
        _, factor = affine(points.noisy[:1], points.t[:1], field.sde, quantity)
        return _exterior(norms, UNITS["score"]).scaled(abs(float(factor)), unit)

    settings = {"quantity": quantity, "probes": probes or "exact"}
    found = measure("exterior_derivative", unit, at, field, data, protocol, classes, **settings)
    exterior = _with_precision(found)
    settings = {**exterior.settings, "quantity": "score"}
    return Asymmetries(
        exterior, Profile("relative_asymmetry", "", tuple(relatives), protocol, settings)
    )


def _exterior(norms: Norms, unit: str) -> Estimate:
    skew = root(mean(norms.skew.mean(dim=0).cpu().numpy()), unit)
    numerical = norms.rounding * float(norms.whole.mean()) ** 0.5
    return replace(skew, numerical_error=numerical, settings=_probe_settings(norms))


def _relative(norms: Norms) -> Estimate:
    skew, whole = (values.mean(dim=0).cpu().numpy() for values in (norms.skew, norms.whole))
    # A constant field, as a score at very large noise, is a gradient.
    square = ratio(skew, whole) if whole.any() else mean(skew)
    found = replace(root(square), numerical_error=norms.rounding)
    return replace(found.scaled(0.5), settings=_probe_settings(norms))


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
    errors: tuple[ProbeError, ...],
) -> Norms:
    """The squared norms at the points."""
    probing = None
    if probes is not None:
        probing = Probing(
            protocol.noise, points.indices, probes, protocol.precision, dtype=protocol.dtype
        )
    return asymmetry_at(field, points.noisy, points.t, quantity, probing, errors, points.classes)


def _probe_settings(norms: Norms) -> dict[str, int | float]:
    """The settings with which the norms were computed."""
    if norms.probes is None:
        return {}
    error = {} if norms.added is None else {"probe_error": norms.added}
    return {"probes": norms.probes, **error}


def _with_precision(profile: Profile) -> Profile:
    """The profile, its settings with those of the protocol's precision."""
    precision = profile.protocol.precision
    if precision is None or profile.settings["probes"] == "exact":
        return profile
    missed = [s for s, e in profile if e.settings["probe_error"] > precision]
    reached = {
        "probes": [e.settings["probes"] for e in profile.estimates],
        "precision": precision,
        **({"precision_missed_at": missed} if missed else {}),
    }
    return replace(profile, settings={**profile.settings, **reached})

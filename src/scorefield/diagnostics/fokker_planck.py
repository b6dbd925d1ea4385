r"""The residual of the score Fokker–Planck equation.

The residual :math:`r` of :mod:`scorefield.calculus.fokker_planck` is reported in units of the
noise, per unit of the logarithm of the noise level, :math:`\rho = 2 \sigma^3 r / g^2`: its value at
a level is independent of the time parametrisation.

A field without residual is the score of a density that evolves under the process, not necessarily
the exact one: that requires the exact score at one noise level in addition.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.calculus.fokker_planck import (
    FokkerPlanckForm,
    fokker_planck_difference,
    fokker_planck_terms,
    per_log_noise,
    unbiased_square,
)
from scorefield.checks import check_count
from scorefield.diagnostics.protocol import (
    Points,
    Profile,
    Protocol,
    blocks,
    measure,
    precision_of,
)
from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean, root
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import Classes, classes_at
from scorefield.points import Given
from scorefield.targets.base import Target

_ROUNDING = 64.0
"""The rounding error of cancelling terms, in units of the machine precision."""

NAMES: dict[FokkerPlanckForm, str] = {
    "gradient": "fokker_planck",
    "component": "fokker_planck_component",
}
_BOTH: tuple[FokkerPlanckForm, ...] = ("gradient", "component")
_GAP = "fokker_planck_gap"


class FokkerPlanckErrors(NamedTuple):
    """The result of one evaluation of both forms."""

    gradient: Profile
    component: Profile
    gap: Profile


def fokker_planck_error(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    form: FokkerPlanckForm = "gradient",
    probes: int | None = None,
    classes: Classes = None,
) -> Profile:
    r"""The root mean square :math:`\sqrt{\mathbb{E}\,\|\rho\|^2 / D}` of the residual of a
    coordinate, by noise level; a pure number.

    The gradient form is the equation of the score. The component form agrees with it for gradients
    and adds curl for other fields. With probes, the square of the residual is estimated without
    bias, by the products of independent probes two by two; the standard error is that over points
    and probes together. The numerical error is the rounding of cancelling terms. ``field``,
    ``data``, ``protocol`` and ``classes`` are those of :mod:`scorefield.diagnostics`.

    Arguments:
        form: ``gradient`` or ``component``.
        probes: Random signs per point, at least 2; exact, at :math:`D` times the cost of one, if
            not given.

    Raises:
        ValueError: If the form is unknown, or there are fewer than two probes.

    References:
        FP-diffusion: improving score-based diffusion models by enforcing the underlying score
        Fokker–Planck equation (Lai, Takida, Murata, Uesaka, Mitsufuji and Ermon, 2023), for the
        component form.
    """
    (profile,) = _profiles((form,), field, data, protocol, probes, classes)
    return profile


def fokker_planck_gap(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    probes: int | None = None,
    classes: Classes = None,
) -> Profile:
    r"""The root mean square difference of the two forms of the residual, by noise level.

    It depends on :math:`J - J^\top` and its divergence alone, and is zero for a gradient; unit,
    arguments and errors are those of :func:`fokker_planck_error`.
    """
    return fokker_planck_errors(field, data, protocol, probes, classes).gap


def fokker_planck_errors(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    probes: int | None = None,
    classes: Classes = None,
) -> FokkerPlanckErrors:
    """Both forms and their difference, from one evaluation; see :func:`fokker_planck_error`."""
    return FokkerPlanckErrors(*_profiles(_BOTH, field, data, protocol, probes, classes))


def _profiles(
    forms: tuple[FokkerPlanckForm, ...],
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    probes: int | None,
    classes: Classes,
) -> list[Profile]:
    """The profiles of the forms, and of their difference if there are both."""
    if not set(forms) <= NAMES.keys():
        raise UserError(f"the form of a residual is gradient or component, not {forms[0]!r}")
    if probes is not None:
        check_count("the probes of an unbiased square", probes, 2)
    levels: list[dict[str, Estimate]] = []

    def at(points: Points) -> Estimate:
        levels.append(_estimates(field, points, protocol, forms, probes))
        return levels[-1][NAMES[forms[0]]]

    found = measure(
        NAMES[forms[0]], "", at, field, data, protocol, classes, probes=probes or "exact"
    )
    return [
        replace(found, name=name, estimates=tuple(level[name] for level in levels))
        for name in levels[0]
    ]


def _estimates(
    field: ScoreField,
    points: Points,
    protocol: Protocol,
    forms: tuple[FokkerPlanckForm, ...],
    probes: int | None,
) -> dict[str, Estimate]:
    """The estimates of the forms, and of their difference if there are both, by name."""
    dim, sde = field.domain.dim, field.sde
    squares: dict[str, list[Tensor]] = {name: [] for name in (*NAMES.values(), _GAP)}
    sizes = []
    for rows in blocks(protocol.n, dim * (probes or dim), points.t.device):
        x, t = points.noisy[rows], points.t[rows]
        signs = None
        if probes is not None:
            name, shape = "diagnostics/fokker_planck", (probes, *x.shape[1:])
            draws = protocol.noise.signs(name, shape, points.indices[rows], dtype=protocol.dtype)
            signs = draws.movedim(1, 0)
        known = classes_at(points.classes, rows)
        terms = fokker_planck_terms(field.score, x, t, sde, forms, signs, known)
        residuals = {NAMES[form]: terms[form].residual(t, sde) for form in forms}
        if len(forms) == len(NAMES):
            residuals[_GAP] = fokker_planck_difference(terms, t, sde)
        for name, residual in residuals.items():
            square = unbiased_square(per_log_noise(residual, t, sde))
            squares[name].append(square.reshape(len(x), -1).mean(dim=1))
        sizes.append(per_log_noise(terms[forms[0]].size(t, sde), t, sde).square().mean())
    rounding = _ROUNDING * precision_of(field, protocol.dtype)
    numerical = rounding * math.sqrt(float(torch.stack(sizes).mean()))
    return {
        name: replace(root(mean(torch.cat(parts).cpu().numpy())), numerical_error=numerical)
        for name, parts in squares.items()
        if parts
    }

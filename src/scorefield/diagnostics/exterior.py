r"""Is the field locally a gradient? The exterior derivative :math:`J - J^\top`.

In exact form every column of the Jacobian is computed; with probes, random
:math:`J v` and :math:`J^\top v` estimate the same norms without bias, and the standard error covers
points and probes together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield.calculus import exact_asymmetry, jacobian, probed_asymmetry
from scorefield.diagnostics.protocol import Points, Profile, Protocol, measure
from scorefield.estimate import Estimate, mean, ratio, root
from scorefield.fields import ScoreField
from scorefield.fields.base import Quantity
from scorefield.targets import Target

UNITS: dict[Quantity, str] = {
    "score": "1/data²",
    "noise": "1/data",
    "denoiser": "",
    "velocity": "1/time",
    "drift": "1/time",
}


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
        protocol: The noise levels and points.
        probes: Rademacher probes a point; the exact Jacobian if not given.
        quantity: The form of the field whose Jacobian is meant. The denoiser's is a pure
            number, :math:`\sigma^2/\alpha` times the score's.

    Raises:
        ValueError: If ``probes`` is not positive, or a value is not finite.
    """

    def at(points: Points) -> Estimate:
        skew, _ = _squared_norms(field, points, protocol, probes, quantity)
        return root(mean(skew.cpu().numpy()), UNITS[quantity])

    settings = {"quantity": quantity, "probes": probes or "exact"}
    return measure("exterior_derivative", UNITS[quantity], at, field, data, protocol, **settings)


def relative_asymmetry(
    field: ScoreField,
    data: Target | Tensor,
    protocol: Protocol,
    probes: int | None = None,
    quantity: Quantity = "score",
) -> Profile:
    r"""The relative asymmetry, by noise level; a pure number in [0, 1].

    .. math:: \frac12 \sqrt{\frac{\mathbb{E}\,\|J - J^\top\|_F^2}{\mathbb{E}\,\|J\|_F^2}}

    It is 0 for a gradient and 1 for a rotation. Arguments and errors are those of
    :func:`exterior_derivative`.
    """

    def at(points: Points) -> Estimate:
        skew, norm = _squared_norms(field, points, protocol, probes, quantity)
        return root(ratio(skew.cpu().numpy(), norm.cpu().numpy())).scaled(0.5)

    settings = {"quantity": quantity, "probes": probes or "exact"}
    return measure("relative_asymmetry", "", at, field, data, protocol, **settings)


def _squared_norms(
    field: ScoreField, points: Points, protocol: Protocol, probes: int | None, quantity: Quantity
) -> tuple[Tensor, Tensor]:
    def fn(x: Tensor, t: Tensor) -> Tensor:
        return field.predict(x, t, quantity)

    if probes is None:
        return exact_asymmetry(jacobian(fn, points.noisy, points.t))
    if probes < 1:
        raise ValueError(f"probes must be positive, got {probes}")
    skews, norms = [], []
    for k in range(probes):
        v = protocol.noise.signs(
            "diagnostics/probe", field.domain.shape, points.indices, step=k, dtype=protocol.dtype
        )
        skew, norm = probed_asymmetry(fn, points.noisy, points.t, v)
        skews.append(skew)
        norms.append(norm)
    return torch.stack(skews).mean(dim=0), torch.stack(norms).mean(dim=0)

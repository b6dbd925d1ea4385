r"""Latent codes: the images of points under the probability flow, at the greatest noise level.

The flow is one-to-one: a point and its code :math:`z = x_{t_{max}}` determine each other. Codes of
data are distributed as the prior, so that codes between two others, or rescaled about their mean,
decode into samples.

References:
    Score-based generative modeling through stochastic differential equations (Song et al., 2021),
    section 4.3 and appendix D.2.

    Animating rotation with quaternion curves (Shoemake, 1985), section 3.3, for the interpolation
    along a great circle.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.checks import check_count, check_data, check_floating, check_not_negative
from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean
from scorefield.fields.base import ScoreField, check_field, evaluation_mode
from scorefield.fields.classes import Classes
from scorefield.samplers.flow import Flow
from scorefield.samplers.runge_kutta import Solution

Interpolation = Literal["spherical", "linear"]

_PARALLEL = 1e-6
"""The sine of an angle below which a great circle through two codes is not defined."""


class Carried(NamedTuple):
    """Points at the other end of the flow, and the ``solution`` with the calls and steps of
    each.
    """

    x: Float[Tensor, "batch *event"]
    solution: Solution


def encode(
    field: ScoreField,
    x: Float[Tensor, "batch *event"],
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_calls: int = 10_000,
    classes: Classes = None,
) -> Carried:
    r"""The codes :math:`x_{t_{max}}` of points :math:`\hat x_{t_{min}}`; no gradients are recorded.

    Arguments:
        field: The field.
        x: Points in units of the data, at the least noise level, in the dtype of the integration.
        rtol: The relative tolerance; each point has its own step sizes.
        atol: The absolute tolerance.
        max_calls: The largest number of network calls per point.
        classes: The class of each point, or of all.

    Raises:
        ValueError: If ``x`` does not fit the field or is not finite, or a tolerance is out of
            range.
        StalledError: If a point does not arrive.
    """
    return _carry(field, x, rtol, atol, max_calls, classes, forward=True)


def decode(
    field: ScoreField,
    z: Float[Tensor, "batch *event"],
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_calls: int = 10_000,
    classes: Classes = None,
) -> Carried:
    r"""The points :math:`\hat x_{t_{min}}` of codes; arguments and errors as of :func:`encode`."""
    return _carry(field, z, rtol, atol, max_calls, classes, forward=False)


def round_trip(
    field: ScoreField,
    x: Float[Tensor, "batch *event"],
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_calls: int = 10_000,
    classes: Classes = None,
) -> Estimate:
    """The error of encoding points and decoding them again: the mean over points of the root mean
    square over coordinates, in units of the data.

    Arguments and errors are those of :func:`encode`; fewer than two points are a ``ValueError``.
    """
    code = encode(field, x, rtol, atol, max_calls, classes)
    back = decode(field, code.x, rtol, atol, max_calls, classes)
    apart = field.domain.displacement(x, back.x).reshape(len(x), -1)
    error = apart.square().mean(dim=1).sqrt()
    calls = float((code.solution.calls + back.solution.calls).double().mean())
    return mean(error.cpu().numpy(), "units of the data", rtol=rtol, atol=atol, calls=calls)


def interpolate(
    z0: Float[Tensor, "*event"],
    z1: Float[Tensor, "*event"],
    n: int,
    kind: Interpolation = "spherical",
    center: Tensor | float = 0.0,
) -> Float[Tensor, "n *event"]:
    r"""Codes from one to another, both included.

    Spherical interpolation turns the direction and changes the length evenly,

    .. math:: z(\tau) = r(\tau)\,\frac{\sin((1 - \tau)\theta)\,e_0 + \sin(\tau\theta)\,e_1}
        {\sin\theta}, \qquad r(\tau) = (1 - \tau) |z_0| + \tau |z_1|,

    with :math:`e_i = z_i / |z_i|` and :math:`\theta` the angle between them. It is linear for
    parallel codes and where a code is zero; between opposite codes it passes through the coordinate
    in which they are smallest. On a torus, the shortest way is the linear one from ``z0`` to ``z0 +
    domain.displacement(z0, z1)``, wrapped.

    Arguments:
        z0: The first code.
        z1: The last code.
        n: The number of codes, at least 2.
        kind: ``"spherical"`` or ``"linear"``.
        center: The origin of lengths and directions, the mean of the prior.

    Raises:
        ValueError: If the codes are not floating-point numbers or differ in shape, ``n`` is below
            2, ``kind`` is not known, or the codes are opposite numbers in one dimension, between
            which there is no circle.
    """
    for name, code in (("z0", z0), ("z1", z1)):
        check_floating(name, code)
    if z0.shape != z1.shape:
        raise UserError(f"z0 and z1 differ in shape: {tuple(z0.shape)} and {tuple(z1.shape)}")
    check_count("n", n, 2)
    if kind not in get_args(Interpolation):
        raise UserError(f"kind must be spherical or linear, not {kind!r}")
    tau = torch.linspace(0, 1, n, dtype=z0.dtype, device=z0.device).unsqueeze(1)
    a, b = ((z - center).reshape(1, -1) for z in (z0, z1))
    path = (1 - tau) * a + tau * b
    if kind == "spherical":
        lengths = a.norm(), b.norm()
        if bool(lengths[0] > 0) and bool(lengths[1] > 0):
            path = _circle(a / lengths[0], b / lengths[1], tau)
            path = ((1 - tau) * lengths[0] + tau * lengths[1]) * path
    return path.reshape(n, *z0.shape) + center


def temper(
    z: Float[Tensor, "batch *event"], temperature: float, center: Tensor | float = 0.0
) -> Float[Tensor, "batch *event"]:
    r"""Codes drawn towards the centre or away from it, :math:`c + \sqrt{T}\,(z - c)`.

    Codes from the prior :math:`N(c, s^2)`, whose
    :meth:`center() <scorefield.sde.base.NormalPrior.center>` is :math:`c`, become codes from
    :math:`N(c, T s^2)`: its density to the power :math:`1 / T`, for a temperature :math:`T \ge 0`.

    Raises:
        ValueError: If the codes are not floating-point numbers, or the temperature is negative or
            not finite.
    """
    check_floating("z", z)
    check_not_negative("temperature", temperature)
    return center + math.sqrt(temperature) * (z - center)


def _carry(
    field: ScoreField,
    x: Tensor,
    rtol: float,
    atol: float,
    max_calls: int,
    classes: Classes,
    forward: bool,
) -> Carried:
    check_points(field, x)
    sde = field.sde
    top = float(sde.alpha(torch.tensor(sde.t_max, dtype=torch.float64)))
    with torch.no_grad(), evaluation_mode(field):
        flow = Flow(field, field.class_rows(classes, x))
        if forward:
            solution = flow.carry(x, sde.t_min, sde.t_max, rtol, atol, max_calls)
        else:
            solution = flow.carry(x / top, sde.t_max, sde.t_min, rtol, atol, max_calls)
        flow.check(solution)
        end = flow.scaled(solution)
        return Carried(top * end if forward else end, solution)


def check_points(field: ScoreField, x: Tensor) -> None:
    """Raises ``ValueError`` unless points are finite, floating and of the field's event shape."""
    check_field(field)
    shape = field.domain.shape
    check_data("x", x)
    if x.shape[1:] != shape:
        raise UserError(
            f"x must have the event shape {shape}, which the field has, got {tuple(x.shape)}"
        )


def _circle(a: Tensor, b: Tensor, tau: Tensor) -> Tensor:
    """Unit vectors along the great circle from one unit vector to another."""
    aligned = (a * b).sum()
    across = b - aligned * a
    sine = across.norm()
    if bool(sine < _PARALLEL):
        if bool(aligned > 0):
            path = (1 - tau) * a + tau * b
            return path / path.norm(dim=1, keepdim=True)
        if a.shape[1] < 2:
            raise UserError("z0 and z1 are opposite numbers, between which there is no circle")
        across = torch.zeros_like(a)
        across[0, int(a.abs().argmin())] = 1.0
        across = across - (across * a).sum() * a
        sine = across.norm()
        across = across / sine
        angle = torch.full_like(aligned, math.pi)
    else:
        across, angle = across / sine, torch.atan2(sine, aligned)
    return torch.cos(tau * angle) * a + torch.sin(tau * angle) * across

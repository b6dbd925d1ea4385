r"""The density of a model, by the change of variables along its probability flow.

In :math:`\hat x = x / \alpha(t)` and the noise level :math:`\lambda = \sigma / \alpha` the
probability flow of every process is
:math:`\mathrm{d}\hat x / \mathrm{d}\lambda = \hat\varepsilon(\alpha\hat x, t)`, and along it

.. math:: \frac{\mathrm{d}}{\mathrm{d}\lambda} \log q_\lambda(\hat x_\lambda)
    = -\nabla_{\hat x} \cdot \hat\varepsilon = -\alpha\,\mathrm{tr}\,J,
    \qquad J = \frac{\partial\hat\varepsilon}{\partial x}.

With :math:`q_{\lambda_{max}}` the law of the prior this defines the law :math:`q` that the field's
flow carries the prior to at :math:`\lambda_{min}`, which is that of samples before the last, tiny
step to zero noise:

.. math:: \log q(\hat x_{\lambda_{min}}) = \log p_{prior}(\alpha_{max}\,\hat x_{\lambda_{max}})
    + D \log \alpha_{max}
    + \int_{\lambda_{min}}^{\lambda_{max}} \alpha\,\mathrm{tr}\,J\;\mathrm{d}\lambda.

The flow of any field has a density, whether the field is a gradient or not.

References:
    Neural ordinary differential equations (Chen, Rubanova, Bettencourt and Duvenaud, 2018),
    theorem 1.

    Score-based generative modeling through stochastic differential equations (Song et al., 2021),
    equation 39.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.calculus import vjp
from scorefield.fields import LogProb, ScoreField, evaluation
from scorefield.samplers.grid import at_levels, karras_levels

_ROWS = 1024
"""The largest number of rows in one differentiated evaluation, where a point takes one."""


def log_prob(field: ScoreField, x: Float[Tensor, "batch *event"], steps: int = 64) -> LogProb:
    r"""The log-density of the model at points of the least noise level, in nats.

    It is the density of :math:`\hat x = x_t / \alpha(t)` at ``t_min``, per volume in units of the
    data: that of data blurred by :math:`\lambda_{min}`, where the field is exact and the prior is
    that of the process. The flow and the divergence are integrated together by the classical
    Runge–Kutta method of order 4 on Karras' grid, with the exact trace of the Jacobian, which takes
    :math:`6 D` network calls with their derivatives a step and point. Rows do not know each other.

    Arguments:
        field: The score field, in evaluation mode meanwhile; no gradients are recorded.
        x: Points :math:`\hat x`, in units of the data. The dtype is that of the integration.
        steps: The number of steps, an even one.

    Raises:
        ValueError: If ``x`` has another event shape than the field or no floating dtype, or
            ``steps`` is not a positive even integer.
        FloatingPointError: If a log-density is not finite.

    Example:
        >>> x = truth.sample(256, seed=1, dtype=torch.float64)
        >>> value, numerical_error = log_prob(field, x)
    """
    if x.shape[1:] != field.domain.shape or not x.dtype.is_floating_point:
        raise ValueError(
            f"a field on event shape {field.domain.shape} has a density at floating points of that "
            f"shape, got {x.dtype} of event shape {tuple(x.shape[1:])}"
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2 or steps % 2:
        raise ValueError(f"a log-density takes a positive even number of steps, got {steps!r}")
    with torch.no_grad(), evaluation(field):
        fine, coarse = (_integrate(field, x, n) for n in (steps, steps // 2))
    bad = (~(fine.isfinite() & coarse.isfinite())).nonzero().reshape(-1).tolist()
    if bad:
        raise FloatingPointError(
            f"{len(bad)} of {len(x)} log-densities are not finite with {steps} steps: the first "
            f"is that of point {bad[0]}"
        )
    return LogProb(fine, (fine - coarse).abs())


def _integrate(field: ScoreField, x: Tensor, steps: int) -> Tensor:
    """Carries points from the least to the greatest noise level; returns their log-densities."""
    sde = field.sde
    nodes = karras_levels(sde, steps + 1)[:-1].flip(0)
    # Nodes and the midpoints between them, in order.
    levels = torch.stack((nodes[:-1], nodes.diff() / 2 + nodes[:-1]), dim=1).reshape(-1)
    grid = at_levels(torch.cat((levels, nodes[-1:])), sde, x)

    def slope(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        alpha, t = grid.alpha[k], grid.time[k].expand(x.shape[0])
        noise, trace = _noise_and_trace(field, alpha * x, t)
        return noise, alpha * trace

    total = x.new_zeros(x.shape[0])
    for k in range(0, 2 * steps, 2):
        h = grid.sigma[k + 2] - grid.sigma[k]
        v1, d1 = slope(x, k)
        v2, d2 = slope(x + 0.5 * h * v1, k + 1)
        v3, d3 = slope(x + 0.5 * h * v2, k + 1)
        v4, d4 = slope(x + h * v3, k + 2)
        x = field.domain.wrap(x + h / 6 * (v1 + 2 * (v2 + v3) + v4))
        total = total + h / 6 * (d1 + 2 * (d2 + d3) + d4)
    alpha = grid.alpha[-1]
    return sde.prior(field.domain).log_prob(alpha * x) + field.domain.dim * math.log(alpha) + total


def _noise_and_trace(field: ScoreField, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The predicted noise and the trace of its Jacobian, a row a point."""
    batch, event = x.shape[0], x.shape[1:]
    noise, total = x, x.new_zeros(batch)

    def fn(points: Tensor, times: Tensor) -> Tensor:
        nonlocal noise
        value = field.predict_noise(points, times)
        noise = value[:batch].detach()
        return value

    for basis in torch.eye(field.domain.dim).to(x).split(max(1, _ROWS // max(batch, 1))):
        k = len(basis)
        v = basis.reshape(k, 1, *event).expand(k, batch, *event).flatten(0, 1)
        points = x.expand(k, *x.shape).flatten(0, 1)
        # Reverse mode: in forward mode, factors without a tangent cost milliseconds each.
        product = vjp(fn, points, t.repeat(k), v)
        total = total + (product * v).reshape(k, batch, -1).sum(dim=(0, 2))
    return noise, total

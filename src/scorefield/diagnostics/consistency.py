"""Consistency of the field between two noise levels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scorefield.calculus.consistency import martingale_target, reverse_trajectory
from scorefield.calculus.fokker_planck import unbiased_square
from scorefield.diagnostics.protocol import Points, Profile, Protocol, measure, precision_of
from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean
from scorefield.fields.base import ScoreField, check_field, evaluation_mode
from scorefield.fields.classes import Classes, classes_at
from scorefield.points import Given
from scorefield.sde.base import SDE
from scorefield.targets.base import Target

_COORDINATES = 2**18


def consistency_error(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    span: float = 2.0,
    steps: int = 8,
    trajectories: int = 8,
    guide: ScoreField | None = None,
    classes: Classes = None,
) -> Profile:
    r"""The mean square residual of the denoiser's martingale property between two noise levels,
    in units of the noise, by noise level; a pure number.

    .. math:: \frac{1}{D\,\lambda^2}\,
        \mathbb{E}\,\big\|\,\mathbb{E}[h(x_e, e) \mid x_s] - h(x_s, s)\,\big\|^2

    with the denoiser :math:`h`, over reverse trajectories from the noise level :math:`\lambda` down
    to :math:`\lambda / \text{span}`, or to the lowest of the process if that is higher (the
    estimate's settings contain the span). It is zero for the exact field, and the square of an
    error in the unit of :func:`~.score_error`.

    Trajectories start in antithetic pairs from each point, which cancels odd terms, the larger part
    of the residual. The products of the means of different pairs are unbiased estimates of the
    square of the mean. An estimate of zero is negative as often as positive, and its root is not
    taken: it would be biased, and so would means over seeds. Where points between modes are rare
    and scatter much, an interval needs some two thousand points.

    Trajectories are of weak order 1 in the step, and run twice, the second time in half as many
    steps along the same Brownian path. Residuals are extrapolated from both to steps of length
    zero. The numerical error is the change by the extrapolation plus rounding, at each step
    :math:`\epsilon\,(1 + |x| / \sigma)` in the coarsest precision :math:`\epsilon` that values pass
    through. The cost is ``1.5 steps + 2`` evaluations of the field a trajectory, and one a point.

    A consistent field need not be exact. On a torus it may even wind: in the covering space
    :math:`e^{c \cdot x} p_0` diffuses like a density, and its score is periodic and consistent.
    :func:`~.winding` measures this part.

    Arguments:
        span: The ratio of the two noise levels.
        steps: The number of steps of a trajectory, evenly spaced in the logarithm of the level;
            even.
        trajectories: The number of trajectories from a point; even, at least 4.
        guide: The field that draws the trajectories; the field itself if not given.

    Raises:
        ValueError: If a noise level is the lowest of the process, or the guide is a field of
            another process or domain.

    References:
        Consistent diffusion models: mitigating sampling drift by learning to be consistent (Daras,
        Dagan, Dimakis and Daskalakis, 2023), for the property.

        Expansion of the global error for numerical schemes solving stochastic differential
        equations (Talay and Tubaro, 1990), for the extrapolation.
    """
    check_field(field)
    if not (math.isfinite(span) and span > 1):
        raise UserError(f"the span of consistency must be above 1, got {span}")
    if steps < 2 or steps % 2:
        raise UserError(f"the steps of a trajectory must be even and at least 2, got {steps}")
    if trajectories < 4 or trajectories % 2:
        raise UserError(
            f"the number of trajectories must be even and at least 4, got {trajectories}"
        )
    leader = field if guide is None else guide
    if (leader.sde, leader.domain) != (field.sde, field.domain):
        raise UserError("the guide is a field of another process or domain")

    def at(points: Points) -> Estimate:
        grid = _grid(field.sde, points.sigma, span, steps)
        at_once = max(1, _COORDINATES // (field.domain.dim * trajectories))
        shape = (trajectories // 2, steps, *field.domain.shape)
        squares = []
        for rows in torch.arange(protocol.n, device=points.t.device).split(at_once):
            x, index = points.noisy[rows], points.indices[rows]
            z = protocol.noise.normal("diagnostics/trajectory", shape, index, dtype=x.dtype)
            known = classes_at(points.classes, rows)
            squares.append(_squares(field, leader, x, known, grid.to(x.device), z))
        fine, extrapolated = np.concatenate(squares, axis=1)
        found = mean(extrapolated)
        numerical = abs(found.value - float(fine.mean()))
        rounding = _rounding(field, points, steps)
        numerical += rounding * (rounding + 2 * math.sqrt(max(found.value, 0.0)))
        settings = {"span": points.sigma / float(field.sde.noise_level(grid[-1]))}
        return replace(found, settings=settings, numerical_error=numerical)

    settings = {
        "span": span,
        "steps": steps,
        "trajectories": trajectories,
        "guide": None if guide is None else type(guide).__name__,
    }
    with evaluation_mode(leader):
        return measure("consistency", "", at, field, data, protocol, classes, **settings)


def _grid(sde: SDE, sigma: float, span: float, steps: int) -> Tensor:
    """The times of a trajectory, from a noise level down."""
    least, _ = sde.level_range
    if sigma <= least * (1 + 1e-9):
        raise UserError("it is the lowest of the process, with none below to compare with")
    ends = math.log(sigma), math.log(max(sigma / span, least))
    grid = sde.time(torch.linspace(*ends, steps + 1, dtype=torch.float64, device="cpu").exp())
    return grid.clamp(sde.t_min, sde.t_max)


def _rounding(field: ScoreField, points: Points, steps: int) -> float:
    """The root mean square rounding error of a residual, if errors of steps are random."""
    size = float(points.noisy.double().square().mean().sqrt() / field.sde.sigma(points.t[0]))
    return precision_of(field, points.noisy.dtype) * (1 + size) * math.sqrt(steps)


def _squares(
    field: ScoreField,
    leader: ScoreField,
    x: Tensor,
    classes: Tensor | None,
    grid: Tensor,
    z: Tensor,
) -> npt.NDArray[np.float64]:
    """Estimates of the square of each point's mean residual, and extrapolated ones: (2, batch)."""
    pairs = z.shape[1]
    z = torch.stack((z, -z)).transpose(1, 2).flatten(0, 2).transpose(0, 1)
    own = field.predict_noise(x, grid[0], classes)
    again = torch.arange(len(x), device=x.device).repeat(2 * pairs)
    start, known = x[again], classes_at(classes, again)

    def residual(times: Tensor, normals: Tensor) -> Tensor:
        """The residual of the martingale, the mean over each antithetic pair."""
        times = times.unsqueeze(1).expand(-1, len(start))
        end = reverse_trajectory(leader, start, times, normals, classes=known)[-1]
        y = martingale_target(field, start, times[0], end, times[-1], known)
        return y.reshape(2, pairs, *x.shape).mean(dim=0) + own

    fine = residual(grid, z)
    coarse = residual(grid[::2], _joined(field.sde, grid, z))
    squares = [unbiased_square(r).reshape(len(x), -1) for r in (fine, 2 * fine - coarse)]
    return torch.stack(squares).mean(dim=2).double().cpu().numpy()


def _joined(sde: SDE, grid: Tensor, z: Tensor) -> Tensor:
    r"""The normals of steps over two, on the same Brownian path.

    In :math:`x / \alpha` a step from the noise level :math:`\lambda` to :math:`\lambda'` adds a
    normal of variance :math:`\lambda^2 - \lambda'^2`.
    """
    level = sde.noise_level(grid)
    variance = (level[:-1] - level[1:]) * (level[:-1] + level[1:])
    first, second = variance[::2], variance[1::2]
    whole = first + second
    a, b = (
        (part / whole).sqrt().to(z.dtype).reshape(-1, *(1,) * (z.dim() - 1))
        for part in (first, second)
    )
    return a * z[::2] + b * z[1::2]

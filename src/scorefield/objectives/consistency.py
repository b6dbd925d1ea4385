r"""A regulariser that makes a field agree with itself between noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from scorefield.calculus import kernel_target, martingale_target, reverse_trajectory
from scorefield.errors import UserError
from scorefield.fields import ScoreField
from scorefield.noise import Noise
from scorefield.objectives.balance import BalancedWeight
from scorefield.objectives.denoising import NoiseLaw
from scorefield.objectives.objective import Regularizer
from scorefield.objectives.oracle import Oracle
from scorefield.objectives.points import PointLaw, check_points, draw_points, place_points
from scorefield.objectives.regression import ScoreWeighting, check_weighting
from scorefield.samplers.grid import grid_times
from scorefield.sde import SDE

ConsistencyTarget = Literal["kernel", "martingale"]
ConsistencyEstimator = Literal["single", "pair"]
ConsistencyGradient = Literal["start", "both"]


class Consistency(Regularizer):
    r"""The mean squared inconsistency :math:`\frac1D \|\mathbb{E}[y \mid x_s] - p\|^2` between a
    noise level and a lower one.

    :math:`p = \sigma_s s(x_s)` is the score in units of the noise, and :math:`y` a target from the
    end of a reverse trajectory from :math:`x_s`, whose mean :math:`p` is of the exact field: that
    of the ``kernel`` or of the ``martingale``, see :mod:`scorefield.calculus.consistency`. From
    each point one trajectory, or two, go ``steps`` steps along a grid of times, from a start of its
    own: each time of the grid with as many behind it is as likely. No gradient runs through the
    trajectories.

    * ``single``: :math:`\langle p, p - 2y \rangle`, the square up to a term that depends on the
      target alone. It can be negative, and its gradient is that of the square for a given target.
    * ``pair``: :math:`\langle p - y_1, p - y_2 \rangle` with two independent trajectories, whose
      mean is the square itself. The target is given here too with ``gradient="start"``; with
      ``both`` the gradient is that of the square in both ends.

    The single trajectory of the kernel is the regulariser of the two pseudo-atoms' toy code, the
    pair of the martingale with the gradient at both ends that of consistent diffusion models. The
    latter is the default. In units of the noise the kernel scatters by
    :math:`\lambda_s / \lambda_{se}`, where :math:`\lambda_{se}^2 = \lambda_s^2 - \lambda_e^2`, and
    the martingale by :math:`|\nabla h|\,\lambda_{se} / \lambda_s` with the derivative of the
    denoiser, which is 1 where there is little noise and 0 where there is much. And only with the
    gradient at both ends a step goes down a square, for the trajectories as they are: a field that
    follows itself to targets which are given may run away where it is not held by the data, as at
    uniform points. Where a guide draws the trajectories, the gradient at the start scatters least.

    The cost is one evaluation with gradient and ``steps`` without, of twice as many points for
    pairs; the first step is free without a guide, and the martingale takes another one at the ends.

    Arguments:
        weight: The weight, averaged over steps, or a controller.
        target: ``kernel`` or ``martingale``.
        estimator: ``single`` or ``pair``.
        gradient: ``start`` or ``both``; if not given, ``both`` for the pair of the martingale.
        guide: The field that draws the trajectories, under the process of the field; the field
            itself if not given. It is no part of what is trained or stored.
        steps: The number of steps of a trajectory.
        grid: The times, descending; or their number, for times of the process from the last to the
            first, at even distances in the logarithm of the noise level.
        weighting: ``sigma`` for units of the noise; ``none`` for the square of the score itself
            with the kernel (times :math:`1/\sigma_s^2`), and of the denoiser with the martingale
            (times :math:`\lambda_s^2`).
        points: ``data`` for noised points of the batch, ``uniform`` for those of a torus.
        rows: The number of points, at most the batch.
        every: Evaluated at every ``every``-th step.
        sigma_min: The least noise level of a start; that of the grid by default.
        sigma_max: The largest; that of the grid by default.

    Raises:
        ValueError: If an argument is out of range, the gradient at both ends is asked for without
            a pair of martingales, times do not descend or are too few; in use, if the process does
            not have them, no start is between the noise levels, or the guide is a field of another
            process or domain.

    References:
        Consistent diffusion models: mitigating sampling drift by learning to be consistent (Daras,
        Dagan, Dimakis and Daskalakis, 2023).
    """

    name = "consistency"

    def __init__(
        self,
        weight: float | BalancedWeight,
        target: ConsistencyTarget = "martingale",
        estimator: ConsistencyEstimator = "pair",
        gradient: ConsistencyGradient | None = None,
        guide: ScoreField | None = None,
        steps: int = 5,
        grid: int | Sequence[float] = 100,
        weighting: ScoreWeighting = "sigma",
        points: PointLaw = "data",
        rows: int = 64,
        every: int = 1,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        super().__init__(weight, every, sigma_min, sigma_max)
        _check_choice("target", target, get_args(ConsistencyTarget))
        _check_choice("estimator", estimator, get_args(ConsistencyEstimator))
        squared = (target, estimator) == ("martingale", "pair")
        if gradient is None:
            gradient = "both" if squared else "start"
        _check_choice("gradient", gradient, get_args(ConsistencyGradient))
        if gradient == "both" and not squared:
            raise UserError(
                f"consistency: the gradient at both ends needs target='martingale' and "
                f"estimator='pair', not {target!r} and {estimator!r}"
            )
        check_weighting(self.name, weighting)
        check_points(self.name, points, rows)
        self.target = target
        self.estimator = estimator
        self.gradient = gradient
        self.guide = None if guide is None else Oracle(guide)
        self.steps = steps
        self.grid = grid if isinstance(grid, int) else tuple(float(t) for t in grid)
        self.weighting = weighting
        self.points: PointLaw = points
        self.rows = rows
        self._check_grid()

    @property
    def _copies(self) -> int:
        """The number of trajectories from a point."""
        return 2 if self.estimator == "pair" else 1

    def times_of(self, sde: SDE) -> Tensor:
        """The grid of a process, descending, in float64.

        Raises:
            ValueError: If a time is not one of the process.
        """
        if isinstance(self.grid, int):
            return grid_times(sde, self.grid, spacing="logsnr")
        first, last = self.grid[0], self.grid[-1]
        if not sde.t_min <= last < first <= sde.t_max:
            raise UserError(
                f"consistency: the grid has times from {first:g} to {last:g}, the process from "
                f"{sde.t_max:g} to {sde.t_min:g}"
            )
        return torch.tensor(self.grid, dtype=torch.float64)

    def span(self, field: ScoreField) -> int:
        # Several normals a coordinate: of images, those of many steps would fill the memory.
        numbers = self.rows * self._copies * self.steps * field.domain.dim
        return max(1, min(super().span(field), 2**22 // numbers))

    def draw(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, rows: int, step: Tensor
    ) -> tuple[Tensor, ...]:
        if self.guide is not None:
            self.guide.check(self.name, field)
        starts = self._starts(field.sde)
        index = torch.arange(min(rows, self.rows))
        chosen = noise.integers("consistency/start", len(starts), (), index, step)
        drawn = draw_points(self.points, field, noise, "consistency/points", index, step)
        event = (self._copies, self.steps, *field.domain.shape)
        z = noise.normal("consistency/trajectory", event, index, step)
        return starts[chosen], drawn, z

    def energy(self, field: ScoreField, x: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        start, drawn, z = draws
        rows, copies = z.shape[:2]
        offsets = torch.arange(self.steps + 1, device=start.device).unsqueeze(1)
        times = self.times_of(field.sde).to(start.device)[start + offsets]
        t = times[0].to(x.dtype)
        x_s = place_points(self.points, field, x, t, drawn)
        score = -field.predict_noise(x_s, t)
        # All trajectories at once: the copies of the points one after the other.
        times, x_s = times.repeat(1, copies), _copied(x_s, copies)
        normals = z.transpose(0, 1).flatten(0, 1).transpose(0, 1)
        if self.guide is None:
            sigma = field.sde.sigma(t).reshape(-1, *(1,) * (x.dim() - 1))
            known = _copied(score.detach() / sigma, copies)
            x_e = reverse_trajectory(field, x_s, times, normals, known)[-1]
        else:
            with self.guide.asked(x) as guide:
                x_e = reverse_trajectory(guide, x_s, times, normals)[-1]
        y = self._targets(field, x_s, times[0], x_e, times[-1])
        y = y.reshape(copies, rows, field.domain.dim)
        score = score.reshape(rows, field.domain.dim)
        product = score * (score - 2 * y[0]) if copies == 1 else (score - y[0]) * (score - y[1])
        return (self._scale(field.sde, t).unsqueeze(1) * product).mean()

    def _targets(self, field: ScoreField, x_s: Tensor, s: Tensor, x_e: Tensor, e: Tensor) -> Tensor:
        if self.target == "kernel":
            return kernel_target(field, x_s, s, x_e, e)
        with torch.set_grad_enabled(self.gradient == "both" and torch.is_grad_enabled()):
            return martingale_target(field, x_s, s, x_e, e)

    def _scale(self, sde: SDE, t: Tensor) -> Tensor:
        if self.weighting == "sigma":
            return torch.ones_like(t)
        return sde.sigma(t) ** -2 if self.target == "kernel" else sde.noise_level(t) ** 2

    def _starts(self, sde: SDE) -> Tensor:
        """The places on the grid at which a trajectory may start."""
        grid = self.times_of(sde)
        level = sde.noise_level(grid[: len(grid) - self.steps])
        low = 0.0 if self.sigma_min is None else self.sigma_min * (1 - 1e-9)
        high = torch.inf if self.sigma_max is None else self.sigma_max * (1 + 1e-9)
        (starts,) = ((level >= low) & (level <= high)).nonzero(as_tuple=True)
        if not len(starts):
            raise UserError(
                f"consistency: none of the {len(level)} times with {self.steps} behind them has a "
                f"noise level between {low:g} and {high:g}"
            )
        return starts

    def _check_grid(self) -> None:
        if self.steps < 1:
            raise UserError(f"consistency: steps must be positive, got {self.steps}")
        count = self.grid if isinstance(self.grid, int) else len(self.grid)
        if count <= self.steps:
            raise UserError(
                f"consistency: {self.steps} steps need a grid of more times, got {count}"
            )
        if not isinstance(self.grid, int):
            pairs = zip(self.grid, self.grid[1:], strict=False)
            if not all(later < earlier for earlier, later in pairs):
                raise UserError("consistency: the times of the grid must descend")


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"consistency: {what} is {' or '.join(choices)}, not {value!r}")


def _copied(x: Tensor, copies: int) -> Tensor:
    return x.repeat(copies, *(1,) * (x.dim() - 1))

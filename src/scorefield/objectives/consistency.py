r"""A regulariser that makes a field agree with itself between noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from scorefield.calculus.consistency import kernel_target, martingale_target, reverse_trajectory
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.noise import Noise
from scorefield.objectives.denoising import NoiseLaw
from scorefield.objectives.regression import Oracle, ScoreWeighting
from scorefield.objectives.regularizer import PointRegularizer
from scorefield.samplers.grid import grid_times
from scorefield.sde.base import SDE

ConsistencyTarget = Literal["kernel", "martingale"]
ConsistencyEstimator = Literal["single", "pair"]
ConsistencyGradient = Literal["start", "both"]


class Consistency(PointRegularizer):
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

    The default, the pair of the martingale with the gradient at both ends, is that of consistent
    diffusion models. In units of the noise the kernel scatters by
    :math:`\lambda_s / \lambda_{se}`, where :math:`\lambda_{se}^2 = \lambda_s^2 - \lambda_e^2`, and
    the martingale by :math:`|\nabla h|\,\lambda_{se} / \lambda_s` with the derivative of the
    denoiser, which is 1 at little noise and 0 at much. Only the gradient at both ends descends a
    square: with given targets, a field may run away where the data do not hold it, as at uniform
    points. Where a guide draws the trajectories, the gradient at the start scatters least.

    The cost is one evaluation with gradient and ``steps`` without, of twice as many points for
    pairs; the first step is free without a guide, and the martingale takes another one at the ends.

    Arguments:
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
        sigma_min: The least noise level of a start; that of the grid by default.
        sigma_max: The largest; that of the grid by default.

    Raises:
        ValueError: If an argument is out of range, the gradient at both ends is requested without
            a pair of martingales, times do not descend or are too few; in use, if the process does
            not have them, no start is between the noise levels, or the guide is a field of another
            process or domain.

    References:
        Consistent diffusion models: mitigating sampling drift by learning to be consistent (Daras,
        Dagan, Dimakis and Daskalakis, 2023).
    """

    name = "consistency"
    purpose = "points"

    target: ConsistencyTarget = "martingale"
    estimator: ConsistencyEstimator = "pair"
    gradient: ConsistencyGradient | None = None
    guide: InitVar[ScoreField | None] = None
    steps: int = 5
    grid: int | Sequence[float] = 100
    weighting: ScoreWeighting = "sigma"

    def __post_init__(self, guide: ScoreField | None) -> None:
        super().__post_init__()
        self._check_choice("target", ConsistencyTarget)
        self._check_choice("estimator", ConsistencyEstimator)
        squared = (self.target, self.estimator) == ("martingale", "pair")
        if self.gradient is None:
            self.gradient = "both" if squared else "start"
        self._check_choice("gradient", ConsistencyGradient)
        if self.gradient == "both" and not squared:
            raise UserError(
                f"consistency: the gradient at both ends needs target='martingale' and "
                f"estimator='pair', not {self.target!r} and {self.estimator!r}"
            )
        self._check_choice("weighting", ScoreWeighting)
        self.leader = None if guide is None else Oracle(guide)
        if not isinstance(self.grid, int):
            self.grid = tuple(float(t) for t in self.grid)
        self._check_least(1, "steps")
        count = self.grid if isinstance(self.grid, int) else len(self.grid)
        if count <= self.steps:
            raise UserError(
                f"consistency: {self.steps} steps need a grid of more times, got {count}"
            )
        if not isinstance(self.grid, int) and any(a <= b for a, b in pairwise(self.grid)):
            raise UserError("consistency: the times of the grid must descend")

    @property
    def _copies(self) -> int:
        """The number of trajectories from a point."""
        return 2 if self.estimator == "pair" else 1

    def times_of(self, sde: SDE, device: torch.device) -> Tensor:
        """The grid of a process, descending, in float64."""
        if isinstance(self.grid, int):
            return _grid(sde, self.grid, device)
        first, last = self.grid[0], self.grid[-1]
        if not sde.t_min <= last < first <= sde.t_max:
            raise UserError(
                f"consistency: the grid has times from {first:g} to {last:g}, the process from "
                f"{sde.t_max:g} to {sde.t_min:g}"
            )
        return _grid(sde, self.grid, device)

    def span(self, field: ScoreField) -> int:
        # Several normals a coordinate: of images, those of many steps would fill the memory.
        numbers = self.rows * self._copies * self.steps * field.domain.dim
        return max(1, min(super().span(field), 2**22 // numbers))

    def times(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, index: Tensor, step: Tensor
    ) -> Tensor:
        starts = self._starts(field.sde, noise, index, step)
        return self.times_of(field.sde, starts.device)[starts]

    def directions(
        self, field: ScoreField, noise: Noise, index: Tensor, step: Tensor
    ) -> tuple[Tensor, ...]:
        if self.leader is not None:
            self.leader.check(f"{self.name}: the oracle", field)
        event = (self._copies, self.steps, *field.domain.shape)
        z = noise.normal("consistency/trajectory", event, index, step)
        return self._starts(field.sde, noise, index, step), z

    def energy(self, field: ScoreField, x: Tensor, t: Tensor, *directions: Tensor) -> Tensor:
        start, z = directions
        rows, copies = z.shape[:2]
        offsets = torch.arange(self.steps + 1, device=start.device).unsqueeze(1)
        times = self.times_of(field.sde, start.device)[start + offsets]
        score = -field.predict_noise(x, t)
        # All trajectories at once: the copies of the points one after the other.
        times, x_s = times.repeat(1, copies), _copied(x, copies)
        normals = z.transpose(0, 1).flatten(0, 1).transpose(0, 1)
        if self.leader is None:
            sigma = field.sde.sigma(t).reshape(-1, *(1,) * (x.dim() - 1))
            known = _copied(score.detach() / sigma, copies)
            x_e = reverse_trajectory(field, x_s, times, normals, known)[-1]
        else:
            with self.leader.placed(x) as guide:
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

    def _starts(self, sde: SDE, noise: Noise, index: Tensor, step: Tensor) -> Tensor:
        """The places on the grid at which trajectories start, each as likely as another."""
        grid = self.times_of(sde, torch.device("cpu"))
        level = sde.noise_level(grid[: len(grid) - self.steps])
        low = 0.0 if self.sigma_min is None else self.sigma_min * (1 - 1e-9)
        high = torch.inf if self.sigma_max is None else self.sigma_max * (1 + 1e-9)
        first = int((level > high).sum())
        count = int((level >= low).sum()) - first
        if count < 1:
            raise UserError(
                f"consistency: none of the {len(level)} times with {self.steps} behind them has a "
                f"noise level between {low:g} and {high:g}"
            )
        return first + noise.integers("consistency/start", count, (), index, step)


@lru_cache(maxsize=32)
def _grid(sde: SDE, grid: int | tuple[float, ...], device: torch.device) -> Tensor:
    # The first call may be in inference mode, the next may need a gradient.
    with torch.inference_mode(False):
        if isinstance(grid, int):
            return grid_times(sde, grid, spacing="logsnr").to(device)
        return torch.tensor(grid, dtype=torch.float64, device=device)


def _copied(x: Tensor, copies: int) -> Tensor:
    return x.repeat(copies, *(1,) * (x.dim() - 1))

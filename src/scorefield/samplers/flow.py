r"""The probability flow of a field in angular coordinates.

With :math:`\hat x = x_t / \alpha` and the noise level :math:`\lambda = \sigma / \alpha`, let

.. math:: \lambda = \tan\varphi, \qquad y = \hat x \cos\varphi
    = x_0 \cos\varphi + \varepsilon \sin\varphi .

Then the probability flow of every process is

.. math:: \frac{\mathrm{d}y}{\mathrm{d}\varphi}
    = \cos\varphi\;\mathbb{E}[\varepsilon \mid x_t] - \sin\varphi\;\mathbb{E}[x_0 \mid x_t]
    = \frac{\hat\varepsilon}{\cos\varphi} - y \tan\varphi ,

over a quarter of a circle, whatever the range of noise levels: normal data of unit variance stay
where they are, states and slopes are of order one throughout, and an error of a given size matters
as much at one end as at the other. The end points of the flow do not depend on the coordinates, but
the number of calls does: on mixtures, correlated normals and trained networks, integration over
:math:`\lambda`, :math:`\ln\lambda` or the time took 1.0 to 3.5 times as many calls as over
:math:`\varphi`.

References:
    Progressive distillation for fast sampling of diffusion models (Salimans and Ho, 2022),
    appendix D, for the angle and the velocity :math:`\mathrm{d}y / \mathrm{d}\varphi`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.errors import DivergedError
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import classes_at
from scorefield.samplers.runge_kutta import Observer, Outcome, Solution, solve

_SHOWN = 4


class Place(NamedTuple):
    """The coefficients at places on the flow, ``(n, 1)`` in the dtype of the states; times
    ``(n,)``.
    """

    time: Tensor
    alpha: Tensor
    cos: Tensor
    tan: Tensor


class StalledError(DivergedError):
    r"""Raised where points do not reach the end of the flow.

    Attributes:
        solution: The last state of every point in angular coordinates, with its steps and calls.
        x: The same states as :math:`\hat x`, in units of the data.
        sigma: The noise level that each has reached.
    """

    def __init__(self, message: str, solution: Solution, x: Tensor, sigma: Tensor) -> None:
        super().__init__(message)
        self.solution = solution
        self.x = x
        self.sigma = sigma


class Flow:
    """The probability flow of a field for a batch of points, each at its own noise level."""

    def __init__(self, field: ScoreField, classes: Int[Tensor, " n"] | None = None) -> None:
        self.field = field
        self.sde = field.sde
        self.classes = classes

    def angle(self, t: float) -> float:
        r"""The angle :math:`\varphi` of a time."""
        return math.atan(float(self.sde.noise_level(torch.tensor(t, dtype=torch.float64))))

    def at(self, angle: Float[Tensor, " n"], dtype: torch.dtype) -> Place:
        """Times and coefficients at angles, computed in float64."""
        tan = angle.tan()
        # Rounding must not lead beyond the times of the process.
        time = self.sde.time(tan).clamp(self.sde.t_min, self.sde.t_max)
        values = (v.to(dtype).unsqueeze(1) for v in (self.sde.alpha(time), angle.cos(), tan))
        return Place(time.to(dtype), *values)

    def points(self, y: Float[Tensor, "n dim"], place: Place) -> Float[Tensor, "n *event"]:
        r"""The points :math:`x_t` of states, at which the field is evaluated."""
        domain = self.field.domain
        x = domain.wrap((y / place.cos).reshape(-1, *domain.shape))
        return place.alpha.reshape(-1, *(1,) * len(domain.shape)) * x

    def slope(self, angle: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        r"""The velocity :math:`\mathrm{d}y / \mathrm{d}\varphi`."""
        place = self.at(angle, y.dtype)
        points, classes = self.points(y, place), classes_at(self.classes, rows)
        noise = self.field.predict_noise(points, place.time, classes)
        return noise.reshape(y.shape) / place.cos - place.tan * y

    def denoised(self, solution: Solution) -> Float[Tensor, "n *event"]:
        """The posterior means of the clean points at the places of a solution, without a network
        call.
        """
        angle = solution.place
        cos, sin = (v.to(solution.y.dtype).unsqueeze(1) for v in (angle.cos(), angle.sin()))
        x = cos * solution.y - sin * solution.slope
        return self.field.domain.wrap(x.reshape(-1, *self.field.domain.shape))

    def scaled(self, solution: Solution) -> Float[Tensor, "n *event"]:
        r"""The states :math:`\hat x` of a solution, in units of the data."""
        dim = self.field.domain.dim
        x = solution.y[:, :dim] / solution.place.cos().to(solution.y.dtype).unsqueeze(1)
        return self.field.domain.wrap(x.reshape(-1, *self.field.domain.shape))

    def carry(
        self,
        x: Float[Tensor, "n *event"],
        start: float,
        end: float,
        rtol: float,
        atol: float,
        max_calls: int,
        observer: Observer | None = None,
    ) -> Solution:
        r"""Carries scaled states :math:`\hat x` from one time to another; points that do not arrive
        are marked in the solution's ``outcome``.
        """
        begin = self.angle(start)
        y = math.cos(begin) * x.reshape(len(x), -1)
        last = self.angle(end)
        return solve(self.slope, y, begin, last, rtol, atol, max_calls=max_calls, observer=observer)

    def check(self, solution: Solution, index: Tensor | None = None) -> None:
        """Raises :class:`StalledError` unless all points have arrived."""
        if bool(solution.arrived.all()):
            return
        lost = (~solution.arrived).nonzero().flatten()
        sigma = solution.place.tan()
        details = []
        for row in lost[:_SHOWN].tolist():
            name = row if index is None else int(index[row])
            details.append(
                f"sample {name} at noise level {float(sigma[row]):.6g} after "
                f"{int(solution.calls[row])} calls, {int(solution.accepted[row])} steps and "
                f"{int(solution.rejected[row])} rejected ones: "
                f"{_REASONS[Outcome(int(solution.outcome[row]))]}"
            )
        more = f"; and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        raise StalledError(
            f"{len(lost)} of {len(solution.y)} samples did not reach the end of the flow at "
            f"rtol={solution.rtol:g}, atol={solution.atol:g}: {'; '.join(details)}{more}",
            solution,
            self.scaled(solution),
            sigma,
        )


_REASONS = {
    Outcome.RUNNING: "it was interrupted",
    Outcome.OUT_OF_CALLS: "its calls are used up: the flow is stiff there, or max_calls too small",
    Outcome.STEP_TOO_SMALL: "no step that still moves it meets the tolerance",
    Outcome.NOT_FINITE: "the field is not finite there",
}

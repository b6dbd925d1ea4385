r"""Measurements with normal noise, of which a field is made the posterior.

.. math:: y = \mathcal{A}(x_0) + \tau n, \qquad n \sim N(0, I),

for a matrix :math:`A` or a function :math:`\mathcal{A}` of points. Fields of the posterior
:math:`p(x_0 \mid y)` take many measurements at once: number :math:`k` is their class :math:`k`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from scorefield.checks import check_data, check_floating, check_not_negative, kind_of
from scorefield.errors import UserError
from scorefield.fields.gradient import differentiable
from scorefield.noise import Noise

Operator = Float[Tensor, "m *event"] | Callable[[Tensor], Tensor]
"""A matrix, each row of which is shaped like a point, or a differentiable function of a batch of
points that treats each by itself."""


class Linearized(NamedTuple):
    r"""A measurement near points: its values, and products with its derivative :math:`J` there."""

    value: Float[Tensor, "batch m"]
    forward: Callable[[Tensor], Tensor]
    r"""Takes :math:`v` to :math:`J v`."""
    back: Callable[[Tensor], Tensor]
    r"""Takes :math:`u` to :math:`J^T u`."""


class Observation(nn.Module):
    r"""Measurements :math:`y = \mathcal{A}(x_0) + \tau n` with standard normal :math:`n`.

    Arguments:
        operator: The matrix :math:`A`, of shape ``(m, *event)``: each row is shaped like a point.
            Or a differentiable function :math:`\mathcal{A}` of points ``(batch, *event)``, whose
            values of any shape ``(batch, ...)`` are flattened to ``(batch, m)``. Fields of the
            posterior follow its derivative: one that is zero, as of rounded values, leaves the
            prior.
        y: The data: of shape ``(m,)``, or ``(K, m)`` for :math:`K` measurements.
        noise: The standard deviation :math:`\tau` of the noise, in units of ``y``.

    Raises:
        ValueError: If a shape does not fit, the matrix is zero, a number is not a finite
            floating-point number, or the noise is negative; in a call, if the function does not
            give a tensor of values for each point, or a derivative that is needed.

    Example:
        >>> observation = Observation(torch.tensor([[1.0, 0.0]]), torch.tensor([0.7]), noise=0.1)
        >>> posterior = MMPS(field, observation)
    """

    matrix: Tensor | None
    y: Tensor

    def __init__(self, operator: Operator, y: Tensor, noise: float | int) -> None:
        super().__init__()
        check_floating("y", y)
        check_data("y", y.reshape(1, *y.shape))
        check_not_negative("the noise of an observation", noise)
        if y.dim() not in (1, 2):
            raise UserError(f"y has the shape (m,) or (K, m), got {tuple(y.shape)}")
        self.noise = float(noise)
        self.register_buffer("y", y.detach().to(torch.float64))
        self.register_buffer("matrix", None)
        self.function: Callable[[Tensor], Tensor] | None = None
        _check_operator(operator)
        if isinstance(operator, Tensor):
            if len(operator) != y.shape[-1]:
                raise UserError(
                    f"y has {y.shape[-1]} values a point, and the matrix {len(operator)} rows"
                )
            if not bool(operator.any()):
                raise UserError("the matrix of an observation is zero: it measures nothing")
            self.matrix = operator.detach().to(torch.float64)
        else:
            self.function = operator

    @classmethod
    def of(
        cls,
        operator: Operator,
        points: Float[Tensor, "n *event"],
        noise: float | int,
        seed: int = 0,
    ) -> Observation:
        r"""Simulated measurements of points, one of each. The noise of point :math:`k` has the
        address ``("observation", k)``.
        """
        check_data("the points of an observation", points)
        check_not_negative("the noise of an observation", noise)
        _check_operator(operator)
        if isinstance(operator, Tensor):
            _check_event(operator, tuple(points.shape[1:]))
            clean = _times(operator, points)
        else:
            clean = _evaluate(operator, points).detach()
        index = torch.arange(len(points), device=points.device)
        n = Noise(seed).normal("observation", clean.shape[1:], index, dtype=clean.dtype)
        return cls(operator, clean + noise * n, noise)

    @property
    def count(self) -> int | None:
        """The number :math:`K` of measurements; ``None`` for one without a number."""
        return len(self.y) if self.y.dim() == 2 else None

    def values(self, rows: Int[Tensor, " batch"] | None, x: Tensor) -> Float[Tensor, "batch m"]:
        """The data of each row, in the dtype of ``x``. A row that is the number of measurements
        stands for none of them; its data are arbitrary.
        """
        if rows is None:
            return self.y.to(x).expand(len(x), -1)
        assert self.count is not None
        return self.y.to(x)[rows.clamp(max=self.count - 1)]

    def measure(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch m"]:
        r"""The measurements :math:`\mathcal{A}(x)` of points, without noise.

        Raises:
            ValueError: If the function gives values of another number than ``y`` has.
        """
        if self.matrix is not None:
            return _times(self.matrix, x)
        assert self.function is not None
        values = _evaluate(self.function, x)
        if values.shape[1] != self.y.shape[-1]:
            raise UserError(
                f"y has {self.y.shape[-1]} values a point, and the function of the observation "
                f"gave {values.shape[1]}"
            )
        return values

    def linearize(self, x: Float[Tensor, "batch *event"]) -> Linearized:
        """The measurements of points, and their derivative there.

        Raises:
            ValueError: If the values of the function do not depend on the points differentiably.
        """
        if self.matrix is None:

            def back(u: Tensor) -> Tensor:
                return pull(u)[0]

            with differentiable():
                made: tuple[Any, ...] = torch.func.vjp(self._followed, x)
                value, pull = made
                # J v as the derivative of Jᵀ u in u: forward mode does not nest, and may be around.
                turned: tuple[Any, ...] = torch.func.vjp(back, torch.zeros_like(value))
            turn = turned[1]
            return Linearized(value, lambda v: turn(v)[0], back)
        matrix = self.matrix.to(x)
        return Linearized(
            _times(matrix, x),
            lambda v: _times(matrix, v),
            lambda u: (u @ matrix.reshape(len(matrix), -1)).reshape(x.shape),
        )

    def _followed(self, x: Tensor) -> Tensor:
        values = self.measure(x)
        # Its derivative would be zero, and the posterior silently the prior.
        if not values.requires_grad:
            raise UserError(
                "the function of an observation has no derivative: its values are detached from "
                "the points, or are made by operations without one, such as comparisons"
            )
        return values

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises ``ValueError`` unless it measures points of an event shape."""
        if self.matrix is not None:
            _check_event(self.matrix, shape)

    def extra_repr(self) -> str:
        how = "function" if self.matrix is None else f"matrix {tuple(self.matrix.shape)}"
        return f"{how}, y {tuple(self.y.shape)}, noise={self.noise:g}"


def _times(matrix: Tensor, points: Tensor) -> Tensor:
    """The products of a matrix and points, in their dtype."""
    a = matrix.reshape(len(matrix), -1).to(points)
    return points.reshape(len(points), -1) @ a.T


def _check_operator(operator: object) -> None:
    if isinstance(operator, Tensor):
        check_data("the matrix of an observation", operator)
    elif not callable(operator):
        raise UserError(
            f"an observation is made by a matrix or a function, not {kind_of(operator)}"
        )


def _evaluate(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The values of a function, of shape ``(batch, m)``."""
    values = function(x)
    fits = isinstance(values, Tensor) and values.is_floating_point() and values.dim() > 0
    if not (fits and len(values) == len(x) and values.numel()):
        raise UserError(
            "the function of an observation gives floating-point values of each point, of shape "
            f"(batch, ...): for {len(x)} points it gave {kind_of(values)}"
        )
    return values.reshape(len(x), -1)


def _check_event(matrix: Tensor, shape: tuple[int, ...]) -> None:
    if matrix.shape[1:] != shape:
        raise UserError(
            f"a matrix of rows of shape {tuple(matrix.shape[1:])} cannot measure points of shape "
            f"{shape}"
        )

"""Where a regulariser looks: at noised points of the batch, or anywhere on a torus."""

from __future__ import annotations

from typing import Literal, get_args

from jaxtyping import Float, Int
from torch import Tensor

from scorefield.domain import Torus
from scorefield.errors import UserError
from scorefield.fields import ScoreField
from scorefield.noise import Noise

PointLaw = Literal["data", "uniform"]
"""``data`` for noised points of the batch, ``uniform`` for uniform points on the torus, most of
which are where the data never come at little noise."""


def check_points(owner: str, law: str, rows: int) -> None:
    """Raises ``ValueError`` unless the law of the points is known and there is a point."""
    if law not in get_args(PointLaw):
        raise UserError(f"{owner}: points are data or uniform, not {law!r}")
    if rows < 1:
        raise UserError(f"{owner}: rows must be positive, got {rows}")


def draw_points(
    law: PointLaw,
    field: ScoreField,
    noise: Noise,
    purpose: str,
    index: Int[Tensor, "*address"],
    step: int | Tensor,
) -> Float[Tensor, "..."]:
    """What :func:`place_points` makes points of: standard normals, or the points themselves.

    Raises:
        ValueError: If uniform points are asked for in flat space, where there are none.
    """
    if law == "data":
        return noise.normal(purpose, field.domain.shape, index, step)
    if not isinstance(field.domain, Torus):
        raise UserError(f"{purpose}: uniform points need a torus, the field is on {field.domain}")
    return field.domain.uniform(noise, purpose, index, step)


def place_points(
    law: PointLaw,
    field: ScoreField,
    x: Float[Tensor, "rows *event"],
    t: Float[Tensor, " batch"],
    drawn: Float[Tensor, "batch *event"],
) -> Float[Tensor, "batch *event"]:
    """The points at given times.

    Arguments:
        law: Where they lie.
        field: The field, whose process and domain they belong to.
        x: Clean points, at least as many.
        t: Their times.
        drawn: What :func:`draw_points` gave.
    """
    if law == "uniform":
        return drawn
    return field.sde.perturb(x[: len(t)], t, drawn, field.domain)

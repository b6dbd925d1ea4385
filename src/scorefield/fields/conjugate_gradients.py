"""Linear equations of many rows at once, whose matrices are known by their products only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], b: Float[Tensor, "batch m"], iterations: int
) -> Float[Tensor, "batch m"]:
    r"""An approximate solution :math:`u` of :math:`M u = b` for a positive matrix of each row, from
    0, after a number of iterations; exact, up to rounding, after as many as :math:`M` has distinct
    eigenvalues. A row that is solved, or has no positive curvature along a direction, stays.

    References:
        Methods of conjugate gradients for solving linear systems (Hestenes and Stiefel, 1952),
        section 3.
    """
    u, r, p = torch.zeros_like(b), b, b
    square = (r * r).sum(dim=1, keepdim=True)
    # What is left below it is rounding, and its direction arbitrary.
    least = (b.shape[1] * torch.finfo(b.dtype).eps) ** 2 * square
    for _ in range(min(iterations, b.shape[1])):
        image = product(p)
        curvature = (p * image).sum(dim=1, keepdim=True)
        goes = (curvature > 0) & (square > least)
        step = torch.where(goes, square / torch.where(goes, curvature, 1), 0)
        u, r = u + step * p, r - step * image
        before, square = square, (r * r).sum(dim=1, keepdim=True)
        p = r + torch.where(goes, square / torch.where(goes, before, 1), 0) * p
    return u

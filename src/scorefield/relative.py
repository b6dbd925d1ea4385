r"""Particles without their centre of mass: orthonormal coordinates of the space of differences.

Positions :math:`x_1 \dots x_n \in \mathbb{R}^d` whose common translation does not matter have
:math:`(n - 1)\,d` degrees of freedom. Their coordinates here are those of Jacobi for equal masses,
the rows of Helmert's matrix :math:`H`,

.. math:: y_k = \frac{x_1 + \dots + x_k - k\,x_{k+1}}{\sqrt{k (k + 1)}} ,
    \qquad k = 1 \dots n - 1, \qquad H H^T = I, \qquad H \mathbf{1} = 0 .

:math:`y = H x` is an isometry from the positions with mean zero, whose inverse is
:math:`x = H^T y`: distances, volumes, normal noise and log-densities are those of the space without
centre of mass. A rotation acts on :math:`y` as on :math:`x`; a permutation :math:`P` of the
particles acts as the orthogonal matrix :math:`H P H^T`.

References:
    The Helmert matrices (Lancaster, 1965), equation 1.

    Equivariant flows: exact likelihood generative learning for symmetric densities (Köhler, Klein
    and Noé, 2020), section 5.2, for densities on the space without centre of mass.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.checks import check_count, check_floating
from scorefield.errors import UserError


def relative_coordinates(positions: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch k d"]:
    r"""The relative coordinates :math:`y = H x` of positions; where the centre of mass was is lost.

    Raises:
        ValueError: If the positions are not floating-point numbers of at least two particles.
    """
    check_floating("positions", positions)
    if positions.dim() < 2 or positions.shape[-2] < 2:
        raise UserError(
            "positions must have a shape (…, particles, dimensions) with at least two particles, "
            f"got {tuple(positions.shape)}"
        )
    return helmert(positions.shape[-2], positions) @ positions


def particle_positions(relative: Float[Tensor, "*batch k d"]) -> Float[Tensor, "*batch n d"]:
    r"""The positions :math:`x = H^T y` of relative coordinates, whose centre of mass is zero.

    Raises:
        ValueError: If the coordinates are not floating-point numbers of at least one difference.
    """
    check_floating("relative coordinates", relative)
    if relative.dim() < 2 or relative.shape[-2] < 1:
        raise UserError(
            "relative coordinates must have a shape (…, particles - 1, dimensions), got "
            f"{tuple(relative.shape)}"
        )
    return helmert(relative.shape[-2] + 1, relative).T @ relative


def helmert(n: int, like: Tensor) -> Float[Tensor, "k n"]:
    """The matrix :math:`H` of ``n`` particles, in the dtype and on the device of a tensor."""
    # A graph holds what it needs, and cannot look into a cache.
    table = _table if torch.compiler.is_compiling() else _kept_table
    return table(n, like.dtype, like.device)


def _table(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    check_count("the number of particles", n, 2)
    # The first to ask may do so in inference mode, the next may need a gradient.
    with torch.inference_mode(False):
        k = torch.arange(1, n, dtype=torch.float64, device="cpu").unsqueeze(1)
        place = torch.arange(n, dtype=torch.float64, device="cpu")
        rows = (place < k).double() - k * (place == k).double()
        return (rows / (k * (k + 1)).sqrt()).to(device, dtype)


_kept_table = lru_cache(maxsize=64)(_table)

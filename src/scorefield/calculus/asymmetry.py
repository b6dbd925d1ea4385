r"""How far a Jacobian is from symmetric.

A field is a gradient on a simply connected domain if and only if its Jacobian :math:`J` is
symmetric everywhere. The *asymmetry* is

.. math:: \|J - J^\top\|_F^2
    = \mathbb{E}_v \|J v - J^\top v\|^2
    = 2\,\mathbb{E}_v \big( \|J^\top v\|^2 - \langle J v, J^\top v\rangle \big)

for probes with :math:`\mathbb{E}\,v v^\top = I`, and the *relative asymmetry*
:math:`\|J - J^\top\|_F / (2 \|J\|_F)` lies between 0 (a gradient) and 1 (a rotation).

References:
    Quasi-conservative score-based generative models (Chao et al., 2023), equations 9 and 12.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from scorefield.calculus.derivatives import VectorField, jvp_vjp
from scorefield.errors import UserError

Variant = Literal["difference", "trace"]


def exact_asymmetry(
    jacobian: Float[Tensor, "batch dim dim"],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    r"""The squared norms :math:`\|J - J^\top\|_F^2` and :math:`\|J\|_F^2` of each row."""
    skew = jacobian - jacobian.mT
    return skew.square().sum(dim=(1, 2)), jacobian.square().sum(dim=(1, 2))


def probed_asymmetry(
    fn: VectorField,
    x: Float[Tensor, "batch *event"],
    t: Float[Tensor, " batch"],
    v: Float[Tensor, "batch *event"],
    variant: Variant = "difference",
    classes: Int[Tensor, " batch"] | None = None,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    r"""Unbiased estimates of :math:`\|J - J^\top\|_F^2` and :math:`\|J\|_F^2` from one probe a row.

    The latter is :math:`\frac12(\|Jv\|^2 + \|J^\top v\|^2)`, so that with ``difference`` the first
    never exceeds four times the second.

    Arguments:
        v: The probes, with :math:`\mathbb{E}\,v v^\top = I`.
        variant: ``difference`` for :math:`\|Jv - J^\top v\|^2`, which is never negative;
            ``trace`` for :math:`2(\|J^\top v\|^2 - \langle Jv, J^\top v\rangle)`.
    """
    forward, backward = (p.reshape(x.shape[0], -1) for p in jvp_vjp(fn, x, t, v, classes))
    norm = 0.5 * (forward.square() + backward.square()).sum(dim=1)
    match variant:
        case "difference":
            return (forward - backward).square().sum(dim=1), norm
        case "trace":
            square = backward.square().sum(dim=1) - (forward * backward).sum(dim=1)
            return 2 * square, norm
        case _:
            raise UserError(f"asymmetry is estimated by difference or trace, not {variant!r}")


def per_coordinate(
    square: Float[Tensor, " batch"], sigma: Float[Tensor, " batch"], dim: int
) -> Float[Tensor, " batch"]:
    r"""A squared asymmetry of the score without its units: :math:`\sigma^4 \|\cdot\|^2 / D`.

    The Jacobian of a score scales with :math:`\sigma^{-2}` and a squared Frobenius norm with
    :math:`D`; what is left is comparable between noise levels and dimensions.
    """
    return square * sigma**4 / dim

r"""Derivatives of vector fields in :math:`x`.

:math:`J = \partial f / \partial x` is the Jacobian of one row, :math:`D \times D` after
flattening. All results are differentiable in whatever ``fn`` depends on if gradients are enabled;
under ``torch.no_grad`` they carry no graph. Fused attention supports neither forward mode nor
double backward, so everything here runs inside :func:`~scorefield.fields.gradient.differentiable`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import forward_ad

from scorefield.errors import UserError
from scorefield.fields.classes import classes_at
from scorefield.fields.gradient import differentiable

VectorField = Callable[..., Tensor]
"""A function ``fn(x, t)`` of points and times, or ``fn(x, t, classes)``."""

_ROWS = 16
_ENTRIES = 1 << 14
"""The smallest number of rows, or entries, of a Jacobian computed at once: large networks gain
nothing from more, and for small ones fewer cost the overhead of a call."""


def evaluate(fn: VectorField, x: Tensor, t: Tensor, classes: Tensor | None) -> Tensor:
    """A vector field at points, which is given the classes where there are any."""
    return fn(x, t) if classes is None else fn(x, t, classes)


def jvp(
    fn: VectorField,
    x: Float[Tensor, "batch *event"],
    t: Float[Tensor, " batch"],
    v: Float[Tensor, "batch *event"],
    classes: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch *event"]:
    """The product :math:`J v`, by forward mode."""
    keep = torch.is_grad_enabled()
    # A field that is itself a gradient is differentiable in forward mode only through
    # the formulas that autograd uses while gradients are enabled.
    with differentiable(), torch.enable_grad(), forward_ad.dual_level():
        value, tangent = forward_ad.unpack_dual(
            evaluate(fn, forward_ad.make_dual(x, v), t, classes)
        )
        product = torch.zeros_like(value) if tangent is None else tangent
    return product if keep else product.detach()


def vjp(
    fn: VectorField,
    x: Float[Tensor, "batch *event"],
    t: Float[Tensor, " batch"],
    v: Float[Tensor, "batch *event"],
    classes: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch *event"]:
    r"""The product :math:`J^\top v`, by reverse mode."""
    keep = torch.is_grad_enabled()
    with differentiable(), torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        (product,) = torch.autograd.grad(evaluate(fn, x, t, classes), x, v, create_graph=keep)
    return product


def jvp_vjp(
    fn: VectorField,
    x: Float[Tensor, "batch *event"],
    t: Float[Tensor, " batch"],
    v: Float[Tensor, "batch *event"],
    classes: Int[Tensor, " batch"] | None = None,
) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, "batch *event"]]:
    r"""The products :math:`J v` and :math:`J^\top v` from one evaluation of ``fn``: forward mode
    carries :math:`v` along, reverse mode runs back over the same values.
    """
    keep = torch.is_grad_enabled()
    # Gradients stay enabled throughout, for the reason given in `jvp`.
    with differentiable(), torch.enable_grad(), forward_ad.dual_level():
        x = x if x.requires_grad else x.detach().requires_grad_()
        value, tangent = forward_ad.unpack_dual(
            evaluate(fn, forward_ad.make_dual(x, v), t, classes)
        )
        (backward,) = torch.autograd.grad(value, x, v, create_graph=True)
        forward = torch.zeros_like(value) if tangent is None else tangent
    return (forward, backward) if keep else (forward.detach(), backward.detach())


def jacobian(
    fn: VectorField,
    x: Float[Tensor, "batch *event"],
    t: Float[Tensor, " batch"],
    rows: int | None = None,
    classes: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch dim dim"]:
    r"""The exact Jacobians :math:`J_{ij} = \partial f_i / \partial x_j`, without a graph.

    A point is repeated as often as ``rows`` allows, ``fn`` is evaluated there once, and each pass
    back through these values gives as many rows of :math:`J`, so that :math:`D` rows cost :math:`D`
    backward passes and few forward.

    Arguments:
        rows: The largest number of rows in one evaluation of ``fn``, which bounds the memory
            beyond that of the result; :math:`2^{14} / D`, at least 16, if not given.
    """
    dim = x.shape[1:].numel()
    rows = max(_ROWS, _ENTRIES // dim) if rows is None else rows
    if rows < 1:
        raise UserError(f"a Jacobian takes at least one row at a time, got {rows}")
    result = x.new_zeros(x.shape[0], dim, dim)
    with differentiable(), torch.enable_grad():
        for start in range(0, len(x), rows):
            some = slice(start, start + rows)
            copies = max(1, rows // len(x[some]))
            _fill(result[some], fn, x[some].detach(), t[some], classes_at(classes, some), copies)
    return result


def _fill(
    block: Tensor, fn: VectorField, x: Tensor, t: Tensor, classes: Tensor | None, copies: int
) -> None:
    """Writes the Jacobians of a few points, ``copies`` rows of each at a time."""
    batch, dim, _ = block.shape
    passes = -(-dim // copies)
    copies = -(-dim // passes)
    again = torch.arange(batch, device=x.device).repeat(copies)
    x = x[again].requires_grad_()
    value = evaluate(fn, x, t[again], classes_at(classes, again))
    if not value.requires_grad:
        return
    basis = torch.eye(dim, dtype=value.dtype, device=x.device)
    for start in range(0, dim, copies):
        unit = basis[start : start + copies]
        chosen = value.new_zeros(copies, batch, dim)
        chosen[: len(unit)] = unit.unsqueeze(1)
        (product,) = torch.autograd.grad(
            value,
            x,
            chosen.reshape(value.shape),
            retain_graph=start + copies < dim,
            materialize_grads=True,
        )
        product = product.reshape(copies, batch, dim)[: len(unit)]
        block[:, start : start + len(unit)] = product.transpose(0, 1)

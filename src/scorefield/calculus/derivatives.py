r"""Derivatives of vector fields in :math:`x`.

:math:`J = \partial f / \partial x` is the Jacobian of one row, :math:`D \times D` after
flattening. All results are differentiable in whatever ``fn`` depends on if gradients are enabled;
under ``torch.no_grad`` and ``torch.inference_mode`` they carry no graph. Fused attention supports
neither forward mode nor double backward, so everything here runs inside :func:`~.differentiable`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import forward_ad

from scorefield.checks import check_count, check_floating
from scorefield.fields.classes import classes_at
from scorefield.fields.forms import Times
from scorefield.fields.gradient import differentiable, outside_inference
from scorefield.fields.inputs import check_number

VectorField = Callable[..., Tensor]
"""A function ``fn(x, t)`` of points and times, or ``fn(x, t, classes)``."""

_LEAST = 16
_ENTRIES = 1 << 14
"""The smallest number of rows, or entries, of a Jacobian computed at once: large networks gain
nothing from more, and for small ones fewer cost the overhead of a call."""
_MANY_ENTRIES = 1 << 19
"""The entries at once on a GPU, which few rows leave idle."""
_ROWS = 256
"""The number of rows evaluated at once if there are fewer points: in small batches the overhead
of a pass exceeds its arithmetic."""


def evaluate(fn: VectorField, x: Tensor, t: Tensor, classes: Tensor | None) -> Tensor:
    """A vector field at points, which is given the classes where there are any."""
    return fn(x, t) if classes is None else fn(x, t, classes)


@outside_inference
def jvp(
    fn: VectorField,
    x: Float[Tensor, "batch *event"],
    t: Float[Tensor, " batch"],
    v: Float[Tensor, "batch *event"],
    classes: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch *event"]:
    """The product :math:`J v`, by forward mode."""
    check_floating("x", x)
    keep = torch.is_grad_enabled()
    # A field that is itself a gradient is differentiable in forward mode only through
    # the formulas that autograd uses while gradients are enabled.
    with differentiable(), torch.enable_grad(), forward_ad.dual_level():
        value, tangent = forward_ad.unpack_dual(
            evaluate(fn, forward_ad.make_dual(x, v), t, classes)
        )
        product = torch.zeros_like(value) if tangent is None else tangent
    return product if keep else product.detach()


@outside_inference
def vjp(
    fn: VectorField,
    x: Float[Tensor, "batch *event"],
    t: Float[Tensor, " batch"],
    v: Float[Tensor, "batch *event"],
    classes: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch *event"]:
    r"""The product :math:`J^\top v`, by reverse mode."""
    check_floating("x", x)
    keep = torch.is_grad_enabled()
    with differentiable(), torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        (product,) = torch.autograd.grad(evaluate(fn, x, t, classes), x, v, create_graph=keep)
    return product


@outside_inference
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
    # Gradients stay enabled for the reason given in `jvp`. The way back is outside the level, where
    # it does not carry tangents along.
    with differentiable(), torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        with forward_ad.dual_level():
            value, tangent = forward_ad.unpack_dual(
                evaluate(fn, forward_ad.make_dual(x, v), t, classes)
            )
            forward = torch.zeros_like(value) if tangent is None else tangent
        (backward,) = torch.autograd.grad(value, x, v, create_graph=keep)
    return (forward, backward) if keep else (forward.detach(), backward.detach())


def jacobian(
    fn: VectorField,
    x: Float[Tensor, "batch *event"],
    t: Times,
    rows: int | None = None,
    classes: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch dim dim"]:
    r"""The exact Jacobians :math:`J_{ij} = \partial f_i / \partial x_j`, without a graph.

    A point is repeated as often as ``rows`` allows, ``fn`` is evaluated there once, and each pass
    back through these values gives as many rows of :math:`J`, so that :math:`D` rows cost :math:`D`
    backward passes and few forward.

    Arguments:
        t: The time of each point, or one time for all.
        rows: The largest number of rows in one evaluation of ``fn``, which bounds the memory
            beyond that of the result; :math:`2^{14} / D`, on a GPU :math:`2^{19} / D`, at least 16,
            if not given.
    """
    check_floating("x", x)
    check_number(t, len(x))
    # In its own dtype, which may be finer than that of the points.
    t = (t if isinstance(t, Tensor) else x.new_full((), t)).reshape(-1).expand(len(x))
    dim = x.shape[1:].numel()
    if rows is None:
        entries = _ENTRIES if x.device.type == "cpu" else _MANY_ENTRIES
        rows = max(_LEAST, entries // dim)
    check_count("rows", rows)
    result = x.new_empty(x.shape[0], dim, dim)
    for start in range(0, len(x), rows):
        some = slice(start, start + rows)
        passes = -(-dim // max(1, rows // len(x[some])))
        vectors, known = basis(x[some]), classes_at(classes, some)
        _, products = value_and_products(fn, x[some], t[some], vectors, known, -(-dim // passes))
        result[some] = products.reshape(dim, -1, dim).transpose(0, 1)
    return result


@outside_inference
def value_and_products(
    fn: VectorField,
    x: Float[Tensor, "batch *event"],
    t: Float[Tensor, " batch"],
    v: Float[Tensor, "vectors batch *event"],
    classes: Int[Tensor, " batch"] | None = None,
    copies: int | None = None,
) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, "vectors batch *event"]]:
    r"""The vectors :math:`f(x)`, and the products :math:`J^\top v` of their Jacobians.

    ``fn`` is evaluated at each point once, and each product is a pass back through that evaluation;
    points are repeated ``copies`` times, by default where they are few, so that one pass serves
    several products.
    """
    count, batch = v.shape[:2]
    copies = min(count, copies or max(1, _ROWS // max(1, batch)))
    products = torch.zeros_like(v, memory_format=torch.contiguous_format)
    with differentiable(), torch.enable_grad():
        again = torch.arange(batch, device=x.device).repeat(copies)
        points = x.detach()[again].requires_grad_()
        value = evaluate(fn, points, t[again], classes_at(classes, again))
        for start in range(0, count if value.requires_grad else 0, copies):
            some = v[start : start + copies]
            rest = v.new_zeros(copies - len(some), *v.shape[1:])
            (product,) = torch.autograd.grad(
                value,
                points,
                torch.cat((some, rest)).reshape(points.shape),
                retain_graph=start + copies < count,
                materialize_grads=True,
            )
            product = product.reshape(copies, *v.shape[1:])
            products[start : start + copies] = product[: len(some)]
    return value[:batch].detach(), products


def basis(x: Float[Tensor, "batch *event"]) -> Float[Tensor, "dim batch *event"]:
    """The unit vectors, for each point; their forms add up to the exact trace."""
    dim = x.shape[1:].numel()
    unit = torch.eye(dim, dtype=x.dtype, device=x.device)
    return unit.reshape(dim, 1, *x.shape[1:]).expand(dim, *x.shape)

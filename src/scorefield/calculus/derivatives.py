r"""Derivatives of vector fields in :math:`x`.

Throughout, ``fn`` is a field in one of its forms (``field.score``, ``field.denoise``, …): it maps
points of shape :math:`(batch, *event)` and times of shape :math:`(batch)` to vectors of the
shape of the points, each row on its own. :math:`J = \partial f / \partial x` is the Jacobian of
one row, :math:`D \times D` after flattening.

All results are differentiable in whatever ``fn`` depends on if gradients are enabled; under
``torch.no_grad`` they carry no graph. Fused attention supports neither forward mode nor double
backward, so everything here runs inside :func:`differentiable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

VectorField = Callable[[Tensor, Tensor], Tensor]


@contextmanager
def differentiable() -> Iterator[None]:
    """Makes attention differentiable in forward mode and twice in reverse mode."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def jvp(
    fn: VectorField,
    x: Float[Tensor, "batch *event"],
    t: Float[Tensor, " batch"],
    v: Float[Tensor, "batch *event"],
) -> Float[Tensor, "batch *event"]:
    r"""The product :math:`J v`, by forward mode.

    Arguments:
        fn: The vector field.
        x: The points.
        t: Their times.
        v: The tangents.
    """
    keep = torch.is_grad_enabled()
    # A field that is itself a gradient is differentiable in forward mode only through
    # the formulas that autograd uses while gradients are enabled.
    with differentiable(), torch.enable_grad(), forward_ad.dual_level():
        value, tangent = forward_ad.unpack_dual(fn(forward_ad.make_dual(x, v), t))
        product = torch.zeros_like(value) if tangent is None else tangent
    return product if keep else product.detach()


def vjp(
    fn: VectorField,
    x: Float[Tensor, "batch *event"],
    t: Float[Tensor, " batch"],
    v: Float[Tensor, "batch *event"],
) -> Float[Tensor, "batch *event"]:
    r"""The product :math:`J^\top v`, by reverse mode; arguments as for :func:`jvp`."""
    keep = torch.is_grad_enabled()
    with differentiable(), torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        (product,) = torch.autograd.grad(fn(x, t), x, v, create_graph=keep)
    return product


def jvp_vjp(
    fn: VectorField,
    x: Float[Tensor, "batch *event"],
    t: Float[Tensor, " batch"],
    v: Float[Tensor, "batch *event"],
) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, "batch *event"]]:
    r"""The products :math:`J v` and :math:`J^\top v` from one evaluation of ``fn``.

    Forward mode carries :math:`v` along, reverse mode runs back over the same values; arguments
    as for :func:`jvp`.
    """
    keep = torch.is_grad_enabled()
    # Gradients stay enabled throughout, for the reason given in `jvp`.
    with differentiable(), torch.enable_grad(), forward_ad.dual_level():
        x = x if x.requires_grad else x.detach().requires_grad_()
        value, tangent = forward_ad.unpack_dual(fn(forward_ad.make_dual(x, v), t))
        (backward,) = torch.autograd.grad(value, x, v, create_graph=True)
        forward = torch.zeros_like(value) if tangent is None else tangent
    return (forward, backward) if keep else (forward.detach(), backward.detach())


def jacobian(
    fn: VectorField,
    x: Float[Tensor, "batch *event"],
    t: Float[Tensor, " batch"],
    rows: int = 256,
) -> Float[Tensor, "batch dim dim"]:
    r"""The exact Jacobians :math:`J_{ij} = \partial f_i / \partial x_j`, without a graph.

    Columns are computed by forward mode, as many at once as fit in ``rows`` evaluations.

    Arguments:
        fn: The vector field.
        x: The points.
        t: Their times.
        rows: The largest number of rows in one evaluation of ``fn``, which bounds the memory
            (one column takes ``batch`` rows, however small ``rows`` is).
    """
    batch, event = x.shape[0], x.shape[1:]
    dim = event.numel()
    basis = torch.eye(dim, dtype=x.dtype, device=x.device)
    columns = []
    with torch.no_grad():
        for v in basis.split(max(1, rows // max(batch, 1))):
            k = v.shape[0]
            points = x.unsqueeze(0).expand(k, batch, *event).flatten(0, 1)
            tangents = v.reshape(k, 1, *event).expand(k, batch, *event).flatten(0, 1)
            product = jvp(fn, points, t.repeat(k), tangents.contiguous())
            columns.append(product.reshape(k, batch, dim))
    return torch.cat(columns).permute(1, 2, 0).contiguous()

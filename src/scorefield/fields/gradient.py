"""Differentiation at any depth: the context that allows it, and the gradient of a scalar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

_differentiable = False


@contextmanager
def differentiable() -> Iterator[None]:
    """Evaluate fields and networks with operations that have derivatives of every kind: second
    derivatives, forward mode and the transforms of ``torch.func``.

    Outside of the context the fastest operations are taken: fused attention has first derivatives
    only, group normalisation no forward mode where channels come last in memory, and the gradient
    of a potential is not a transform of ``torch.func``. The context holds for the whole process.
    """
    global _differentiable
    before, _differentiable = _differentiable, True
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        _differentiable = before


def is_differentiable() -> bool:
    """Whether the caller is inside of :func:`differentiable`."""
    return _differentiable


def gradient(
    scalar: Callable[[Tensor], Tensor], u: Float[Tensor, "batch *event"]
) -> Float[Tensor, "batch *event"]:
    r"""The gradient :math:`\nabla_u \psi(u)` of a scalar of each row.

    It works under ``torch.no_grad``, but not under ``torch.inference_mode``; where gradients are
    enabled it can itself be differentiated. Transforms of ``torch.func`` need
    :func:`differentiable`. The caller must not use ``u`` elsewhere, since it may be set to require
    a gradient.
    """
    if _differentiable:
        # It always records a graph, for which sampling has no use.
        return torch.func.grad(lambda v: scalar(v).sum())(u)
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        if not u.requires_grad:
            u = u.requires_grad_()
        (slope,) = torch.autograd.grad(scalar(u).sum(), u, create_graph=create_graph)
    return slope

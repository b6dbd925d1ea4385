"""The gradient of a scalar, at any depth of differentiation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def gradient(
    scalar: Callable[[Tensor], Tensor], u: Float[Tensor, "batch *event"]
) -> Float[Tensor, "batch *event"]:
    r"""The gradient :math:`\nabla_u \psi(u)` of a scalar of each row.

    It works under ``torch.no_grad`` and the transforms of ``torch.func``, but not under
    ``torch.inference_mode``; where gradients are enabled it can itself be differentiated.

    Arguments:
        scalar: The function :math:`\psi`, from rows to a number each.
        u: The rows: a tensor that nobody else holds, since it may be made to ask for a gradient.
    """
    if torch._C._are_functorch_transforms_active():
        # Inside torch.func a tensor cannot ask for a gradient; outside, torch.func.grad would
        # record a graph that sampling has no use for.
        return torch.func.grad(lambda v: scalar(v).sum())(u)
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        if not u.requires_grad:
            u = u.requires_grad_()
        (slope,) = torch.autograd.grad(scalar(u).sum(), u, create_graph=create_graph)
    return slope

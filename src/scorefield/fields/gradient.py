"""Differentiation at any depth: the context that allows it, the gradient of a scalar, and products
with the transposed Jacobian of a field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scorefield.engine import exact, recomputing
from scorefield.switches import ProcessWide

P = ParamSpec("P")
T = TypeVar("T")

_differentiable = False


@contextmanager
def _transformable() -> Iterator[None]:
    global _differentiable
    _differentiable = True
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        _differentiable = False


_plain = ProcessWide(_transformable)


@contextmanager
def differentiable() -> Iterator[None]:
    """Evaluate fields and networks with operations that have derivatives of every kind: second
    derivatives, forward mode and the transforms of ``torch.func``; they are :func:`~.exact` too.

    Outside of the context the fastest operations are taken: fused attention has first derivatives
    only, group normalisation no forward mode where channels come last in memory, the gradient
    of a potential is not a transform of ``torch.func``, and a compiled network has first
    derivatives only. The context holds for the whole process, until the last of its threads has
    left it.
    """
    with exact(), _plain:
        yield


def is_differentiable() -> bool:
    """Whether the caller is inside of :func:`differentiable`."""
    return _differentiable


def outside_inference(function: Callable[P, T]) -> Callable[P, T]:
    """A function that differentiates, made to work under ``torch.inference_mode``: there it is
    called outside of it, with copies of its tensors, and without recording gradients.
    """

    @wraps(function)
    def call(*given: P.args, **named: P.kwargs) -> T:
        if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
            return function(*given, **named)
        with torch.inference_mode(False), torch.no_grad():
            copies: Any = tuple(_recordable(value) for value in given)
            others: Any = {name: _recordable(value) for name, value in named.items()}
            return function(*copies, **others)

    return call


def _recordable(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def _attention() -> AbstractContextManager[None]:
    """Attention with second derivatives, wherever gradients are enabled."""
    if torch.is_grad_enabled():
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


@outside_inference
def gradient(
    scalar: Callable[..., Tensor], u: Float[Tensor, "batch *event"], *others: Tensor | None
) -> Float[Tensor, "batch *event"]:
    r"""The gradient :math:`\nabla_u \psi(u)` of a scalar of each row; ``others`` are what else it
    is a function of.

    It works under ``torch.no_grad`` and ``torch.inference_mode``; where gradients are enabled it
    can itself be differentiated. Transforms of ``torch.func`` need :func:`differentiable`. The
    caller must not use ``u`` elsewhere, since it may be set to require a gradient.
    """
    # What a second derivative keeps is not what a block would compute again.
    if _differentiable or torch.compiler.is_compiling():
        # It always records a graph, for which eager sampling has no use.
        with _attention(), recomputing(False):
            return torch.func.grad(lambda v: scalar(v, *others).sum())(u)
    create_graph = torch.is_grad_enabled()
    with _attention(), recomputing(False), torch.enable_grad():
        if not u.requires_grad:
            u = u.requires_grad_()
        (slope,) = torch.autograd.grad(scalar(u, *others).sum(), u, create_graph=create_graph)
    return slope


def pullback(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], x: Float[Tensor, "batch *event"]
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    r"""The two values of a function of rows, and the products :math:`J^T v` with the Jacobian of
    the first, each of which is a pass back through the one evaluation.

    What is said of :func:`gradient` about contexts holds here too; the caller is
    :func:`outside_inference` as long as it takes products.
    """
    if _differentiable or torch.compiler.is_compiling():
        with _attention(), recomputing(False):
            made: tuple[Any, ...] = torch.func.vjp(function, x, has_aux=True)
        value, pull, other = made
        return value, other, lambda v: pull(v)[0]
    create_graph = torch.is_grad_enabled()
    with _attention(), recomputing(False), torch.enable_grad():
        u = x if x.requires_grad else x.detach().requires_grad_()
        value, other = function(u)

    def product(v: Tensor) -> Tensor:
        with _attention(), recomputing(False):
            return torch.autograd.grad(value, u, v, retain_graph=True, create_graph=create_graph)[0]

    if create_graph:
        return value, other, product
    return value.detach(), other.detach(), product

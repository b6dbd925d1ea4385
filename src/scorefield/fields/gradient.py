"""Differentiation at any depth: the context that allows it, and the gradient of a scalar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from threading import Lock
from typing import Any, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

P = ParamSpec("P")
T = TypeVar("T")

_differentiable = False
_holders = 0
_lock = Lock()
_attention = ExitStack()


@contextmanager
def differentiable() -> Iterator[None]:
    """Evaluate fields and networks with operations that have derivatives of every kind: second
    derivatives, forward mode and the transforms of ``torch.func``.

    Outside of the context the fastest operations are taken: fused attention has first derivatives
    only, group normalisation no forward mode where channels come last in memory, and the gradient
    of a potential is not a transform of ``torch.func``. The context holds for the whole process,
    until the last of its threads has left it.
    """
    global _differentiable, _holders
    with _lock:
        _holders += 1
        if _holders == 1:
            _differentiable = True
            _attention.enter_context(sdpa_kernel(SDPBackend.MATH))
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                _differentiable = False
                _attention.close()


def is_differentiable() -> bool:
    """Whether the caller is inside of :func:`differentiable`."""
    return _differentiable


def outside_inference(function: Callable[P, T]) -> Callable[P, T]:
    """A function that differentiates, made to work under ``torch.inference_mode``: there it is
    called outside of it, with copies of its tensors, and without recording gradients.
    """

    @wraps(function)
    def call(*given: P.args, **named: P.kwargs) -> T:
        if not torch.is_inference_mode_enabled():
            return function(*given, **named)
        with torch.inference_mode(False), torch.no_grad():
            copies: Any = tuple(_recordable(value) for value in given)
            others: Any = {name: _recordable(value) for name, value in named.items()}
            return function(*copies, **others)

    return call


def _recordable(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


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
    if _differentiable:
        # It always records a graph, for which sampling has no use.
        return torch.func.grad(lambda v: scalar(v, *others).sum())(u)
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        if not u.requires_grad:
            u = u.requires_grad_()
        (slope,) = torch.autograd.grad(scalar(u, *others).sum(), u, create_graph=create_graph)
    return slope

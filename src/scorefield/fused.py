"""Functions of many operations on each number, computed by few kernels of a CUDA device.

A kernel for every operation writes and reads all numbers some hundred times. The compiled function
does the same operations, each rounded as before: products and sums are not contracted, and the
result is the same, bit-exact.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from scorefield.engine import allow_graphs, exact

# Below, compilation takes longer than all draws of a run.
_WORTH = 2**16


def fused(function: Callable[..., Tensor], size: int, *inputs: Any) -> Tensor:
    """A function of tensors, tuples of integers and constants; on a CUDA device, if its result has
    many numbers, by its compiled form.

    Arguments:
        function: The function.
        size: About how many numbers the result has.
        inputs: Its arguments. From call to call, tensors may differ in their first dimension, and
            integers in a tuple, which become a tensor of the compiled form; constants seldom do.
    """
    device = next(i.device for i in inputs if isinstance(i, Tensor))
    if device.type != "cuda" or size < _WORTH or torch.compiler.is_compiling():
        return function(*inputs)
    return compiled(function)(*inputs)


@cache
def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The compiled form of a function, called in one and the same state of torch whatever the
    context, since each state would take a graph of its own.
    """
    allow_graphs()
    # Under this option, made for half precision, no product and sum become one operation.
    options = {"emulate_precision_casts": True}
    graph = torch.compile(function, fullgraph=True, options={**options})

    def call(*inputs: Any) -> Tensor:
        device = next(i.device for i in inputs if isinstance(i, Tensor))
        inputs = tuple(_filled(i, device) if isinstance(i, tuple) else i for i in inputs)
        for tensor in inputs:
            if isinstance(tensor, Tensor):
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        with exact(), torch.no_grad(), torch.compiler.set_stance("default"):
            return graph(*inputs)

    return call


def _filled(integers: tuple[int, ...], device: torch.device) -> Tensor:
    # A copy would be waited for.
    return torch.stack([torch.full((), each, device=device) for each in integers])

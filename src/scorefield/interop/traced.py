"""Gradients as plain operations: the graph of a function that differentiates, for batches of any
size.

Exporters know no automatic differentiation. A function is traced once on numbers that stand for
all others; what autograd does becomes part of its graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from scorefield.fields.gradient import differentiable

_ATEN = torch.ops.aten


def traced(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> GraphModule:
    """The graph of a function of tensors whose first axis is a batch, with its gradients.

    Arguments:
        function: The function.
        inputs: Tensors of a batch whose size is that of no other axis, since equal sizes are taken
            for one.
    """
    known = torch.export.default_decompositions().items()
    table: dict[Any, Any] = {op: make for op, make in known if "backward" in str(op)}
    table |= _SLOPES
    with differentiable(), torch.no_grad(), _compiling():
        graph: GraphModule = make_fx(
            function,
            decomposition_table=table,
            tracing_mode="symbolic",
            _allow_non_fake_inputs=True,
        )(*inputs)
    return graph.eval()


@contextmanager
def _compiling() -> Iterator[None]:
    """Code that is traced takes the paths of code that is compiled: as in ``torch.export``."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


def _of_convolution(
    slope: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    wanted: list[bool],
) -> tuple[Tensor | None, None, None]:
    """In the input: a transposed convolution; of a transposed one, a convolution."""
    if not wanted[0]:
        return None, None, None
    extra = [0] * len(stride)
    if not transposed:
        axes = zip(x.shape[2:], slope.shape[2:], weight.shape[2:], stride, padding, dilation,
                   strict=True)  # fmt: skip
        extra = [n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, k, s, p, d in axes]
    found: Tensor = _ATEN.convolution(
        slope, weight, None, stride, padding, dilation, not transposed, extra, groups
    )
    return found, None, None


def _of_mean(
    slope: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    *_: object,
) -> Tensor:
    """Each pixel's share of a mean over blocks that tile an image."""
    if (stride or kernel) != kernel or any(padding):
        raise NotImplementedError("the gradient of a mean over blocks that overlap")
    for axis, size in zip((-2, -1), kernel, strict=True):
        slope = slope.repeat_interleave(size, axis)
    return slope / (kernel[0] * kernel[1])


def _of_repetition(slope: Tensor, output: list[int], x: list[int], *_: object) -> Tensor:
    """The sum over the copies of each pixel."""
    n, channels, height, width = x
    blocks = slope.reshape(n, channels, height, output[0] // height, width, output[1] // width)
    return blocks.sum((3, 5))


_SLOPES = {
    _ATEN.convolution_backward.default: _of_convolution,
    _ATEN.avg_pool2d_backward.default: _of_mean,
    _ATEN.upsample_nearest2d_backward.default: _of_repetition,
    # Its nodes would have the name of an input, the time.
    _ATEN.t.default: lambda x: _ATEN.permute(x, [1, 0]),
}
"""The derivatives that have no decomposition, as operations that exporters know."""

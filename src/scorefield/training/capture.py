"""Functions of tensors, captured in a CUDA graph and replayed.

A small network's step is hundreds of kernels of microseconds, each launched by the host; a graph
launches them at once. What is captured reads and writes the same memory at each replay: the
function must find all that changes in its inputs, or in tensors that stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_WARM = 3


class Captured:
    """A function that is called as it is three times, on a stream of its own, then captured, and
    replayed from then on.

    Arguments:
        function: From tensors of fixed shapes, some of which may always be ``None``, to named
            tensors, without waiting for the device.
    """

    def __init__(self, function: Callable[..., dict[str, Tensor]]) -> None:
        self._function = function
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor | None] = []
        self._outputs: dict[str, Tensor] = {}

    def __call__(self, *inputs: Tensor | None) -> dict[str, Tensor]:
        """What the function returns.

        Raises:
            RuntimeError: If the function does what cannot be captured.
        """
        if self._calls < _WARM:
            self._calls += 1
            return self._beside(*inputs)
        if self._graph is None:
            self._capture(*inputs)
            assert self._graph is not None
        for own, given in zip(self._inputs, inputs, strict=True):
            if own is not None and given is not None:
                own.copy_(given)
        self._graph.replay()
        # The next replay overwrites them.
        return {name: value.clone() for name, value in self._outputs.items()}

    def _beside(self, *inputs: Tensor | None) -> dict[str, Tensor]:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs = self._function(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return outputs

    def _capture(self, *inputs: Tensor | None) -> None:
        """Captures the function, which computes nothing yet."""
        self._inputs = [None if given is None else given.clone() for given in inputs]
        graph = torch.cuda.CUDAGraph()
        # Other threads may pin memory meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._outputs = self._function(*self._inputs)
        self._graph = graph

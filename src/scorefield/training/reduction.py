"""The sum of gradients over processes, begun while the rest of them is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor
from torch.nn import Parameter

from scorefield.world import World

_PIECE = 25_000_000  # bytes


class Reduction:
    """Sums a vector that the gradients of all parameters are parts of, in consecutive pieces.

    Gradients come about from the last parameter to the first. During the last backward pass of a
    step, a piece is sent as soon as all of its parameters have theirs, in the same order in all
    processes; what is left is sent after it: the piece of the first parameters, and those of which
    some parameters have none. torch's ``DistributedDataParallel`` does so around a forward pass,
    whose terms of second order it does not see.

    Arguments:
        parameters: The parameters.
        gradient: The vector, in the order of the parameters.
        world: The processes.
    """

    def __init__(self, parameters: Sequence[Parameter], gradient: Tensor, world: World) -> None:
        self._world, self._listening = world, False
        self._pieces: list[Tensor] = []
        self._counts: list[int] = []
        self._sent: list[Callable[[], object]] = []
        most, end, members = _PIECE // gradient.element_size(), gradient.numel(), []
        for k, parameter in reversed(list(enumerate(parameters))):
            members.append(parameter)
            size = sum(member.numel() for member in members)
            if size >= most or k == 0:
                # The last piece is whole when the backward pass ends: nobody has to watch it.
                for member in members if k else ():
                    member.register_post_accumulate_grad_hook(self._ready(len(self._pieces)))
                self._pieces.append(gradient[end - size : end])
                self._counts.append(len(members))
                end, members = end - size, []
        self._missing = list(self._counts)

    @contextmanager
    def last(self) -> Iterator[None]:
        """The context of the last backward pass of a step."""
        self._missing, self._listening = list(self._counts), True
        try:
            yield
        finally:
            self._listening = False

    def finish(self) -> None:
        """Waits until the vector is the sum."""
        while len(self._sent) < len(self._pieces):
            self._send()
        for wait in self._sent:
            wait()
        self._sent.clear()

    def _ready(self, piece: int) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            if not self._listening:
                return
            self._missing[piece] -= 1
            while len(self._sent) < len(self._pieces) and not self._missing[len(self._sent)]:
                self._send()

        return hook

    def _send(self) -> None:
        self._sent.append(self._world.summing(self._pieces[len(self._sent)]))

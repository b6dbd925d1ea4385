"""The networks of a field, and whether what they give has derivatives in the points."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from scorefield.errors import UserError
from scorefield.fields.base import ScoreField


def networks_of(field: ScoreField) -> list[nn.Module]:
    """The modules that a field, or a field in it, calls, each as a whole."""
    fields = [part for part in field.modules() if isinstance(part, ScoreField)]
    found = (part for owner in fields for part in owner.children())
    return list(dict.fromkeys(part for part in found if not isinstance(part, ScoreField)))


@contextmanager
def outputs_of(networks: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Collects what networks give while the context holds."""
    outputs: list[Tensor] = []

    def keep(network: nn.Module, given: object, output: object) -> None:
        if isinstance(output, Tensor):
            outputs.append(output)

    hooks = [network.register_forward_hook(keep) for network in networks]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def check_derivatives(name: str, outputs: Sequence[Tensor]) -> None:
    """Raises ``UserError`` if an output for points that need derivatives has none.

    Arguments:
        name: The name of the network.
        outputs: What it gave, with gradients enabled, for two or more points at one time.
    """
    for output in outputs:
        # A constant has none and needs none.
        constant = output.dim() == 0 or len(output) < 2 or output[0].equal(output[1])
        if not output.requires_grad and not constant:
            raise UserError(
                f"what {name} gives has no derivatives in the points, and its Jacobian would be "
                "zero: leave out no_grad and detach"
            )

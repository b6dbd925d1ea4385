"""Networks of other libraries, each called in its own way."""

from __future__ import annotations

from torch import nn

from scorefield.networks.network import Network


def kinds_of(found: object, library: str) -> set[str]:
    """The names of the classes of an object that a library defines."""
    return {c.__name__ for c in type(found).__mro__ if c.__module__.split(".")[0] == library}


class Adapter(Network):
    """A network of another library as a backbone: subclasses call it in its own way.

    Arguments:
        network: The network, or the module that holds it.
        convention: What it receives and predicts, in words.
    """

    def __init__(self, network: nn.Module, convention: str) -> None:
        super().__init__()
        self.network, self.convention = network, convention
        # The parts of the network stay as they are.
        self.training = network.training

    def extra_repr(self) -> str:
        return self.convention

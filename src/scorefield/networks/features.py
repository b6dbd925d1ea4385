"""Named functions of samples, on which distances are taken and neighbours are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from scorefield.errors import UserError


@dataclass(frozen=True)
class Features:
    """A function of samples, with the name that its distances are reported under.

    Arguments:
        name: What the features are.
        function: Maps samples ``(n, *event)`` to features ``(n, ...)``.
    """

    name: str
    function: Callable[[Tensor], Tensor]

    def __call__(self, samples: Float[Tensor, "n *event"]) -> Float[Tensor, "n features"]:
        """The features, one sample a row.

        Raises:
            ValueError: If the function does not keep the number of samples.
        """
        values = self.function(samples)
        if len(values) != len(samples):
            raise UserError(
                f"features {self.name!r} gave {len(values)} rows for {len(samples)} samples"
            )
        return values.reshape(len(values), values.shape[1:].numel())


def _itself(samples: Tensor) -> Tensor:
    return samples


COORDINATES = Features("coordinates", _itself)
"""A vector's own coordinates."""

PIXELS = Features("pixels", _itself)
"""An image's own values."""

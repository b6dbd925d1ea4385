"""What is known of log-densities that were computed through a field."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class LogProb(NamedTuple):
    r"""Log-densities, a row a point.

    Attributes:
        value: The log-density :math:`\log q` in nats.
        numerical_error: Its distance from the value that half the steps give, in nats: about
            fifteen times the error of ``value`` where the steps are small enough for the
            method's order to show.
    """

    value: Float[Tensor, " batch"]
    numerical_error: Float[Tensor, " batch"]

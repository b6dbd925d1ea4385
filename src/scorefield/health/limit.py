"""A time at which whatever evaluates the networks of a field stops."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from scorefield.fields.base import ScoreField
from scorefield.fields.watch import networks_of


class OutOfTimeError(Exception):
    """The time is up: what was being measured has no value."""


@contextmanager
def until(end: float, *fields: ScoreField) -> Iterator[None]:
    """Raises :class:`OutOfTimeError` where a network of the fields, or of a copy of them that has
    the same networks, is called after a time of the monotonic clock.

    A call that has begun is completed. A field without a network is never stopped.
    """

    def check(*called: object) -> None:
        if time.monotonic() >= end:
            raise OutOfTimeError

    networks = {network for field in fields for network in networks_of(field)}
    hooks = [network.register_forward_pre_hook(check) for network in networks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

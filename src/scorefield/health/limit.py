"""A time at which whatever evaluates the networks of a field stops."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from scorefield.fields.base import ScoreField


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

    parts = {part for field in fields for part in field.modules() if isinstance(part, ScoreField)}
    networks = {
        network
        for part in parts
        for network in part.children()
        if not isinstance(network, ScoreField)
    }
    hooks = [network.register_forward_pre_hook(check) for network in networks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

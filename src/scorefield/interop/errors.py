"""Errors of foreign files and configurations."""

from __future__ import annotations

from scorefield.errors import UserError


class InteropError(UserError):
    """A file or configuration of another code base that cannot be used."""


class ForeignCodeError(InteropError):
    """A file that refers to code, none of which was executed.

    Attributes:
        name: The first name that it refers to.
    """

    def __init__(self, path: object, name: str) -> None:
        super().__init__(
            f"{path} asks for {name}, which is neither a tensor nor a plain number: nothing was run"
        )
        self.name = name

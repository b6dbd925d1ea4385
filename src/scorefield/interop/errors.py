"""What can be wrong with the files and configurations of others."""

from __future__ import annotations

from scorefield.errors import UserError


class InteropError(UserError):
    """A file or configuration of another code base that cannot be used."""


class ForeignCodeError(InteropError):
    """A file that asks for code, of which nothing was run.

    Attributes:
        name: The first that it asks for.
    """

    def __init__(self, path: object, name: str) -> None:
        super().__init__(
            f"{path} asks for {name}, which is neither a tensor nor a plain number: nothing was run"
        )
        self.name = name

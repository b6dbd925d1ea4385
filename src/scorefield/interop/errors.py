"""Errors of foreign files, configurations and weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

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


def compare(
    expected: Mapping[str, tuple[int, ...]],
    tolerated: Mapping[str, tuple[int, ...]],
    given: Mapping[str, Tensor],
) -> None:
    """Raises :class:`InteropError` with the first few names unless weights have the shapes that are
    expected or tolerated, and none that is expected is missing.
    """
    known = {**expected, **tolerated}
    problems = {
        "lacks": [name for name in expected if name not in given],
        "has, beside what is expected,": [name for name in given if name not in known],
        "has other shapes of": [
            f"{name} {tuple(weight.shape)} instead of {known[name]}"
            for name, weight in given.items()
            if name in known and tuple(weight.shape) != known[name]
        ],
    }
    if found := [f"{what} {_few(which)}" for what, which in problems.items() if which]:
        raise InteropError(f"the state dict {'; it '.join(found)}")


def _few(which: list[str]) -> str:
    more = f" and {len(which) - 4} more" if len(which) > 4 else ""
    return ", ".join(which[:4]) + more

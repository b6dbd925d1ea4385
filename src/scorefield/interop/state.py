"""State dicts: weights by the names of another code base."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from scorefield.interop.errors import InteropError


def compare(
    expected: Mapping[str, tuple[int, ...]],
    tolerated: Mapping[str, tuple[int, ...]],
    given: Mapping[str, Tensor],
) -> None:
    """Check the names and shapes of weights.

    Arguments:
        expected: The shapes of the required weights.
        tolerated: The shapes of the optional weights.
        given: The weights.

    Raises:
        InteropError: If they differ, with the first few names.
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

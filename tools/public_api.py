"""Writes the list of the public interface, ``tests/public_api.txt``, that a test compares with.

A line is a public name of ``scorefield``, or a member that its class has by itself, with the names
and the kinds of its parameters; ``=`` stands for any default. Annotations and values are left out:
versions of Python print them differently. Run after a change that is meant, and write the change
into ``CHANGELOG.md``:

    python tools/public_api.py
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import scorefield

LIST = Path(__file__).resolve().parent.parent / "tests" / "public_api.txt"


def parameters(called: object) -> str:
    """The parameters of a function or a class, such as ``(x, *, seed=, **settings)``."""
    bare = [
        each.replace(
            annotation=inspect.Parameter.empty,
            default=each.empty if each.default is each.empty else _Any(),
        )
        for each in inspect.signature(called).parameters.values()  # type: ignore[arg-type]
    ]
    return str(inspect.Signature(bare))


class _Any:
    """Any default."""

    def __repr__(self) -> str:
        return ""


def members(cls: type) -> Iterator[str]:
    """The public members that a class has by itself."""
    for name, value in sorted(vars(cls).items()):
        if name.startswith("_") or inspect.isclass(value):
            continue
        if isinstance(value, property | cached_property):
            yield f"{cls.__name__}.{name}"
        elif isinstance(value, staticmethod | classmethod) or inspect.isfunction(value):
            yield f"{cls.__name__}.{name}{parameters(getattr(cls, name))}"


def interface() -> Iterator[str]:
    """The lines of the list."""
    for name in sorted(set(vars(scorefield)["__all__"]) - {"__version__"}):
        value = getattr(scorefield, name)
        if inspect.ismodule(value):
            for one in sorted(value.__all__):
                yield f"{name}.{one}{parameters(getattr(value, one))}"
        elif callable(value):
            yield f"{name}{parameters(value)}"
            if inspect.isclass(value):
                yield from members(value)
        else:
            yield name


def main() -> None:
    """Writes the list."""
    LIST.write_text("".join(f"{line}\n" for line in interface()), encoding="utf-8")


if __name__ == "__main__":
    main()

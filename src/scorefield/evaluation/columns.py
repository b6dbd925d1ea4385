"""Tables of records: each column is declared once, and written and read by its declaration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from scorefield.estimate import Estimate
from scorefield.runs.cells import VARIANCE, numbers, read_estimate, settings_text


class Column(NamedTuple):
    """Neighbouring columns of a table: their headings, the cells from a record (``None`` for empty
    ones), and for what is read back the name and value of the record's argument, from a row.
    """

    names: tuple[str, ...]
    write: Callable[[Any], Sequence[Any] | None]
    argument: str = ""
    read: Callable[[Mapping[str, str]], Any] | None = None


def stored(argument: str, kind: Callable[[str], Any] = str, name: str = "") -> Column:
    """The column of a plain attribute; an empty cell stands for ``None``, or for no text."""
    name = name or argument

    def write(record: Any) -> tuple[Any] | None:
        value = getattr(record, argument)
        return None if value is None else (value,)

    def read(row: Mapping[str, str]) -> Any:
        return kind(row[name]) if row[name] or kind is str else None

    return Column((name,), write, argument, read)


def parts(
    argument: str,
    names: Sequence[str],
    attributes: Sequence[str],
    make: Callable[..., Any],
    kinds: Sequence[Callable[[str], Any]],
) -> Column:
    """The columns of an attribute that consists of several numbers, or is ``None``."""

    def write(record: Any) -> list[Any] | None:
        value = getattr(record, argument)
        return None if value is None else [getattr(value, a) for a in attributes]

    def read(row: Mapping[str, str]) -> Any:
        if not row[names[0]]:
            return None
        return make(*(kind(row[name]) for kind, name in zip(kinds, names, strict=True)))

    return Column(tuple(names), write, argument, read)


def duration(argument: str, name: str, error: str, n: str) -> Column:
    """The columns of a time in seconds with its error."""
    return parts(
        argument,
        (name, error, n),
        ("value", "standard_error", "n"),
        lambda value, error, n: Estimate(value, error, n, "s"),
        (float, float, int),
    )


ESTIMATE = (
    Column(
        ("value", "standard_error", "numerical_error", "n", "freedom", "unit"),
        lambda record: list(numbers(record.estimate).values()),
        "estimate",
        read_estimate,
    ),
    Column(("settings",), lambda record: (settings_text(record.estimate.settings),)),
)
"""The columns of a number, and at the end of a table that of its settings."""
VARYING = Column(
    (*ESTIMATE[0].names, *VARIANCE),
    lambda record: [*numbers(record.estimate).values(), *(record.estimate.variance or ("",) * 3)],
    "estimate",
    read_estimate,
)
"""The columns of a number whose variance may depend on its true value."""


class Schema:
    """The columns of a table, in order."""

    def __init__(self, *columns: Column) -> None:
        self._columns = columns
        self.names = tuple(name for column in columns for name in column.names)

    def row(self, record: Any) -> dict[str, Any]:
        """The cells of a record, by column; empty where there is nothing to say."""
        row: dict[str, Any] = {}
        for column in self._columns:
            cells = column.write(record)
            cells = [""] * len(column.names) if cells is None else cells
            row |= zip(column.names, cells, strict=True)
        return row

    def read(self, row: Mapping[str, str]) -> dict[str, Any]:
        """The arguments of the record that a row of texts holds; KeyError or ValueError if it is
        none.
        """
        return {c.argument: c.read(row) for c in self._columns if c.read is not None}


def derived(*names: str, get: Callable[[Any], Any]) -> Column:
    """Columns that are not read back: ``get`` gives a cell, or one for each of several names."""

    def write(record: Any) -> Sequence[Any] | None:
        value = get(record)
        return value if value is None or len(names) > 1 else (value,)

    return Column(names, write)


def uncertain(*names: str, get: Callable[[Any], Estimate | None]) -> Column:
    """The columns of a number and its error, and of its 95 % interval where four are named."""

    def cells(record: Any) -> Sequence[Any] | None:
        e = get(record)
        return None if e is None else (e.value, e.standard_error, *e.interval())[: len(names)]

    return derived(*names, get=cells)


def attributes(*names: str, of: str) -> tuple[Column, ...]:
    """A column for each of the attributes that a part of a record has."""
    return tuple(derived(name, get=attrgetter(f"{of}.{name}")) for name in names)

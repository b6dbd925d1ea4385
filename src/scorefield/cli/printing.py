"""Plain tables on the standard output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def print_sheet(sheet: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Print pairs of names and values under headings."""
    from rich.text import Text

    console = _console()
    width = max(len(what) for pairs in sheet.values() for what, _ in pairs)
    for heading, pairs in sheet.items():
        console.print(Text(heading, style="bold"))
        for what, value in pairs:
            console.print(Text(f"  {what:<{width}}  {value}"), soft_wrap=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    from rich import box
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    _console().print(table)


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    # Without a terminal there is no width limit.
    return console if console.is_terminal else Console(highlight=False, markup=False, width=200)

"""Tables that notebooks show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table(title: str, rows: Iterable[Sequence[object]], heads: Sequence[str] = ()) -> str:
    """A table in HTML under a title; without ``heads``, rows are names and values."""
    lines = [f"<caption style='text-align:left'><b>{escape(title)}</b></caption>"]
    if heads:
        lines.append("<tr>" + "".join(f"<th>{escape(head)}</th>" for head in heads) + "</tr>")
    for name, *values in rows:
        cells = "".join(f"<td style='text-align:left'>{escape(str(v))}</td>" for v in values)
        first = f"<{'td' if heads else 'th'} style='text-align:left'>{escape(str(name))}"
        lines.append(f"<tr>{first}</{'td' if heads else 'th'}>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"

"""What a verb ends in: a table of numbers with intervals, and the places of the files.

Every verb returns its :class:`Results` and prints none of them itself: here they become text, or
with ``--json`` one document. What is printed while a verb works is progress: it is dropped with
``--quiet``, and goes to the standard error with ``--json``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

from scorefield.cli.options import JSON, QUIET, extended
from scorefield.errors import UserError

Row = Mapping[str, Any]
"""The cells of a row by their headings: texts, numbers, estimates with or without a mark, or
``None`` for nothing.
"""


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a verb ends in.

    Attributes:
        about: What the results are of, as plain values; the first line of the text.
        rows: The table, a row each, all with the same headings.
        sheet: Pairs of names and values under headings, in place of a table.
        notes: Sentences that the reader of the numbers must not miss.
        files: The files that were written.
        text: What is printed in place of all of these.
        status: The exit status.
        failure: What is raised after all is printed.
    """

    about: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    sheet: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    files: Sequence[Path] = ()
    text: str | None = None
    status: int = 0
    failure: Exception | None = None

    def document(self) -> dict[str, Any]:
        """All of it as plain values; numbers are not rounded."""
        found: dict[str, Any] = dict(self.about)
        if self.rows:
            found["results"] = [
                {name: _plain(cell) for name, cell in row.items()} for row in self.rows
            ]
        if self.sheet:
            found["sheet"] = {heading: dict(pairs) for heading, pairs in self.sheet.items()}
        if self.notes:
            found["notes"] = list(self.notes)
        if self.files:
            found["files"] = list(map(str, self.files))
        return found

    def show(self) -> None:
        """Prints it for a person."""
        from scorefield.cli.printing import print_sheet, print_table
        from scorefield.errors import plain

        if self.text is not None:
            print(self.text)
            return
        if self.about:
            known = [(name, value) for name, value in self.about.items() if value is not None]
            print(plain(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in known)))
        if self.rows:
            print_table(self.rows)
        if self.sheet:
            print_sheet(self.sheet)
        for line in (*self.notes, *map(str, self.files)):
            print(plain(line))


class IncompleteError(UserError):
    """Results of which something could not be made, for machines: one document has both.

    Arguments:
        found: The results; their ``failure`` is what is reported.
    """

    def __init__(self, found: Results) -> None:
        super().__init__(str(found.failure))
        self.document = found.document()


def ending_in_results(verb: Callable[..., Results]) -> Callable[..., int]:
    """A verb with the options ``--quiet`` and ``--json``, whose results are printed; it returns the
    exit status.
    """

    @wraps(verb)
    def call(*, quiet: bool, json: bool, **given: Any) -> int:
        with _progress(quiet, json):
            found = verb(**given)
        if json and found.failure is not None:
            raise IncompleteError(found) from found.failure
        if json:
            print_document(found.document())
        else:
            found.show()
        sys.stdout.flush()
        if found.failure is not None:
            raise found.failure
        return found.status

    return extended(call, verb, {"quiet": QUIET, "json": JSON})


@contextmanager
def _progress(quiet: bool, json: bool) -> Iterator[None]:
    """Leads elsewhere what is printed of the progress."""
    with ExitStack() as stack:
        if quiet:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
        elif json:
            stack.enter_context(redirect_stdout(sys.stderr))
        yield


def print_document(document: Mapping[str, Any]) -> None:
    """Prints what machines read: one JSON object."""
    print(json.dumps(document, indent=2, allow_nan=False, default=str))


def _plain(cell: Any) -> Any:
    """A cell as plain values; a number with its errors, its interval and its mark."""
    from scorefield.estimate import Estimate
    from scorefield.median import Median
    from scorefield.runs.cells import Marked, numbers

    if isinstance(cell, Marked):
        return {**_plain(cell.estimate), **({"mark": cell.mark} if cell.mark else {})}
    if isinstance(cell, Median):
        return asdict(cell)
    if not isinstance(cell, Estimate):
        return cell
    low, high = cell.interval()
    return {**numbers(cell), "low": low, "high": high}

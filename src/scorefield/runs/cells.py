"""Records as CSV: plain cells that read back as they were, and that no spreadsheet executes.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return
for a formula. A text that does has an apostrophe before it, which a spreadsheet does not show.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scorefield.errors import UserError
from scorefield.estimate import Estimate, Variance
from scorefield.files import TABLE, read_file

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
VARIANCE = ("variance_at_zero", "variance_slope", "variance_bend")
"""The columns of a variance that depends on the true value."""


class Marked(NamedTuple):
    """A number with what is found of it in a word or two, which tables show beside it."""

    estimate: Estimate
    mark: str


class _Lines(list[str]):
    """What a writer writes, a line at a time."""

    write = list.append


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Iterable[str] | None = None) -> str:
    """Records of the same keys as CSV; ``columns`` are the header where there may be none."""
    lines = _Lines()
    # Only the characters of its own line's end make the writer quote a cell that has one.
    writer = csv.DictWriter(lines, list(columns or rows[0]), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({key: _shielded(value) for key, value in row.items()} for row in rows)
    return "".join(line.removesuffix("\r\n") + "\n" for line in lines)


def read_csv(path: Path, least: int = 1) -> list[dict[str, str]]:
    """The records of a CSV file.

    Raises:
        UserError: If it is no CSV file, or there are fewer than ``least``.
    """
    try:
        text = io.StringIO(read_file(path, TABLE).decode(), newline="")
        rows = [{k: _plain(v) for k, v in row.items()} for row in csv.DictReader(text)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path.name} is no CSV file: {error}") from error
    if len(rows) < least:
        raise UserError(f"{path.name} holds no record")
    return rows


def _shielded(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _plain(cell: Any) -> Any:
    shielded = isinstance(cell, str) and cell.startswith("'") and cell[1:].startswith(_FORMULA)
    return cell[1:] if shielded else cell


def numbers(estimate: Estimate) -> dict[str, Any]:
    """A number, its errors and its unit."""
    return {
        "value": estimate.value,
        "standard_error": estimate.standard_error,
        "numerical_error": estimate.numerical_error,
        "n": estimate.n,
        "freedom": estimate.freedom,
        "unit": estimate.unit,
    }


def read_estimate(row: Mapping[str, str]) -> Estimate:
    """The number in a record of :func:`numbers` and ``settings``."""
    settings = dict(part.partition("=")[::2] for part in row["settings"].split())
    # Absent from records of the first version, and empty where the variance does not vary or the
    # degrees of freedom are those of n draws.
    variance = [cell for name in VARIANCE if (cell := row.get(name))]
    freedom = row.get("freedom")
    return Estimate(
        float(row["value"]),
        float(row["standard_error"]),
        int(row["n"]),
        row["unit"],
        settings,
        float(row["numerical_error"]),
        Variance(*map(float, variance)) if variance else None,
        float(freedom) if freedom else None,
    )


def settings_text(settings: Mapping[str, Any]) -> str:
    """What a number depends on, in one cell."""
    return " ".join(f"{key}={_short(value)}" for key, value in settings.items())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple | list):
        return ",".join(_short(v) for v in value)
    return str(value).replace(" ", "_")

"""What a training measures, and a run writes down: ``metrics.csv``, ``metrics.json``, ``tb/``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scorefield.errors import TrainingError
from scorefield.files import TABLE, append, read_file, reason, write_file
from scorefield.training.events import Events

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, int | float]


class Window:
    """Scalars by name and step, kept on their device until they are read.

    Nothing waits for the device between two rows. A name need not have a value at each step. Steps
    at which ``taken`` is 0 were skipped, and count in no mean.
    """

    def __init__(self) -> None:
        self._steps: dict[str, list[int]] = {}
        self._values: dict[str, list[Tensor]] = {}

    def add(self, step: int, scalars: Mapping[str, Tensor]) -> None:
        """Takes in the scalars of a step."""
        for name, value in scalars.items():
            self._steps.setdefault(name, []).append(step)
            self._values.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        """The mean of each name over the steps, not skipped, at which it has a value."""
        skipped, found = set(self.skipped()), {}
        for name, values in self._stacked().items():
            kept = torch.tensor([step not in skipped for step in self._steps[name]])
            if name != "taken" and bool(kept.any()):
                found[name] = float(values[kept].mean())
        return found

    def skipped(self) -> list[int]:
        """The steps that were skipped."""
        taken = self._stacked().get("taken", torch.ones(0)).tolist()
        steps = self._steps.get("taken", [])
        return [step for step, one in zip(steps, taken, strict=True) if not one]

    def clear(self) -> None:
        """Begins anew."""
        self._steps.clear()
        self._values.clear()

    def state_dict(self) -> dict[str, Any]:
        """The numbers, for a checkpoint between two rows."""
        values = self._stacked()
        return {name: (list(self._steps[name]), values[name]) for name in values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave."""
        self._steps = {name: list(steps) for name, (steps, _) in state.items()}
        self._values = {name: list(values.unbind()) for name, (_, values) in state.items()}

    def _stacked(self) -> dict[str, Tensor]:
        return {k: torch.stack(v).to("cpu", torch.float64) for k, v in self._values.items()}


class Record:
    """The metrics of a run: a list of rows, mirrored to files where there is a folder.

    A row is written in one piece as soon as it is known. When a run goes on from an earlier
    step, the rows after that step are dropped, and so is a line that was not finished.

    Arguments:
        folder: The run's folder; without one, rows are kept in memory only.
        step: The number of steps done; rows after it are dropped.

    Raises:
        TrainingError: If the files cannot be read or written.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self.rows: list[Row] = []
        self._columns: list[str] = []
        self._events: Events | None = None
        if folder is None:
            return
        self._csv = folder / "metrics.csv"
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            if self._csv.exists():
                self._columns, rows = _parse(read_file(self._csv, TABLE))
                self.rows = [row for row in rows if row["step"] <= step]
                self._rewrite()
            self._events = Events(folder / "tb", step)

    def add(self, row: Row) -> None:
        """Appends a row; a new name becomes a new last column, empty in the rows above."""
        self.rows.append(row)
        if self._events is None:
            return
        with self._writing():
            if set(row) <= set(self._columns):
                append(self._csv, _line(row.get(name) for name in self._columns))
            else:
                self._columns += [name for name in row if name not in self._columns]
                self._rewrite()
            curves = {k: v for k, v in row.items() if k not in ("step", "images")}
            self._events.scalars(int(row["step"]), curves)

    def picture(self, step: int, figures: Mapping[str, Figure]) -> None:
        """Adds figures, under their names, to what TensorBoard shows of a step."""
        if self._events is None:
            return
        with self._writing():
            for name, figure in figures.items():
                self._events.picture(step, name, figure)

    def summarize(self, summary: Mapping[str, Any]) -> None:
        """Replaces ``metrics.json``."""
        if self._events is None:
            return
        with self._writing():
            write_file(self._csv.with_suffix(".json"), json.dumps(summary, indent=2) + "\n")

    def _rewrite(self) -> None:
        lines = [_line(self._columns)] if self._columns else []
        lines += [_line(row.get(name) for name in self._columns) for row in self.rows]
        write_file(self._csv, b"".join(lines))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = error.filename or self._csv.parent
            raise TrainingError(f"cannot write the metrics {where}: {reason(error)}") from error


def read_rows(path: Path) -> list[Row]:
    """The rows of a ``metrics.csv``; lines that a crash left torn are passed over.

    Raises:
        OSError: If the file cannot be read.
    """
    _, rows = _parse(read_file(path, TABLE))
    return rows


def _line(cells: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow("" if c is None else c for c in cells)
    return text.getvalue().encode()


def _parse(content: bytes) -> tuple[list[str], list[Row]]:
    """The columns, and the rows that are whole."""
    finished = content[: content.rfind(b"\n") + 1].decode(errors="replace")
    # A line at a time: no cell of a record has a line's end in it.
    lines = [cells for line in finished.split("\n") if (cells := _cells(line))]
    if not lines or "step" not in lines[0]:
        return [], []
    columns, *body = lines
    rows = []
    for cells in body:
        if len(cells) != len(columns):
            continue
        try:
            row = {n: _number(cell) for n, cell in zip(columns, cells, strict=True) if cell}
        except ValueError:
            continue
        if isinstance(row.get("step"), int):
            rows.append(row)
    return columns, rows


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _number(cell: str) -> int | float:
    return int(cell) if cell.isdecimal() else float(cell)

"""What pages of results are made of: tables, files of numbers, and figures."""

import argparse
import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from scorefield.plotting.png import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
Row = dict[str, Any]


def options(about: str | None) -> argparse.ArgumentParser:
    """The command line of a script that writes into a folder, ``--out``; its help is the first
    line of what the script is about.
    """
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(), help="the folder of the results")
    return parser


def line(*cells: str) -> str:
    """A line of a table."""
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join((line(*heads), "|---" * len(heads) + "|", *(line(*row) for row in rows)))


def write_csv(rows: Sequence[Mapping[str, object]], file: Path, digits: int = 6) -> None:
    """Writes rows, numbers with so many digits, without what is a list."""
    names = [name for name, value in rows[0].items() if not isinstance(value, list)]
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            cells = row.items()
            writer.writerow({k: f"{v:.{digits}g}" if isinstance(v, float) else v for k, v in cells})


def read_csv(file: Path) -> list[Row]:
    """The rows of a file: numbers, and words where there are no numbers."""

    def value(text: str) -> float | str:
        try:
            return float(text)
        except ValueError:
            return text

    with file.open(newline="", encoding="utf-8") as opened:
        return [{k: value(v) for k, v in row.items()} for row in csv.DictReader(opened)]


def kept(file: Path, measure: Callable[[], Any]) -> Any:
    """What a file has; what is not there is measured and written first."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(measure()), encoding="utf-8")
        print(file.stem, flush=True)
    return json.loads(file.read_text(encoding="utf-8"))


def chosen(rows: Iterable[Row], **keys: object) -> list[Row]:
    """The rows that have these values."""
    return [row for row in rows if all(row[key] == value for key, value in keys.items())]


def panels(
    rows: int, columns: int, width: float, height: float, **settings: Any
) -> tuple["Figure", Any]:
    """A figure and its axes, which have no lines above and on the right."""
    figure = new_figure(width, height)
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        return figure, figure.subplots(rows, columns, **settings)

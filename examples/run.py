"""Run the notebooks and store them with their outputs: `python examples/run.py [NAME ...]`.

The documentation shows the stored outputs. A notebook takes one to several minutes on one thread.
"""

import argparse
import base64
import io
import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent


def smaller(picture: str, colours: int = 128) -> str:
    """A PNG in base64 with a palette: a third of the size."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    file = io.BytesIO()
    image.quantize(colours).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def run(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=3600, kernel_name="python3").execute(cwd=folder)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = smaller(output.data["image/png"])
    metadata = notebook.metadata
    metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="Notebooks, without .ipynb; all by default.")
    names = parser.parse_args().names or [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in names:
        run(FOLDER / f"{name}.ipynb")
        print(name)


if __name__ == "__main__":
    main()

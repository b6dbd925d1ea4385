"""The code that the front pages show runs as it stands, with a shorter training."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]


class Shifted(torch.nn.Module):
    """The module of a reader of the page."""

    def forward(self, x, step):
        return 0.5 * x + step[:, None, None, None] / 1e6


def code_of(page, section=None):
    """The Python of a page, or of one of its sections."""
    text = (ROOT / page).read_text()
    if section is not None:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """The working directory of a reader, with a folder of images."""
    (tmp_path / "my_images").mkdir()
    for k in range(8):
        pixels = torch.full((32, 32, 3), 20 * k, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / "my_images" / f"{k}.png")
    monkeypatch.chdir(tmp_path)


def run(code, scope):
    """Runs the code of a page, with a shorter training and check."""
    code = re.sub(r"\bsteps=[\d_]{4,}", "steps=30", code)
    code = re.sub(r"\bbudget=[\d.]+", "budget=1.0", code)
    exec(compile(code, "page", "exec"), scope)


def test_the_python_of_the_page_on_models_runs(capsys):
    run(code_of("docs/models.md", "My PyTorch module"), {})
    assert "relative_asymmetry" in capsys.readouterr().out


@pytest.mark.slow
def test_the_python_of_the_page_on_pictures_runs():
    run(code_of("docs/plotting.md").partition('sf.plot.samples("runs/')[0], {})


@pytest.mark.slow
def test_the_python_of_the_page_on_checks_runs(capsys):
    run(code_of("docs/check.md"), {})
    assert "No evidence was found" in capsys.readouterr().out


@pytest.mark.slow
def test_the_python_of_the_page_on_vectors_and_files_runs(reader, capsys):
    scope = {}
    run(code_of("docs/models.md", "My vectors"), scope)
    printed = capsys.readouterr().out
    assert "LogProb(" in printed
    assert "The claim fits" in printed
    run(code_of("docs/models.md", "Files and the hub"), scope)
    last = scope["again"].backbone.last.weight
    assert torch.equal(last, scope["field"].backbone.last.weight)


def test_the_python_of_the_first_page_runs(reader, capsys):
    run(code_of("README.md").partition("\nimages = ")[0], {"net": Shifted()})
    printed = capsys.readouterr().out
    assert "score_error" in printed
    assert printed.count("sigma") >= 6


@pytest.mark.slow
def test_own_images_and_own_points_take_three_lines(reader, capsys):
    code = code_of("README.md", "Your own model")
    scope = {"net": Shifted(), "points": torch.randn(64, 3), "sf": __import__("scorefield")}
    run(code.replace("size=32", "size=8").replace("steps=10_000", "steps=2"), scope)
    assert "claim" in capsys.readouterr().out
    assert (scope["images"].shape, scope["field"].domain.shape) == ((3, 8, 8), (3,))


def test_the_python_of_the_page_runs(capsys):
    run(code_of("docs/getting_started.md"), {})
    printed = capsys.readouterr().out
    assert "score_error" in printed
    assert printed.count("sigma") >= 6

"""The code that the front pages show runs as it stands, with a shorter training."""

import importlib
import re
import runpy
from pathlib import Path

import pytest
import torch
from PIL import Image

import scorefield as sf
from tests.pages import ROOT, code_of, run


class Shifted(torch.nn.Module):
    """The module of a reader of the page."""

    def forward(self, x, step):
        return 0.5 * x + step[:, None, None, None] / 1e6


def test_a_page_is_read_in_five_minutes():
    lengths = {}
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        lines = [line for line in prose.splitlines() if not line.startswith("|")]
        lengths[page.name] = len(" ".join(lines).split())
    assert max(lengths.values()) < 1150, sorted(lengths.items(), key=lambda item: -item[1])[:3]


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """The working directory of a reader, with a folder of images."""
    (tmp_path / "my_images").mkdir()
    for k in range(80):
        pixels = torch.full((32, 32, 3), 3 * k, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / "my_images" / f"{k}.png")
    monkeypatch.chdir(tmp_path)


def test_the_python_of_the_page_on_models_runs(capsys):
    run(code_of("docs/models.md", "My PyTorch module"), {})
    assert "relative_asymmetry" in capsys.readouterr().out


def test_the_python_of_the_page_on_reproducibility_runs():
    run(code_of("docs/reproducibility.md"), {})


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
    run(code_of("docs/vectors.md"), scope)
    printed = capsys.readouterr().out
    assert "LogProb(" in printed
    assert "The claim fits" in printed
    run(code_of("docs/models.md", "Files and the hub"), scope)
    last = scope["again"].backbone.last.weight
    assert torch.equal(last, scope["field"].backbone.last.weight)


def test_the_python_of_the_first_page_runs(reader, capsys):
    run(code_of("README.md", "Twenty lines"), {})
    printed = capsys.readouterr().out
    assert "score_error" in printed
    assert printed.count("sigma") >= 6


@pytest.mark.slow
def test_a_check_and_trainings_take_three_lines_each(reader, capsys):
    code = code_of("README.md", "Four examples").replace("32", "8")
    assert [len(block.strip().split("\n")) for block in code.split("\n\n")] == [3, 3, 3]
    points = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)).tolist()
    scope = {"net": Shifted(), "points": points, "sf": sf}
    run(code.replace("steps=10_000", "steps=2"), scope)
    assert re.search("The (claim|model) (fits|does not fit)", capsys.readouterr().out)
    assert all((Path("runs") / name / "README.md").is_file() for name in ("mine", "points"))
    assert scope["field"].domain.shape == (3,)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        "choose_regularizer",
        "choose_sampler",
        "composition",
        "likelihood",
        "mixing",
        "posteriors",
        "score",
    ],
)
def test_the_python_of_the_page_runs(page, capsys):
    run(code_of(f"docs/{page}.md"), {})
    assert "±" in capsys.readouterr().out


@pytest.mark.slow
def test_the_python_of_the_page_on_a_gpu_runs_on_a_cpu():
    ring = sf.GaussianMixture.ring(sde=sf.EDM(0.01, 40.0))
    field = sf.PreconditionedField(sf.MLP(dim=2), ring.sde, sigma_data=ring.std)
    code = code_of("docs/gpu.md").replace('"cuda", precision="bfloat16", compile=True', '"cpu"')
    scope = {"sf": sf, "field": field, "data": ring}
    run(code, scope)
    assert scope["x"].shape == (64, 2)
    assert scope["x"].isfinite().all()


def test_the_pages_on_choices_are_those_of_the_measured_tables():
    pages = runpy.run_path(str(ROOT / "docs" / "choices.py"))["PAGES"]
    assert [path.read_text(encoding="utf-8") for path in pages] == [f() for f in pages.values()]


PAGES = ("check", "dimension", "distilled", "dual", "emoji", "two_gaussians")


@pytest.mark.parametrize("name", PAGES)
def test_the_page_of_a_benchmark_is_that_of_the_stored_numbers(name, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    results = ROOT / "docs" / "results"
    page = importlib.import_module(name).page_of(results)
    assert page == (results / f"{name}.md").read_text(encoding="utf-8")


def test_the_speeds_of_the_comparison_are_those_of_the_measured_page():
    page = (ROOT / "docs/results/peers.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith("Times elsewhere")]
    compared = " ".join((ROOT / "docs/compared.md").read_text(encoding="utf-8").split())
    assert line in compared


def test_the_python_of_the_page_on_first_steps_runs(capsys):
    run(code_of("docs/getting_started.md"), {})
    printed = capsys.readouterr().out
    assert "score_error" in printed
    assert printed.count("sigma") >= 6

"""The pages on extending: their files run as printed, and give what the mathematics says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [*sorted(DOCS.glob("own_*.md")), DOCS / "extending.md"]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
BLOCK = re.compile(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"^\$ scorefield (.+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with the files of the pages."""
    folder = tmp_path_factory.mktemp("project")
    for name, content in BLOCK.findall(TEXT):
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
    return folder


def run(project: Path, *arguments: str) -> str:
    """What a Python command in the folder prints."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_file_of_the_pages_has_less_than_forty_lines(project):
    lengths = {file.name: len(file.read_text().splitlines()) for file in project.rglob("*.*")}
    assert len(lengths) == 11
    assert max(lengths.values()) < 40, lengths


@pytest.mark.slow
def test_the_parts_of_a_project_of_ones_own_work_together(project):
    for file in sorted(project.glob("use*.py")):
        run(project, file.name)
    check = """
import torch
import scorefield as sf
from my_project.diagnostic import stein_gap
from my_project.process import Straight
from my_project.sampler import Midpoint
from my_project.target import Ellipse

truth = Ellipse([1.0, 0.5], Straight())
levels = stein_gap(truth, truth, sf.Protocol(sigmas=[0.1, 1.0, 10.0], n=4096)).estimates
assert all(abs(e.value) < 5 * e.standard_error for e in levels), levels
double = torch.float64
start = truth.sde.prior(truth.domain).sample(sf.Noise(0), torch.arange(64), double)
x = start * truth.stds / (((1 - 0.999) * truth.stds) ** 2 + 0.999**2).sqrt()
errors = [
    float((Midpoint(n).sample(truth, start=start, dtype=double) - x).abs().max())
    for n in (128, 256)
]
assert errors[0] / errors[1] > 3.5, errors  # of second order at least
"""
    run(project, "-c", check)


@pytest.mark.slow
def test_the_commands_of_the_pages_run(project):
    commands = COMMAND.findall(TEXT)
    assert len(commands) == 2
    for command in commands:
        run(project, "-m", "scorefield", *shlex.split(command))
    assert list((project / "runs/moons/residual/seed0/samples").glob("*.npz"))

"""What is released: the archives, and the images that are made of them."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def images():
    tool = runpy.run_path(str(ROOT / "tools" / "image_steps.py"))
    return tool, tool["stages"](ROOT / "docker" / "Dockerfile")


@pytest.mark.slow
def test_the_wheel_of_the_sdist_runs_what_the_readme_shows(tmp_path, capsys):
    pytest.importorskip("hatchling", reason="hatchling is part of the extra dev")
    release = runpy.run_path(str(ROOT / "tools" / "release.py"))
    assert release["main"](["--out", str(tmp_path)]) == 0, capsys.readouterr().err


def test_images_have_pinned_bases_and_users_without_rights(images):
    tool, stages = images
    bases = {base for base, _ in stages.values()} - set(stages)
    assert bases
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", base) for base in bases)
    for target in ("cpu", "cuda"):
        steps = [step for stage in tool["needed"](stages, target) for step in stages[stage][1]]
        users = [int(rest.split(":")[0]) for name, rest in steps if name == "USER"]
        assert users[-1:] > [0]
        assert not re.search(r"\bsshd?\b|openssh", " ".join(rest for _, rest in steps))


def test_an_image_is_made_of_what_its_context_has(images):
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    copied = [rest.split()[:-1] for _, own in images[1].values() for n, rest in own if n == "COPY"]
    sources = {name for words in copied if not words[0].startswith("--") for name in words}
    assert {name.removeprefix("!") for name in ignored if name.startswith("!")} == sources
    assert all((ROOT / name).exists() for name in sources)


def test_stages_that_a_target_is_not_made_of_are_left_out(images):
    tool, stages = images
    assert tool["needed"](stages, "cpu") == ["wheel", "base", "cpu"]

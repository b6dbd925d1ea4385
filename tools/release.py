"""Builds the release and tries it as a new user would: what `make release` does.

The sdist is built from the tree and the wheel from the sdist, into ``dist``. Both are checked for
what has to travel with them, and their metadata for the extras. The wheel is then installed into a
fresh environment, which has the dependencies of this one and nothing else of the tree, and runs the
command line and the Python of the README in an empty folder, with short trainings. Run as

    python tools/release.py

It needs hatchling and diffusers, which the extra `dev` has, and no network.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRAVELS = (
    "py.typed",
    "__init__.pyi",
    "report/plotly/LICENSE",
    "config/presets/toy/m0.yaml",
)
"""Files of the package that are no modules, apart from all others that are under ``src``."""
SOURCES = (
    *("README.md", "LICENSE", "CHANGELOG.md", "Makefile", "constraints.txt", "docs/conf.py"),
    *("tests/conftest.py", "tools/words.py", "benchmarks/sampling.py", "docker/Dockerfile"),
)

SHORT = [
    *(
        "train.steps=4",
        "train.batch_size=16",
        "optim.warmup=1",
        "eval.nfes=[18]",
        "eval.along=false",
    ),
    *("eval.samples=16", "eval.pairs=2", "eval.points=4", "eval.sigmas=[0.5]"),
]
LESS = {"--cluster": "local", "--seeds": "0,1", "--nfe": "18"}
"""Values of options of the README's commands."""
ADDED = {
    "train": [*SHORT, "field.network.channels=8"],
    "sweep": SHORT,
    "likelihood": ["--n", "2"],
    "check": ["--budget", "5"],
}
"""What makes a command of the README short, behind its own words."""

MATERIAL = """
import numpy, PIL.Image, diffusers
from pathlib import Path
Path("my_images").mkdir()
pixels = numpy.random.default_rng(0).integers(0, 255, (80, 64, 64, 3), dtype=numpy.uint8)
for k, image in enumerate(pixels):
    PIL.Image.fromarray(image).save(f"my_images/{k}.png")
unet = diffusers.UNet2DModel(sample_size=64, block_out_channels=(8, 8), norm_num_groups=4,
    layers_per_block=1, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)
diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained("my_pipeline")
"""
"""The images and the pipeline that the README's reader has."""


class Fault(Exception):
    """What keeps the release from being one, in a sentence."""


def run(*command: str | Path, cwd: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    """The output of a command.

    Raises:
        Fault: If it fails.
    """
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise Fault(f"`{shlex.join(map(str, command))}` ended with {done.returncode}:\n{last}")
    return done.stdout


def build(out: Path) -> tuple[Path, Path]:
    """The sdist of the tree, and the wheel of the sdist."""
    out.mkdir(parents=True, exist_ok=True)
    hatch = (sys.executable, "-m", "hatchling", "build", "--directory", out)
    run(*hatch, "--target", "sdist")
    (sdist,) = out.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        (tree,) = Path(folder).iterdir()
        run(*hatch, "--target", "wheel", cwd=tree)
    (wheel,) = out.glob("*.whl")
    return sdist, wheel


def check_contents(sdist: Path, wheel: Path) -> None:
    """Compares the archives with the tree, and the metadata with the project.

    Raises:
        Fault: If a file is missing or too many, or an extra is.
    """
    package = ROOT / "src" / "scorefield"
    files = [path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()]
    wanted = {name for name in files if not name.endswith(".pyc")}
    if missing := set(TRAVELS) - wanted:
        raise Fault(f"src/scorefield has no {', '.join(sorted(missing))}")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (info,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(info))
    found = {name.removeprefix("scorefield/") for name in names if ".dist-info/" not in name}
    if found != wanted:
        raise Fault(f"the wheel differs from src/scorefield in {sorted(found ^ wanted)[:8]}")
    licences = {name.partition(".dist-info/licenses/")[2] for name in names} - {""}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if licences != set(project["license-files"]):
        raise Fault(f"the wheel has the licences {sorted(licences)}")
    extras = set(metadata.get_all("Provides-Extra") or [])
    if extras != set(project["optional-dependencies"]):
        raise Fault(f"the wheel has the extras {sorted(extras)}")
    with tarfile.open(sdist) as packed:
        inside = {name.partition("/")[2] for name in packed.getnames()}
    if missing := {*SOURCES, *(f"src/scorefield/{name}" for name in wanted)} - inside:
        raise Fault(f"the sdist lacks {sorted(missing)[:8]}")
    if junk := [n for n in inside if n.endswith(".pyc") or "/_build/" in n or "/_api/" in n]:
        raise Fault(f"the sdist has {junk[:8]}")


def install(wheel: Path, folder: Path) -> Path:
    """The folder of the programs of a fresh environment with the wheel, and the dependencies that
    this environment has.
    """
    run(sys.executable, "-m", "venv", folder)
    programs = folder / "bin"
    run(programs / "python", "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel)
    (site,) = folder.glob("lib/python*/site-packages")
    # What is installed in the fresh environment goes first; an editable install is not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


def commands(section: str) -> list[list[str]]:
    """The lines of a section of the README that call ``scorefield``."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\$ (scorefield .*)$", text, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def shortened(words: list[str]) -> list[str]:
    """A command of the README with little to do, on this machine."""
    options = ["", *words[:-1]]
    words = [LESS.get(option, word) for option, word in zip(options, words, strict=True)]
    return [*words, *ADDED.get(words[1], [])]


def found(words: list[str], folder: Path) -> list[str]:
    """A command with the runs as they are named here, where a setting is not its preset's."""
    named = {}
    for word in words[2:]:
        model = re.fullmatch(r"(?:runs/)?(\w+/m\d)(?:/seed0)?", word)
        if model and words[1] != "train":
            named[word] = str(next(folder.glob(f"runs/{model[1]}*/seed0")).relative_to(folder))
    return [named.get(word, word) for word in words]


def try_out(programs: Path, folder: Path) -> None:
    """Runs what the README shows."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_"))}
    environment = {**kept, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    python = programs / "python"

    def do(*words: str | Path) -> str:
        start = time.perf_counter()
        output = run(*words, cwd=folder, environment=environment)
        shown = shlex.join(map(str, words)).partition("\n")[0]
        print(f"  {time.perf_counter() - start:5.1f} s  {shown[:80]}", flush=True)
        return output

    where = do(python, "-c", "import scorefield; print(scorefield.__file__)").strip()
    if not Path(where).is_relative_to(programs.parent):
        raise Fault(f"the environment imports {where}, not the wheel")
    do(python, "-c", MATERIAL)
    do("scorefield", "train", "digits/m0", *ADDED["train"], "--quiet")
    for words in (*commands("Four examples"), *commands("On the command line")):
        do(*found(shortened(words), folder))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    code = re.sub(r"\bsteps=[\d_]{4,}", "steps=30", blocks[-1])
    if "score_error" not in do(python, "-c", code):
        raise Fault("the README's twenty lines printed no score error")
    if not (folder / "reports" / "index.html").is_file():
        raise Fault("the README's report is not where it says")


def main(arguments: list[str]) -> int:
    """Builds and checks; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    out = parser.parse_args(arguments).out
    for old in (*out.glob("*.whl"), *out.glob("*.tar.gz")):
        old.unlink()
    try:
        sdist, wheel = build(out.resolve())
        check_contents(sdist, wheel)
        print(f"{sdist.name}: {sdist.stat().st_size / 1e6:.1f} MB, ", end="")
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
        with tempfile.TemporaryDirectory() as root:
            empty = Path(root) / "empty"
            empty.mkdir()
            try_out(install(wheel, Path(root) / "venv"), empty)
    except Fault as fault:
        print(f"release: {fault}", file=sys.stderr)
        return 1
    print("the wheel runs what the README shows")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

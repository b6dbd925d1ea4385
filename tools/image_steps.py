"""Carries out the steps of a Dockerfile in a bare root, where no engine can run.

Steps of the target's stages run one after the other by ``chroot``, with their working folder, their
environment and their user; copies between stages stay in the one root. The root stands in for the
base image, which is neither fetched nor checked. As root, on Debian:

    debootstrap --variant=minbase --include=python3-pip,python-is-python3 bookworm ROOT
    python tools/image_steps.py docker/Dockerfile ROOT --target cpu

At the end the entry point runs as the image's user.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def steps(file: Path) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile and their arguments."""
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name.upper(), rest.strip()


def stages(file: Path) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """The base and the steps of each stage, by its name."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for name, rest in steps(file):
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            found[stage] = (base, [])
        else:
            found[stage][1].append((name, rest))
    return found


def needed(found: dict[str, tuple[str, list[tuple[str, str]]]], target: str) -> list[str]:
    """The stages that a target is made of, in the order of the file."""
    wanted = {target}
    for stage in reversed(found):
        if stage in wanted:
            base, own = found[stage]
            others = [m[1] for _, rest in own if (m := re.match(r"--from=(\S+)", rest))]
            wanted |= {name for name in (base, *others) if name in found}
    return [stage for stage in found if stage in wanted]


class Image:
    """A root folder and what the steps so far have set."""

    def __init__(self, root: Path, arguments: dict[str, str]) -> None:
        self.root, self.arguments = root, arguments
        self.folder, self.user, self.entry = "/", "0:0", list[str]()
        self.variables = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root"}

    def run(self, *command: str) -> int:
        """Runs a command in the root; its exit status."""
        user = f"--userspec={self.user}"
        inside = ("chroot", user, self.root, "sh", "-c", 'cd "$0" && exec "$@"', self.folder)
        return subprocess.run([*inside, *command], env=self.variables, check=False).returncode

    def take(self, name: str, rest: str) -> int:
        """Carries out an instruction; its exit status."""
        if name == "RUN":
            return self.run("sh", "-c", rest)
        if name == "COPY":
            *sources, to = [w for w in shlex.split(rest) if not w.startswith("--")]
            where = self.root / str(Path(self.folder, to)).lstrip("/")
            for source in sources if "--from=" not in rest else []:
                self._copy(ROOT / source, where if len(sources) == 1 else where / source)
        elif name == "ENV":
            for word in shlex.split(rest):
                key, _, value = word.partition("=")
                self.variables[key] = value
        elif name == "ARG":
            key, _, value = rest.partition("=")
            self.variables[key] = self.arguments.get(key, value)
        elif name == "WORKDIR":
            self.folder = rest
            (self.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "USER":
            self.user = rest
        elif name == "ENTRYPOINT":
            self.entry = json.loads(rest)
        elif name != "CMD":
            raise SystemExit(f"{name} is no instruction that this script knows")
        return 0

    def _copy(self, source: Path, to: Path) -> None:
        to.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            leave = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(source, to, dirs_exist_ok=True, ignore=leave)
        else:
            shutil.copy(source, to)


def main(given: list[str]) -> int:
    """Carries out all steps; the status of the first that fails, or of the entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dockerfile", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args(given)
    if os.geteuid() != 0:
        raise SystemExit("chroot needs root")
    found = stages(options.dockerfile)
    if options.target not in found:
        raise SystemExit(f"no stage {options.target!r}; there are {', '.join(found)}")
    image = Image(options.root, dict(each.split("=", 1) for each in options.build_arg))
    for stage in needed(found, options.target):
        image.folder, image.user = "/", "0:0"
        for name, rest in found[stage][1]:
            print(f"{stage}: {name} {' '.join(rest.split())}", flush=True)
            if status := image.take(name, rest):
                print(f"this step ended with {status}", file=sys.stderr)
                return status
    if image.user.split(":")[0] in ("0", "root"):
        raise SystemExit("the image runs as root")
    print(f"{options.target}: {' '.join(image.entry)} --help, as {image.user}", flush=True)
    return image.run(*image.entry, "--help")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

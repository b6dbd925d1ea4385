"""Plants small faults in the mathematical modules and runs the tests that should notice them.

Run as ``python tools/mutate.py --sample 200``. The sample is drawn with ``--seed``, by default the
hash of the last commit. Each fault is planted in a copy of the repository, where the fast tests of
the module's room, those that import the module or a name that it defines, and the laws run until
one fails. Verdicts are appended to a file and not computed again: an interrupted run is resumed. A
fault whose tests use more than a quarter of an hour is called endless, and not killed.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import multiprocessing
import os
import queue
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from faults import Fault, faults

ROOT = Path(__file__).resolve().parent.parent
ROOMS = (
    "calculus",
    "diagnostics",
    "fields",
    "likelihood",
    "metrics",
    "objectives",
    "samplers",
    "sde",
    "targets",
    "training",
)
MODULES = ("domain.py", "estimate.py", "median.py", "noise.py", "philox.py", "wrapped.py")
ELSEWHERE = {"conformance", "reference", "hostile", "test_mutate.py"}
LONGEST = 900  # seconds of the processor's time, which does not depend on what else it does
OUTCOMES = {0: "survived", 1: "killed", 2: "killed", -signal.SIGXCPU: "endless"}
LIBRARIES = [
    "hypothesis",
    "matplotlib.pyplot",
    "pydantic",
    "pytest",
    "scipy.stats",
    "torch._dynamo",
]
# Processes in which they are loaded already: many tests need less time than that.
LOADED = multiprocessing.get_context("forkserver")
FIRST = 3  # files that find most faults, before all others are even read
NOTHING = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


def modules(src: Path) -> list[Path]:
    """The files in which faults are planted."""
    rooms = [path for room in ROOMS for path in sorted((src / room).rglob("*.py"))]
    return [path for path in rooms if path.name != "__init__.py"] + [src / m for m in MODULES]


def _names(path: Path) -> set[str]:
    """The public names that a module defines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = (n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef))
    return {name for name in defined if not name.startswith("_")}


def mirror(path: Path) -> list[str]:
    """The test files of a module: first those of its name, then those that name more of it."""
    module = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
    words = re.compile(rf"\b(?:{'|'.join(sorted(_names(path) | {re.escape(module)}))})\b")
    room = path.parent.relative_to(ROOT / "src" / "scorefield").parts[:1]
    ranked = []
    for test in sorted((ROOT / "tests").rglob("test_*.py")):
        place = test.relative_to(ROOT / "tests")
        named = len(set(words.findall(test.read_text(encoding="utf-8"))))
        same = bool(room) and place.parts[0] in (room[0], f"test_{room[0]}.py")
        law = place.parts[0] == "laws"  # of every class of a kind, which it does not name
        if (named or same or law) and place.parts[0] not in ELSEWHERE:
            own = test.stem == f"test_{path.stem}"
            ranked.append((not own, not same, -named, str(Path("tests") / place)))
    return [name for *_, name in sorted(ranked)]


def _copy(folder: Path) -> None:
    for name in ("src", "tests", "docs", "examples", "README.md", "pyproject.toml", "Makefile"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)


def run_tests(tests: list[str], folder: Path, log: Path) -> None:
    """Runs test files, in a process that has loaded the libraries, until one fails."""
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    resource.setrlimit(resource.RLIMIT_CPU, (LONGEST, LONGEST))
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder / "src")
    sys.path.insert(0, str(folder / "src"))
    for name in [n for n in sys.modules if n.partition(".")[0] == "scorefield"]:
        # The server of processes may have served another purpose before.
        del sys.modules[name]
    options = "addopts=--strict-markers --import-mode=importlib --benchmark-disable"
    fast = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-o", options]
    code: int = pytest.ExitCode.OK
    for some in (tests[:FIRST], tests[FIRST:]):
        if some and code in NOTHING:
            code = pytest.main([*fast, *some])
    sys.exit(0 if code in NOTHING else int(code))


def _write(file: Path, source: str) -> None:
    """Writes a module, whose bytecode could else be that of another text of the same second."""
    file.write_text(source, encoding="utf-8")
    Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)


def verdict(fault: Fault, folder: Path) -> dict[str, object]:
    """Plants a fault in a copy of the repository and runs its tests."""
    file, log = folder / fault.path, folder / "log"
    source = file.read_text(encoding="utf-8")
    _write(file, fault.planted(source))
    begun = time.monotonic()
    try:
        process = LOADED.Process(target=run_tests, args=(mirror(ROOT / fault.path), folder, log))
        process.start()
        process.join()
    finally:
        _write(file, source)
    output = log.read_text(encoding="utf-8")
    assert process.exitcode is not None
    outcome = OUTCOMES.get(process.exitcode)
    if outcome is None:
        raise RuntimeError(f"{fault.name}: pytest ended with {process.exitcode}: {output}")
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    seconds = round(time.monotonic() - begun, 1)
    return {"fault": fault.name, "verdict": outcome, "by": failed[:1], "seconds": seconds}


def draw(sample: int, seed: str) -> list[Fault]:
    """So many of all faults, without replacement; all of them where there are no more."""
    whole = [fault for path in modules(ROOT / "src" / "scorefield") for fault in faults(ROOT, path)]
    return random.Random(seed).sample(whole, min(sample, len(whole)))


def main() -> int:
    """Draws a sample, runs what has no verdict yet and prints the survivors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sample", type=int, default=200, help="number of faults to plant")
    parser.add_argument("--seed", help="text that the sample is drawn with [last commit's hash]")
    parser.add_argument("--jobs", type=int, default=2, help="number of faults at a time")
    parser.add_argument("--state", type=Path, default=ROOT / ".mutants.jsonl", help="verdicts")
    parser.add_argument("--again", action="store_true", help="run once more what was not killed")
    options = parser.parse_args()
    head = ["git", "rev-parse", "HEAD"]
    seed = options.seed or subprocess.check_output(head, cwd=ROOT, text=True).strip()
    LOADED.set_forkserver_preload(LIBRARIES)
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    chosen = draw(options.sample, seed)
    known = {}
    if options.state.exists():
        for line in options.state.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            known[record["fault"]] = record
    due = [
        fault
        for fault in chosen
        if fault.name not in known or (options.again and known[fault.name]["verdict"] != "killed")
    ]
    print(f"{len(chosen)} faults drawn with seed {seed}, {len(due)} to run", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folders: queue.Queue[Path] = queue.Queue()
        for k in range(options.jobs):
            folder = Path(temporary) / str(k)
            folder.mkdir()
            _copy(folder)
            folders.put(folder)

        def run(fault: Fault) -> None:
            folder = folders.get()
            try:
                record = verdict(fault, folder)
            finally:
                folders.put(folder)
            known[fault.name] = record
            with options.state.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
            print(f"{record['verdict']:8} {record['seconds']:6} s  {fault.name}", flush=True)

        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(run, due))
    verdicts = [known[fault.name]["verdict"] for fault in chosen]
    counts = Counter(verdicts)
    print(f"killed {counts['killed']} of {len(chosen)}; the others:")
    for fault, found in zip(chosen, verdicts, strict=True):
        if found != "killed":
            print(f"  {found:8} {fault.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Trains, samples and evaluates small versions of presets, one after the other: all of them, or
those that match patterns.

    python tools/smoke.py 'cifar10/*' 'toy/*' --results smoke.csv

Each outcome is written to the file of results at once; after a stop, the same command tries what
is not there or has failed. The file holds for one version of the code: remove it to begin anew. It
ends with a table, and with status 1 if a preset fails or takes longer than a minute of user time.
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from scorefield.config import presets

SECONDS = 60.0
FIELDS = ("preset", "outcome", "seconds", "message")
# Of data of one's own, of which a preset knows no shape.
SHAPES = {"images": "[3, 32, 32]", "vectors": "[16]", "signals": "[2, 1, 64]"}


def main(patterns: list[str], results: Path) -> int:
    """Tries out presets, and returns the status of the command."""
    names = list(dict.fromkeys(n for p in patterns or ["*"] for n in presets.matching(p)))
    found = {row["preset"]: row for row in _read(results) if row["outcome"] == "ok"}
    print(f"{sum(n in found for n in names)} of {len(names)} presets are in {results} already")
    for number, name in enumerate(names, 1):
        if name not in found:
            print(f"{number} of {len(names)}: {name}", end="  ", flush=True)
            row = found[name] = _tried(name)
            print(row["outcome"], row["seconds"], "s", row["message"], flush=True)
            _append(results, row)
    rows = [found[name] for name in names]
    width = max((len(name) for name in names), default=0)
    for row in sorted(rows, key=lambda row: -float(row["seconds"])):
        print(f"{row['preset']:{width}}  {row['seconds']:>6} s  {row['outcome']}  {row['message']}")
    failed = sum(row["outcome"] != "ok" for row in rows)
    print(f"{len(names) - failed} of {len(names)} presets pass")
    return int(failed > 0)


def _tried(name: str) -> dict[str, str]:
    """The outcome of one preset, and the user time that it took."""
    family = name.partition("/")[0]
    data = [f"data={{kind: random, shape: {SHAPES[family]}}}"] if family in SHAPES else []
    before = _user_time()
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-m", "scorefield", "train", name, *data, "--smoke"]
        done = subprocess.run(
            [*command, "--root", root], capture_output=True, text=True, check=False
        )
    seconds = _user_time() - before
    message = (done.stderr.strip().splitlines() or [""])[-1] if done.returncode else ""
    outcome = "failed" if done.returncode else "too slow" if seconds > SECONDS else "ok"
    return dict(zip(FIELDS, (name, outcome, f"{seconds:.1f}", message), strict=True))


def _read(results: Path) -> list[dict[str, str]]:
    if not results.exists():
        return []
    with results.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _append(results: Path, row: dict[str, str]) -> None:
    new = not results.exists()
    with results.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def _user_time() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("patterns", nargs="*", help="which presets: all without any")
    parser.add_argument("--results", type=Path, default=Path("smoke.csv"), help="kept outcomes")
    arguments = parser.parse_args()
    sys.exit(main(arguments.patterns, arguments.results))

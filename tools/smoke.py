"""Trains, samples and evaluates small versions of presets, one after the other: all of them, or
those that match patterns.

    python tools/smoke.py 'cifar10/*' 'toy/*'

It ends with status 1 if one fails or takes longer than a minute of processor time.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile

from scorefield.config import presets

SECONDS = 60.0
# Of data of one's own, of which a preset knows no shape.
SHAPES = {"images": "[3, 32, 32]", "vectors": "[16]", "signals": "[2, 1, 64]"}


def main(patterns: list[str]) -> int:
    """Tries out presets, and returns the status of the command."""
    names = [n for p in patterns or ["*"] for n in presets.matching(p)]
    failed = 0
    for name in names:
        family = name.partition("/")[0]
        data = [f"data={{kind: random, shape: {SHAPES[family]}}}"] if family in SHAPES else []
        before = _processor_time()
        with tempfile.TemporaryDirectory() as root:
            command = [sys.executable, "-m", "scorefield", "train", name, *data, "--smoke"]
            done = subprocess.run(
                [*command, "--root", root], capture_output=True, text=True, check=False
            )
        seconds = _processor_time() - before
        wrong = done.returncode or seconds > SECONDS
        failed += bool(wrong)
        last = (done.stderr.strip().splitlines() or [""])[-1] if done.returncode else ""
        print(f"{'FAILED' if wrong else 'ok':6} {seconds:5.1f} s  {name}  {last}", flush=True)
    print(f"{len(names) - failed} of {len(names)} presets pass")
    return int(failed > 0)


def _processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

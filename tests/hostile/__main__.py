"""The whole of the hostile tests, with their figures; an hour or two: ``make hostile``."""

import sys
import time

from tests.hostile.crash import crash
from tests.hostile.fuzz import fuzz
from tests.hostile.several import kill_processes
from tests.hostile.verbs import VERBS

KILLS, LEVELS, MOMENTS = 24, 40, 50
COUNTS = {"configurations": 3000, "images": 1000, "runs": 300, "archives": 100}


def run():
    """Runs everything and returns what was wrong."""
    begin = time.monotonic()
    wrong = []
    for kind, n in COUNTS.items():
        found = fuzz(kind, range(n))
        wrong += found
        print(f"{kind}: {n} damaged, {len(found)} wrong", flush=True)
    done, found = crash(list(VERBS), KILLS, LEVELS, lambda line: print(line, flush=True))
    wrong += found
    wrong += kill_processes(MOMENTS, report=lambda line: print(line, flush=True))
    print(f"{done['kill']} kills, {done['full']} full disks over {len(VERBS)} commands")
    print(f"{len(wrong)} wrong in {time.monotonic() - begin:.0f} s")
    print(*wrong, sep="\n")
    return wrong


if __name__ == "__main__":
    sys.exit(1 if run() else 0)

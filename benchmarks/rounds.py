"""Actions that are timed in turns, each round in an order of its own, and claims about them."""

import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal


def by_clock(action: Callable[[], object]) -> float:
    """The seconds of an action by the clock."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def by_processor(action: Callable[[], object]) -> float:
    """The seconds of an action of the processor."""
    start = time.process_time()
    action()
    return time.process_time() - start


def in_turns(actions: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each action returns, its seconds, in each round."""
    found: dict[str, list[float]] = {name: [] for name in actions}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(actions), len(actions)):
            found[name].append(actions[name]())
    return found


def ratios(times: Mapping[str, list[float]], name: str, other: str) -> list[float]:
    """The ratios of two actions, round by round."""
    return [a / b for a, b in zip(times[name], times[other], strict=True)]


def told(values: list[float]) -> str:
    """The median, and the quartiles around it."""
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:.2f}  ({low:.2f} to {high:.2f})"


def verdict(name: str, found: str, claim: str, holds: bool) -> list[str]:
    """Prints whether a claim holds, and returns its name if it does not."""
    print(f"  {name:40s} {found:24s} claim {claim:8s} {'holds' if holds else 'FAILS'}", flush=True)
    return [] if holds else [name]


def least(name: str, values: list[float], claim: float) -> list[str]:
    """The verdict on the claim that the median of ratios is at least a number."""
    return verdict(name, told(values), f">= {claim:g}", statistics.median(values) >= claim)


def most(name: str, values: list[float], claim: float) -> list[str]:
    """The verdict on the claim that the median of ratios is at most a number."""
    return verdict(name, told(values), f"<= {claim:g}", statistics.median(values) <= claim)


def concluded(failed: list[str]) -> int:
    """Prints the claims that fail, and returns the exit status."""
    print(f"claims that fail: {'; '.join(failed)}" if failed else "all claims hold")
    return 1 if failed else 0


def resident(kind: Literal["RSS", "HWM"]) -> float:
    """The resident set of this process in MiB: now (RSS), or at its largest so far (HWM)."""
    found = re.search(rf"Vm{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise SystemExit("the system does not tell the resident set of a process")
    return int(found[1]) / 1024


def memory_of(script: str, threads: int, *what: object) -> float:
    """The number that a script prints of what it is given by ``--memory-of``, in a fresh process:
    the growth of the resident set, in MiB.
    """
    command = [sys.executable, script, "--threads", str(threads), "--memory-of", *map(str, what)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

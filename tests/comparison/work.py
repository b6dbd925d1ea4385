"""Functions that tests run in other processes; called with a folder, starts some that wait."""

import os
import signal
import sys
import time
from pathlib import Path

from scorefield.comparison.processes import LocalProcesses, Task, run
from scorefield.errors import UserError


def number(value):
    return value


def times(*values):
    result = 1
    for value in values:
        result *= value
    return result


def refuse(words):
    raise UserError(words)


def fault():
    return 1 / 0


def interrupt():
    raise KeyboardInterrupt


def end(signal_number):
    os.kill(os.getpid(), signal_number)
    time.sleep(60)


def leave(status):
    os._exit(status)


def process_of(value):
    return value, os.getpid(), os.environ.get("OMP_NUM_THREADS")


def speak(value):
    print(f"{value}: one\n{value}: two\nend", end="")


def wait(folder):
    """Waits for an interrupt, and then cleans up."""
    try:
        # The interrupt may come as soon as it is seen.
        (folder / f"started-{os.getpid()}").touch()
        time.sleep(600)
    finally:
        (folder / f"cleaned-{os.getpid()}").touch()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with LocalProcesses(2, threads=1) as processes:
        run([Task(f"{k}", wait, (Path(sys.argv[1]),)) for k in range(3)], processes)

"""Makes a run again and again, each time killed at another operation on the disk.

Called with a folder and two configuration files of the same name. Says, for each kill and the
attempt after it, what went wrong; nothing if all is well.
"""

import os
import sys
from pathlib import Path

from scorefield.config.resolve import load_config
from scorefield.runs.run import Run
from tests.training.disk import Operations


def main(root: Path, one: str, other: str) -> None:
    first, second = load_config(one), load_config(other)
    kills = 0
    for config, overwrite in ((first, False), (second, True)):
        at, died = 0, True
        while died:
            at += 1
            folder = root / f"{overwrite}-{at}"
            if overwrite:
                Run.create(first, folder)
            died = create(config, folder, overwrite, at)
            kills += died
            run = Run.create(config, folder, overwrite)
            entries = sorted(p.name for p in run.folder.parent.iterdir())
            if run.config != config or not run.environment() or entries != ["seed0"]:
                print(f"killed at {at}, overwrite={overwrite}: left {entries}")
    assert kills > 15, kills


def create(config, folder: Path, overwrite: bool, at: int) -> bool:
    """Whether the process was killed before it was done."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    Operations("kill", at).watch()
    Run.create(config, folder, overwrite)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

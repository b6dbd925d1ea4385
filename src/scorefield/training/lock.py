"""One training at a time in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scorefield.training.display import warn
from scorefield.training.errors import TrainingError
from scorefield.training.files import reason


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps every other training out of a folder, which is made where there is none.

    The lock is the operating system's, on the file ``.lock``: it goes with the process, however
    that ends, and the file that stays behind means nothing.

    Raises:
        TrainingError: If another training has the folder, or it cannot be written.
    """
    # Not on every system; a training without a folder does without.
    import fcntl

    file = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise TrainingError(f"cannot write {file}: {reason(error)}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"{folder} is being trained by another process: wait for its end or stop it"
            ) from None
        except OSError as error:
            warn(f"{folder} cannot be locked ({reason(error)}): see to it that it is trained once")
        yield
    finally:
        os.close(descriptor)

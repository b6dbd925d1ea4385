"""One training at a time in a folder."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from scorefield.errors import TrainingError
from scorefield.files import reason
from scorefield.progress import warn

# A file system without locks is no reason not to train.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps every other training out of a folder, which is made where there is none.

    The lock is the operating system's, on the file ``.lock``: it goes with the process, however
    that ends, and the file that stays behind means nothing.

    Raises:
        TrainingError: If another training has the folder, or it cannot be written.
    """
    lock = FileLock(folder / ".lock", blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise TrainingError(
            f"{folder} is being trained by another process: wait for its end or stop it"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise TrainingError(f"cannot write {lock.lock_file}: {reason(error)}") from error
        warn(f"{folder} cannot be locked ({reason(error)}): see to it that it is trained once")
    try:
        yield
    finally:
        lock.release()

"""A disk on which things go wrong."""

import errno
import os
import resource
import signal
import stat


class Operations:
    """Counts what is done to the disk, and lets one of it go wrong."""

    def __init__(self, fate, at):
        self.fate, self.at, self.count = fate, at, 0
        self._write = os.write

    def watch(self):
        """Takes the place of what writes to the disk."""
        for name in ("write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir"):
            setattr(os, name, self.around(getattr(os, name)))

    def around(self, operation):
        def counted(*arguments, **keywords):
            if operation is self._write and not stat.S_ISREG(os.fstat(arguments[0]).st_mode):
                return operation(*arguments, **keywords)  # to a pipe, as that of a child
            self.count += 1
            if self.fate == "kill" and self.count == self.at:
                if operation.__name__ == "write":
                    descriptor, content = arguments
                    operation(descriptor, content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fate == "stop" and self.count == self.at:
                os.kill(os.getpid(), signal.SIGTERM)
            frees = operation.__name__ in ("unlink", "rmdir")
            if self.fate == "full" and self.count >= self.at and not frees:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some file")
            return operation(*arguments, **keywords)

        return counted


def in_a_child(work):
    """Does something in a process of its own; returns its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def limited(size, work):
    """Does something in a process whose files cannot become larger; returns its exit status."""

    def starved():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        work()

    return in_a_child(starved)

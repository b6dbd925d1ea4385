"""Processes that a test starts: with the signals of a terminal, and gone when the test has ended.

A process inherits which signals are ignored: the background job of a shell ignores Ctrl-C, and so
would whatever the tests start. So this file is also a program, which restores the usual signals,
asks Linux to kill it when the tests die, and becomes the command that it is given.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

SECONDS = 600
PR_SET_PDEATHSIG = 1


@contextmanager
def started(*command, pass_fds=(), **settings):
    """A process whose output is read as text; it and its group are gone after the block."""
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(writer), *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        pass_fds=[*pass_fds, writer],
        **settings,
    ) as process:
        try:
            os.close(writer)
            os.read(reader, 1)  # ends when the process becomes the command
            os.close(reader)
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def run(*command, **settings):
    """The completed process of a command, with what it wrote."""
    with started(*command, **settings) as process:
        output, errors = process.communicate(timeout=SECONDS)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def python(code, *arguments, **settings):
    """What a program of Python writes to the standard output; it must succeed."""
    done = run(sys.executable, "-c", code, *arguments, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for(condition):
    """Waits until a condition holds."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def become(writer, command):
    """Turns this process into a command with the usual signals, which dies with its parent."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.set_inheritable(writer, False)
    os.execvp(command[0], command)


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])

"""Standard streams that survive the loss of their reader."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


class _Patient(io.FileIO):
    """A file whose reader may disappear; later output is dropped."""

    def write(self, content: object, /) -> int:
        try:
            return super().write(content)  # type: ignore[arg-type]
        except BrokenPipeError:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self.fileno())
            os.close(devnull)
            return super().write(content)  # type: ignore[arg-type]


def prepare() -> None:
    """Make standard output and standard error independent of their readers.

    A stream that is closed, or has lost its reader, drops its output; a character outside the
    locale is escaped. Streams that replace the standard ones are unchanged.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Open until the end of the process.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _patient(stream))


def _patient(stream: io.TextIOWrapper) -> TextIO:
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Patient(stream.fileno(), "w", closefd=False)),
        stream.encoding,
        "backslashreplace",
        line_buffering=stream.line_buffering or stream.write_through,
    )

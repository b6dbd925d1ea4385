"""The standard streams of a program that does not depend on who reads them."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


class _Patient(io.FileIO):
    """A file of which the reader may go away: what is then written is dropped."""

    def write(self, content: object, /) -> int:
        try:
            return super().write(content)  # type: ignore[arg-type]
        except BrokenPipeError:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self.fileno())
            os.close(devnull)
            return super().write(content)  # type: ignore[arg-type]


def prepare() -> None:
    """Makes writing to the standard output and the standard error never fail by the reader.

    A stream that is closed, or whose reader has gone, drops what is written; a character that
    the locale lacks is written as its escape. Streams that someone has put in place of the
    standard ones are left alone.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Kept open up to the end of the process.
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

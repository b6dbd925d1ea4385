"""Curves and pictures of a training for TensorBoard, on the disk as soon as they are known.

The writers of torch and TensorBoard leave the disk to a thread, whose errors nobody can catch.
"""

from __future__ import annotations

import io
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scorefield.files import append
from scorefield.plotting.png import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VERSION = "brain.Event:2"


class Events:
    """A new file of events in a folder, in which events after a step are void.

    Arguments:
        folder: The folder; it is made where there is none.
        step: The number of steps done.

    Raises:
        OSError: If an event cannot be written; so of all methods.
    """

    def __init__(self, folder: Path, step: int) -> None:
        # Its import takes a third of a second.
        from tensorboard.compat.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{platform.node()}.{os.getpid()}"
        self._file = folder / name
        self._write(file_version=_VERSION)
        self._write(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers, under their names."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        found = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step=step, summary=Summary(value=found))

    def picture(self, step: int, name: str, figure: Figure) -> None:
        """Adds a figure."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        content = png(figure, int(figure.dpi))
        # A PNG begins with its signature, a length, a name, and the two sides.
        width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
        image = Summary.Image(
            width=width, height=height, colorspace=4, encoded_image_string=content
        )
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)]))

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), **content).SerializeToString())
        append(self._file, record.getvalue())

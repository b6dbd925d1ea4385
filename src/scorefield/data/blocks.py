"""Blocks of images, made and written by several processes."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0
from numpy.typing import NDArray

from scorefield.data.contents import Records
from scorefield.data.form import Form
from scorefield.data.packed import block_length
from scorefield.errors import UserError


class Block(NamedTuple):
    """What is known of a block of images when it has been written."""

    sha256: bytes
    hashes: NDArray[np.uint64]
    total: NDArray[np.int64]
    squares: int


class Worker:
    """Makes blocks of images and writes them to their place."""

    def __init__(self, records: dict[str, Records], form: Form, folder: Path) -> None:
        self.records, self.form, self.folder = records, form, folder

    def __call__(self, part: str, number: int) -> Block:
        records, step = self.records[part], block_length(self.form)
        first = number * step
        pixels = records.block(first, min(len(records), first + step), self.form)
        content: Any = np.ascontiguousarray(pixels)
        _write(self.folder / f"{part}.npy", content, _OFFSET + first * content[0].nbytes)
        return described(content)


def described(pixels: UInt8[np.ndarray, "n c h w"]) -> Block:
    """What is known of a block of images."""
    content: Any = np.ascontiguousarray(pixels)
    digests = b"".join(hashlib.blake2b(image, digest_size=8).digest() for image in content)
    squares = int(np.square(content, dtype=np.uint32).sum(dtype=np.uint64))
    total = content.sum(axis=0, dtype=np.int64)
    sha256 = hashlib.sha256(content).digest()
    return Block(sha256, np.frombuffer(digests, "<u8").astype(np.uint64), total, squares)


def _write(path: Path, content: Any, place: int) -> None:
    """Writes bytes at a place of a file."""
    try:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.lseek(descriptor, place, os.SEEK_SET)
            view = memoryview(content).cast("B")
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
    except OSError as error:
        error.filename = str(path)
        raise


_worker: Worker | None = None


def _begin(worker: Worker) -> None:
    """Begins a process that ends with the one that started it, and leaves interrupts to that."""
    global _worker
    _worker = worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent: Any = multiprocessing.parent_process()

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _make(part: str, number: int) -> Block:
    assert _worker is not None
    return _worker(part, number)


def blocks(
    worker: Worker, todo: list[tuple[str, int]], jobs: int
) -> Iterator[tuple[str, int, Block]]:
    """The blocks as they are done, in order."""
    if jobs == 1:
        yield from ((part, number, worker(part, number)) for part, number in todo)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, _begin, (worker,))
    running: deque[tuple[str, int, Future[Block]]] = deque()
    left = iter(todo)
    try:
        for part, number in left:
            running.append((part, number, pool.submit(_make, part, number)))
            if len(running) > 3 * jobs:
                part, number, future = running.popleft()
                yield part, number, future.result()
        while running:
            part, number, future = running.popleft()
            yield part, number, future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process that decodes was killed, perhaps for lack of memory: give fewer --jobs"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _header(n: int, form: Form) -> bytes:
    stream = io.BytesIO()
    about = header_data_from_array_1_0(np.empty(0, np.uint8))
    write_array_header_1_0(stream, {**about, "shape": (n, *form.shape)})
    return stream.getvalue()


_OFFSET = len(_header(1, Form(1, 1)))
"""The bytes of a header of NumPy, which it fills up to the same number for all shapes here."""


def reserve(path: Path, n: int, form: Form) -> None:
    """Makes the file of so many images, without the images; those that are in it stay."""
    header = _header(n, form)
    assert len(header) == _OFFSET
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.write(header)
        file.truncate(_OFFSET + n * int(np.prod(form.shape)))

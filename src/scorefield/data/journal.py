"""Which blocks of a pack are done: what a packing that was stopped goes on with.

A block is marked as done after its bytes are on the disk, with what changes when one of its images
does, where that is known, or else their whole set.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from scorefield.data.array_files import map_array, read_arrays, write_arrays
from scorefield.data.blocks import Block, described
from scorefield.data.contents import Contents
from scorefield.data.form import Form
from scorefield.data.packed import block_length
from scorefield.errors import UserError

_MARK = 16


@dataclass
class Journal:
    """The blocks of a part, and what is known of those that are done."""

    marks: UInt8[np.ndarray, "blocks 16"]
    done: NDArray[np.bool_]
    sha256: UInt8[np.ndarray, "blocks 32"]
    hashes: NDArray[np.uint64]
    total: NDArray[np.int64]
    squares: int = 0

    @classmethod
    def of(cls, contents: Contents, part: str, form: Form) -> Journal:
        """The journal of a part of which no block is done."""
        n = len(contents.parts[part].records)
        marks = _marks(contents, part, block_length(form))
        return cls(
            marks,
            np.zeros(len(marks), bool),
            np.zeros((len(marks), 32), np.uint8),
            np.zeros(n, np.uint64),
            np.zeros(form.shape, np.int64),
        )

    @classmethod
    def read(cls, folder: Path, contents: Contents, part: str, form: Form) -> Journal:
        """The journal of a part in a folder, in which blocks of images that have changed, or are at
        another place, are not done.
        """
        fresh = cls.of(contents, part, form)
        try:
            found = read_arrays(_place(folder, part))
        except (OSError, UserError):
            return fresh
        shapes = {name: np.shape(value) for name, value in vars(fresh).items()}
        alike = shapes == {name: value.shape for name, value in found.items()}
        if alike and np.array_equal(found["marks"], fresh.marks):
            known: dict[str, Any] = {**found, "squares": int(found["squares"])}
            return cls(**known)
        if found.keys() == shapes.keys() and found["marks"].shape[1:] == (_MARK,):
            fresh._keep(found, map_array(folder / f"{part}.npy", "r"), block_length(form))
        return fresh

    def _keep(self, found: Mapping[str, NDArray[Any]], pixels: NDArray[Any], step: int) -> None:
        """Adds what was done before and has not changed, as its bytes are now."""
        m = min(len(self.done), len(found["done"]))
        same = (found["marks"][:m] == self.marks[:m]).all(axis=1)
        for number in np.flatnonzero(found["done"][:m] & same):
            block = described(pixels[number * step : (number + 1) * step])
            if block.sha256 == found["sha256"][number].tobytes():
                self.add(int(number), int(number) * step, block)

    def add(self, number: int, first: int, block: Block) -> None:
        """Marks a block as done, whose first image has the number ``first``."""
        self.done[number] = True
        self.sha256[number] = np.frombuffer(block.sha256, np.uint8)
        self.hashes[first : first + len(block.hashes)] = block.hashes
        self.total += block.total
        self.squares += block.squares


def settle(folder: Path, journals: Mapping[str, Journal]) -> None:
    """Writes the journals of all parts, once the blocks that are done are on the disk."""
    for part, journal in journals.items():
        descriptor = os.open(folder / f"{part}.npy", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        write_arrays(_place(folder, part), vars(journal))


def forget(folder: Path, part: str) -> None:
    """Removes the journal of a part."""
    _place(folder, part).unlink()


def _place(folder: Path, part: str) -> Path:
    return folder / f"{part}_journal.npz"


def _marks(contents: Contents, part: str, step: int) -> UInt8[np.ndarray, "blocks 16"]:
    records = contents.parts[part].records
    marks = []
    for first in range(0, len(records), step):
        own = [records.mark(k) for k in range(first, min(len(records), first + step))]
        text = "\0".join(mark or contents.state for mark in own)
        marks.append(hashlib.blake2b(text.encode(errors="replace"), digest_size=_MARK).digest())
    return np.frombuffer(b"".join(marks), np.uint8).reshape(-1, _MARK)

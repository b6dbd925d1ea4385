"""Packed images encoded once, by an autoencoder, into a pack of latents.

Blocks are encoded in order; an encoding that was stopped resumes after the last block that is on
the disk, and comes to the same bytes; on another kind of device it begins anew.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from scorefield.data.array_files import read_arrays, write_arrays
from scorefield.data.latent_packs import BLOCK, INDEX, Codec, LatentPack, Origin, holds_latents
from scorefield.data.packed import Pack, write_sums
from scorefield.data.staging import OnProgress, begin, staged
from scorefield.errors import UserError
from scorefield.files import write_file

_SETTLED_EVERY = 5.0  # seconds
_JOURNAL = "journal.npz"


class Encoder(Protocol):
    """What makes latents of images."""

    @property
    def codec(self) -> Codec:
        """What it is."""

    @property
    def device(self) -> torch.device:
        """Where it encodes."""

    def latent_shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """The shape of the latents of images of a shape; a ``UserError`` where it has none."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The means and the standard deviations for images in bytes, float32, on the CPU."""


@dataclass
class _Done:
    """What is known of a part: the hashes of the blocks that are done, and their sums."""

    hashes: list[bytes]
    total: NDArray[np.float64]
    squares: float = 0.0


def encode(
    pack: Pack,
    encoder: Encoder,
    out: Path,
    overwrite: bool = False,
    on_progress: OnProgress = lambda done, total, rate: None,
) -> LatentPack:
    """Encodes packed images.

    Arguments:
        pack: The images.
        encoder: The autoencoder.
        out: The folder of the latents.
        overwrite: Whether latents that are there are replaced.
        on_progress: Called after each block.

    Raises:
        UserError: If the images are not of a shape that the autoencoder takes, the place is taken,
            the disk is too small, or latents are not finite.
        OSError: If they cannot be written.
    """
    out = out.expanduser()
    codec = encoder.codec
    made = LatentPack(
        out,
        encoder.latent_shape(*pack.form.shape),
        pack.counts,
        pack.class_count,
        pack.classes,
        codec,
        Origin(str(pack.folder.resolve()), pack.sha256),
        "",
    )
    with staged(out, overwrite, holds_latents) as folder:
        made = replace(made, folder=folder)
        plan = json.dumps([made.document(), BLOCK, encoder.device.type])
        begin(folder, plan, 4 * sum(math.prod(made.stored_shape(part)) for part in made.counts))
        made = _encoded(pack, encoder, made, on_progress)
        write_file(folder / INDEX, made.document())
        (folder / _JOURNAL).unlink()
    return replace(made, folder=out)


def _encoded(pack: Pack, encoder: Encoder, made: LatentPack, on_progress: OnProgress) -> LatentPack:
    folder, total = made.folder, sum(made.counts.values())
    known = _read(folder, made)
    there = done = sum(min(n, BLOCK * len(known[part].hashes)) for part, n in made.counts.items())
    start = settled = time.monotonic()
    for part, n in made.counts.items():
        pixels, _ = pack.arrays(part)
        if made.class_count is not None:
            shutil.copyfile(pack.folder / f"{part}_labels.npy", folder / f"{part}_labels.npy")
        file = folder / f"{part}.npy"
        # One that is there has this shape, since it was begun by this plan.
        shape = None if file.exists() else made.stored_shape(part)
        stored: Any = open_memmap(file, "r+" if shape is None else "w+", np.float32, shape)
        for first in range(BLOCK * len(known[part].hashes), n, BLOCK):
            images = torch.from_numpy(np.array(pixels[first : first + BLOCK]))
            stored[first : first + len(images)] = block = _block(encoder, images, part, first)
            _add(known[part], block)
            done += len(images)
            on_progress(done, total, (done - there) / max(time.monotonic() - start, 1e-9))
            if time.monotonic() - settled > _SETTLED_EVERY:
                stored.flush()
                _write(folder, known)
                settled = time.monotonic()
        stored.flush()
        _write(folder, known)
    write_sums(folder, {part: (own.total, np.float64(own.squares)) for part, own in known.items()})
    return replace(made, sha256=made.computed({part: own.hashes for part, own in known.items()}))


def _block(encoder: Encoder, images: Tensor, part: str, first: int) -> NDArray[np.float32]:
    """The means and standard deviations of a block of images."""
    block = torch.cat(encoder.encode(images), dim=1)
    finite = block.isfinite().flatten(1).all(dim=1)
    if not bool(finite.all()):
        number = first + int((~finite).nonzero()[0])
        raise UserError(
            f"the autoencoder gives numbers that are not finite for image {number} of {part}"
        )
    return block.numpy()


def _add(known: _Done, block: NDArray[np.float32]) -> None:
    known.hashes.append(hashlib.sha256(block.tobytes()).digest())
    exact = block.astype(np.float64)
    known.total += exact[:, : len(known.total)].sum(axis=0)
    known.squares += float(np.square(exact).sum())


def _read(folder: Path, made: LatentPack) -> dict[str, _Done]:
    """What is known of the blocks that are on the disk; nothing where that cannot be read."""
    try:
        arrays = read_arrays(folder / _JOURNAL)
        return {
            part: _Done(
                [row.tobytes() for row in arrays[f"{part}_hashes"]],
                arrays[part].reshape(made.shape),
                float(arrays[f"{part}_squares"]),
            )
            for part in made.counts
        }
    except (OSError, UserError, KeyError, ValueError):
        return {part: _Done([], np.zeros(made.shape)) for part in made.counts}


def _write(folder: Path, known: dict[str, _Done]) -> None:
    arrays: dict[str, Any] = {}
    for part, own in known.items():
        hashes = np.frombuffer(b"".join(own.hashes), np.uint8).reshape(-1, 32)
        arrays |= {part: own.total, f"{part}_hashes": hashes, f"{part}_squares": own.squares}
    write_arrays(folder / _JOURNAL, arrays)

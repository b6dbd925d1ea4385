"""Images decoded once into a pack, by several processes.

A packing that was stopped, or met an image that cannot be read, resumes with the blocks that are
missing or have changed.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from scorefield.data.array_files import write_array
from scorefield.data.blocks import Worker, blocks, reserve
from scorefield.data.contents import Contents
from scorefield.data.form import Form
from scorefield.data.journal import Journal, forget, settle
from scorefield.data.layouts import contents_of
from scorefield.data.packed import SET, Pack, block_length, is_pack, write_sums
from scorefield.data.staging import OnProgress, begin, staged
from scorefield.errors import UserError
from scorefield.files import write_file

_SETTLED_EVERY = 5.0  # seconds
_SETTLED_SHARE = 20  # of the time: what is known of many images takes long to write


def pack(
    path: Path,
    contents: Contents,
    form: Form,
    out: Path,
    jobs: int = 1,
    overwrite: bool = False,
    on_progress: OnProgress = lambda done, total, rate: None,
) -> Pack:
    """Packs the images of a file or folder.

    Arguments:
        path: The file or folder.
        contents: What is in it, as :func:`~scorefield.data.layouts.contents_of` says.
        form: What the images are made to be.
        out: The folder of the pack.
        jobs: The number of processes that decode.
        overwrite: Whether a pack that is there is replaced.
        on_progress: Called a few times a second.

    Raises:
        UserError: If an image cannot be read or changes meanwhile, the place is taken, or the
            disk is too small.
        OSError: If the pack cannot be written.
    """
    out = out.expanduser()
    with staged(out, overwrite, is_pack) as folder:
        made = _packed(path, contents, form, folder, max(1, jobs), on_progress)
        if contents_of(path, form.channels).state != contents.state:
            raise UserError(f"{path} was changed while it was packed: pack it again")
        write_file(folder / SET, made.document())
        for part in made.counts:
            forget(folder, part)
    return replace(made, folder=out)


def _packed(
    path: Path, contents: Contents, form: Form, folder: Path, jobs: int, on_progress: OnProgress
) -> Pack:
    counts = {name: len(part.records) for name, part in contents.parts.items()}
    plan = json.dumps([str(path.resolve()), list(counts), repr(form)])
    begin(folder, plan, sum(counts.values()) * int(np.prod(form.shape)))
    for part, n in counts.items():
        reserve(folder / f"{part}.npy", n, form)
    journals = {part: Journal.read(folder, contents, part, form) for part in counts}
    settle(folder, journals)
    todo = [
        (part, int(number))
        for part, journal in journals.items()
        for number in np.flatnonzero(~journal.done)
    ]
    total, step, start = sum(counts.values()), block_length(form), time.monotonic()
    there = done = total - sum(min(step, counts[p] - k * step) for p, k in todo)
    due, shown = start + _SETTLED_EVERY, start
    records = {name: part.records for name, part in contents.parts.items()}
    parallel = jobs > 1 and len(todo) > 1 and any(r.decodes for r in records.values())
    worker = Worker(records, form, folder)
    try:
        for part, number, block in blocks(worker, todo, jobs if parallel else 1):
            journals[part].add(number, number * step, block)
            done += len(block.hashes)
            now = time.monotonic()
            if now > due:
                settle(folder, journals)
                took = time.monotonic() - now
                due = now + max(_SETTLED_EVERY, _SETTLED_SHARE * took)
            if now - shown > 0.2:
                on_progress(done, total, (done - there) / (now - start))
                shown = now
    except UserError as error:
        raise UserError(
            f"{path}: {error}; {done:,} of {total:,} images are packed, and the same command "
            "resumes with the others once that is mended"
        ) from error
    finally:
        settle(folder, journals)
    on_progress(total, total, (total - there) / max(time.monotonic() - start, 1e-9))
    return _described(contents, form, folder, journals, counts)


def _described(
    contents: Contents,
    form: Form,
    folder: Path,
    journals: dict[str, Journal],
    counts: dict[str, int],
) -> Pack:
    """The pack of a folder in which all blocks are done."""
    for part, journal in journals.items():
        labels = contents.parts[part].labels
        if labels is not None:
            write_array(folder / f"{part}_labels.npy", labels)
        write_array(folder / f"{part}_hashes.npy", journal.hashes)
    write_sums(folder, {part: (j.total, np.int64(j.squares)) for part, j in journals.items()})
    classed = all(part.labels is not None for part in contents.parts.values())
    made = Pack(
        folder,
        form,
        counts,
        contents.class_count if classed else None,
        contents.classes if classed else None,
        contents.layout,
        tuple(contents.remarks()),
        "",
    )
    blocks = {part: [row.tobytes() for row in j.sha256] for part, j in journals.items()}
    return replace(made, sha256=made.computed(blocks))

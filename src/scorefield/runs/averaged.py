"""A run whose weights are an average of another length, made after the training."""

from __future__ import annotations

from pathlib import Path

from scorefield.config.document import dump
from scorefield.errors import RunError
from scorefield.files import TABLE, read_file, write_folder
from scorefield.runs.run import CONFIG, ENVIRONMENT, Run
from scorefield.training import checkpoint as checkpoints
from scorefield.training.checkpoint import Weights, load_weights
from scorefield.training.lengths import Combination, reconstruct

_COPIED = (ENVIRONMENT, "metrics.csv", "metrics.json")


def averaged(
    run: Run, length: float, step: int | None = None, overwrite: bool = False
) -> tuple[Run, Combination]:
    """Makes the run ``{model_id},ema={length}`` beside a run, with one checkpoint: its averaged
    weights are those of the length, see :mod:`scorefield.training.lengths`. It is sampled,
    evaluated, loaded and compared as every run is.

    Arguments:
        run: The run, trained with ``train.snapshot_every``.
        length: The length of the average, its standard deviation relative to the training.
        step: Which checkpoint; the newest that can be read by default.
        overwrite: Whether to replace the run that is there.

    Returns:
        The new run, and what its average is made of.

    Raises:
        ValueError: If the length is out of range.
        RunError: If there is no such checkpoint, or the new run is there already.
        CheckpointError: If there are no stored averages, or they cannot be read or do not fit.
        OSError: If the folder cannot be written.
    """
    newest = run.checkpoint(step)
    config = run.config.model_copy(update={"name": f"{run.config.name},ema={length}"})
    folder = run.folder.parent.parent / Path(config.name).name / run.folder.name
    if folder.exists() and not overwrite:
        raise RunError(f"{folder} is there already: give --overwrite to replace it")
    field, stored = run.untrained(), run.folder / "averages"
    names = [name for name, _ in field.named_parameters()]
    tensors, found = reconstruct(stored, newest.step, length, names)
    load_weights(field, Weights(tensors, newest.step, None), stored)
    document = config.document()
    files: dict[str, bytes | str] = {
        name: read_file(run.folder / name, TABLE)
        for name in _COPIED
        if (run.folder / name).is_file()
    }
    files[CONFIG] = dump(document)
    state = {"average": {"run": run.config.name, "length": length, "error": found.error}}
    raw = newest.model
    content = checkpoints.files(newest.step, raw.tensors, tensors, state, document, raw.field)
    inside = f"{run.checkpoints.name}/{checkpoints.name_of(newest.step)}"
    files |= {f"{inside}/{name}": data for name, data in content.items()}
    write_folder(folder, files, overwrite)
    return Run(folder, config), found

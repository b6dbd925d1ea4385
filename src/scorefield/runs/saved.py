"""Fields in folders: weights with a description of their field, and a model card.

A folder holds ``model.safetensors``, whose metadata describe every part of the field as a
checkpoint's do (:mod:`scorefield.training.checkpoint`), and ``README.md``, the card. It is what one
uploads to a hub; nothing in it is executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from scorefield.description import describe
from scorefield.errors import CheckpointError, RunError
from scorefield.fields.base import ScoreField, check_field
from scorefield.files import reason, write_files
from scorefield.training import checkpoint as checkpoints
from scorefield.training.card import CARD, card

WEIGHTS = "model.safetensors"


def save(
    field: ScoreField,
    folder: str | Path,
    *,
    about: Mapping[str, object] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a field into a folder: its weights with a description of its parts, and a model card.

    :func:`~.subject.load` gives the field back, with the same values bit for bit. A module of the
    user's own is written as its weights, its import path and the hash of its file, and needs
    ``trust_code=True`` to be loaded.

    Arguments:
        field: The field.
        folder: The folder; other files in it stay.
        about: What is known of its data and training, by name, for the card.
        overwrite: Whether to replace a field and a card that are there.

    Raises:
        UserError: If a part of the field cannot be made again from a file: a closed form with
            arrays of its own, a function, a class that keeps no arguments or cannot be imported.
        RunError: If there is a field or a card in the folder already.
        CheckpointError: If the folder cannot be written.
    """
    check_field(field)
    folder, parts, state = Path(folder), describe(field), {}
    for name, value in field.state_dict().items():
        if not isinstance(value, Tensor):
            raise RunError(f"{name} of the field's state is no tensor, and cannot be written")
        # Weights that are tied in memory are written one by one.
        state[name] = value.detach().cpu().clone()
    content: dict[str, bytes | str] = {
        WEIGHTS: checkpoints.weights_file(state, 0, None, parts),
        CARD: card(folder.resolve().name, field, about or {}, "sha256" in str(parts)),
    }
    for name in content:
        if (folder / name).exists() and not overwrite:
            raise RunError(f"{folder / name} exists: overwrite it, or give another folder")
    try:
        write_files(folder, content)
    except OSError as error:
        raise CheckpointError(f"cannot write {folder}: {reason(error)}") from error
    return folder

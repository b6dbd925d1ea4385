"""Fields that are made again from what a file of weights states of their parts."""

from __future__ import annotations

from pathlib import Path

from scorefield.description import rebuild
from scorefield.errors import CheckpointError
from scorefield.fields.base import ScoreField
from scorefield.training.checkpoint import Weights, load_weights


def field_of(weights: Weights, path: Path, trust_code: bool) -> ScoreField:
    """The field of a file of weights that describes it, in evaluation mode.

    Raises:
        CheckpointError: If the file does not describe a field, or its weights do not fit.
        ConfigError: If it names code that is not trusted.
    """
    if weights.field is None:
        raise CheckpointError(
            f"{path} says neither its configuration nor the parts of its field: they could not be "
            "made again from a file, or an earlier version wrote it"
        )
    field = rebuild(weights.field, str(path), trust_code)
    kinds = {t.dtype for t in weights.tensors.values() if t.is_floating_point()}
    if len(kinds) == 1:
        # As a field that was converted as a whole, with its tables.
        field.to(kinds.pop())
    load_weights(field, weights, path)
    for name, tensor in field.state_dict().items():
        if tensor.dtype != weights.tensors[name].dtype:
            raise CheckpointError(
                f"{path} has {name} in {weights.tensors[name].dtype}, the field in {tensor.dtype}"
            )
    return field.eval()

"""What is drawn: models by label, the size of their data, runs by their paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.points import Given, numbers_of
from scorefield.runs.subject import load
from scorefield.targets.base import Target

AnyModel: TypeAlias = ScoreField | str | Path
AnyModels: TypeAlias = AnyModel | Mapping[str, AnyModel] | Sequence[str | Path]


def model_of(model: AnyModel) -> ScoreField:
    """The field of a model."""
    return model if isinstance(model, ScoreField) else load(model)


def models_of(models: AnyModels) -> dict[str, ScoreField]:
    """The models by label."""
    if isinstance(models, Mapping):
        return {label: model_of(model) for label, model in models.items()}
    if isinstance(models, ScoreField):
        return {"": models}
    paths = paths_of(models)
    return {label: load(path) for label, path in zip(labels_of(paths), paths, strict=True)}


def are_planar(models: Mapping[str, ScoreField]) -> bool:
    """Whether models are of points of the plane; of none are there several kinds."""
    shapes = {model.domain.shape for model in models.values()}
    if len(shapes) != 1:
        raise UserError(f"models of one kind of points are drawn together, got {sorted(shapes)}")
    return shapes == {(2,)}


def spread_of(models: Mapping[str, ScoreField], data: Target | Given | None) -> float:
    """The standard deviation of the data."""
    if isinstance(data, Target):
        return data.std
    if data is not None:
        return float(numbers_of("the data", data)[0].std())
    for model in models.values():
        known = getattr(getattr(model, "parametrization", None), "sigma_data", None)
        if known is not None:
            return float(known)
    raise UserError("the size of the map follows from the data: give data=")


def black_of(x: Tensor) -> float:
    """The value of black: -1 for images with negative values."""
    return -1.0 if float(x.min()) < -0.5 else 0.0


def paths_of(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """One path or several, as a list."""
    return [Path(p) for p in ([paths] if isinstance(paths, str | Path) else paths)]


def labels_of(paths: Sequence[Path]) -> list[str]:
    """What of the paths of runs a reader needs: data set, model and seed, as far as they differ."""
    rows = [path.parts[-3:] for path in paths]
    if len(set(paths)) == 1 or len({len(row) for row in rows}) > 1:
        return ["/".join(row) for row in rows]
    columns = (_differing(column) for column in zip(*rows, strict=True) if len(set(column)) > 1)
    return ["/".join(row) for row in zip(*columns, strict=True)]


def _differing(names: Sequence[str]) -> list[str]:
    """Names without the last words, divided by ``_``, that all of them have."""
    words = [name.split("_") for name in names]
    while len({row[-1] for row in words}) == 1 and min(map(len, words)) > 1:
        words = [row[:-1] for row in words]
    return ["_".join(row) for row in words]

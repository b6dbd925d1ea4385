"""Classes of the points of a run: their numbers, their names, the field of one of them."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import Tensor

from scorefield.config.config import Config
from scorefield.data.arrays import FiniteSource
from scorefield.data.order import places
from scorefield.data.source import DataSource
from scorefield.errors import RunError, UserError, hint
from scorefield.fields.base import ScoreField
from scorefield.fields.composed import OneClass
from scorefield.noise import Noise


def always_labelled(config: Config, field: ScoreField) -> bool:
    """Whether a field knows classes, and was never trained on points without theirs."""
    return field.classes is not None and config.objective.label_dropout == 0


def check_unconditional(config: Config, field: ScoreField) -> None:
    """Refuses points of any class of a field that was never trained on points without theirs."""
    if always_labelled(config, field):
        raise RunError(
            f"the field of {config.name} was trained with objective.label_dropout 0, and knows "
            f"points of one class only, not those of any"
        )


def classes_by_index(source: DataSource, seed: int) -> Callable[[Tensor], Tensor]:
    r"""The class of each generated image: that of the training point :math:`\pi(i \bmod n)` with a
    permutation :math:`\pi` of the :math:`n` points by the seed.

    So many images as there are training points have exactly the frequencies of the data, and any
    fewer those of a random subset.

    Raises:
        UserError: If the points have no classes.
    """
    if not isinstance(source, FiniteSource) or source.classes is None:
        raise UserError(
            f"the model is conditioned on classes, and the points of {source.name} have none: "
            "the frequencies of its samples' classes are not known"
        )
    labels = source.labels("train")

    def classes(index: Tensor) -> Tensor:
        return labels[places(Noise(seed), len(labels), 0, index % len(labels), "sample classes")]

    return classes


def class_number(label: str, source: DataSource | None) -> int:
    """The number of a class of some data, of its name, or of the number as text; where a number is
    the name of a class, it is taken for the name.

    Raises:
        RunError: If it is neither, or the name of several classes.
    """
    names = () if source is None else source.class_names or ()
    if names.count(label) == 1:
        return names.index(label)
    if re.fullmatch(r"-?[0-9]{1,12}", label):
        return int(label)
    data = "the data" if source is None else source.name
    if label in names:
        raise RunError(f"several classes of {data} are called {label!r}: give a number")
    known = hint(label, names, "they") if names else "they have no names"
    raise RunError(f"no class of {data} is called {label!r}: {known}")


def class_name(label: int, source: DataSource | None) -> str:
    """The number of a class of some data, with its name where it has one."""
    names = () if source is None else source.class_names or ()
    return f"{label} ({names[label]})" if label < len(names) else str(label)


def of_class(field: ScoreField, label: int) -> ScoreField:
    """The field of points of a class, if it knows it."""
    if field.classes is None:
        raise RunError("the field of this run knows no classes, and takes no label")
    if not 0 <= label < field.classes:
        raise RunError(f"label is {label}, it must be a class from 0 to {field.classes - 1}")
    return OneClass(field, label)

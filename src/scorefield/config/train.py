"""The optimiser, and how long a training is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, Strict

from scorefield.config.base import Count, Fraction, NonNegative, Positive, Section, build

if TYPE_CHECKING:
    from scorefield.training import Optim, TrainSettings


class OptimSection(Section):
    """:class:`~scorefield.training.Optim`: ``lr`` rises over ``warmup`` steps, then decays to zero
    by the last step or stays; the gradient's norm is cut at ``clip``.
    """

    builds = "scorefield.training.settings:Optim"
    kind: Literal["adam", "adamw"]
    lr: Positive
    betas: Annotated[tuple[Fraction, Fraction], Strict(False)]
    eps: Positive
    weight_decay: NonNegative
    warmup: Annotated[int, Field(ge=0)]
    decay: Literal["constant", "linear", "cosine", "inverse_sqrt"]
    clip: Positive | None

    def settings(self) -> dict[str, Any]:
        # Here the kind is an argument of the constructor.
        return dict(self)


class TrainSection(Section):
    """:class:`~scorefield.training.TrainSettings`: how long a training is, and what it keeps."""

    builds = "scorefield.training.settings:TrainSettings"
    steps: Count
    batch_size: Count
    checkpoint_every: Count
    log_every: Count
    ema_decay: Fraction
    keep: Count | None


def build_optim(section: OptimSection) -> Optim:
    """The optimiser and its schedule."""
    from scorefield.training import Optim

    return build(section, "optim", Optim)


def build_train(section: TrainSection) -> TrainSettings:
    """The settings of a training."""
    from scorefield.training import TrainSettings

    return build(section, "train", TrainSettings)

"""Training in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scorefield.checks import check_kind
from scorefield.data.given import Data, source_of
from scorefield.engine import Engine
from scorefield.errors import UnsupportedError, enough_memory
from scorefield.fields.base import ScoreField, check_field
from scorefield.fields.gradient import outside_inference
from scorefield.objectives.denoising import DenoisingScoreMatching
from scorefield.objectives.objective import Objective
from scorefield.objectives.regularizer import Regularizer
from scorefield.training.result import Fit
from scorefield.training.settings import Optim, TrainSettings
from scorefield.training.trainer import Trainer


@outside_inference
@enough_memory("a training with this network and batch_size: make one of them smaller")
def fit(
    field: ScoreField,
    data: Data,
    *,
    objective: Objective | None = None,
    regularizers: Sequence[Regularizer] = (),
    optim: Optim | None = None,
    steps: int = TrainSettings.steps,
    batch_size: int = TrainSettings.batch_size,
    ema_decay: float | None = TrainSettings.ema_decay,
    ema_halflife: float | None = TrainSettings.ema_halflife,
    log_every: int = TrainSettings.log_every,
    checkpoint_every: int | str = TrainSettings.checkpoint_every,
    keep: int | None = TrainSettings.keep,
    snapshot_every: int | None = TrainSettings.snapshot_every,
    accumulate: int = TrainSettings.accumulate,
    max_skipped: int = TrainSettings.max_skipped,
    seed: int = 0,
    folder: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    quiet: bool = False,
    engine: Engine | None = None,
) -> Fit:
    r"""Trains a field on data.

    Afterwards the field has the averaged weights and is in evaluation mode: ready to be sampled.

    Arguments:
        field: The field, trained in place.
        data: A distribution, a source, or points of shape ``(n, *shape)``: a tensor, a NumPy array,
            a list, a PyTorch data set or loader, with or without classes; see
            :func:`~scorefield.data.given.source_of`. Floating-point numbers are taken as they are,
            and bytes as image files are, :math:`p / 255`.
        objective: What is minimised; by default denoising score matching with EDM weighting for
            the data's own standard deviation, plus ``regularizers``.
        regularizers: What is added to the default objective.
        optim: The optimiser; by default Adam with a base rate of :math:`2 \cdot 10^{-3}`, a
            warm-up over 2% of the steps, cosine decay, and gradients clipped to norm 1.
        steps, batch_size, ema_decay, ema_halflife: See :class:`~.TrainSettings`.
        log_every, checkpoint_every, keep, snapshot_every: See there.
        accumulate, max_skipped: See there.
        seed, folder, config, quiet: See :class:`~.Trainer`; a training
            that stopped is taken up again in its folder.
        engine: What it runs on; :class:`~.Engine` by default.

    Raises:
        TypeError: If both ``objective`` and ``regularizers`` are given, or an object is of another
            class.
        ValueError: If the data, a number or the field cannot be used; also where the field was made
            under ``torch.inference_mode``.
        TrainingError: See :meth:`~scorefield.training.trainer.Trainer.run`.
    """
    if objective is not None and regularizers:
        raise UnsupportedError("give either an objective or regularizers: an objective has its own")
    settings = TrainSettings(
        steps=steps,
        batch_size=batch_size,
        checkpoint_every=checkpoint_every,
        log_every=log_every,
        ema_decay=ema_decay,
        keep=keep,
        ema_halflife=ema_halflife,
        snapshot_every=snapshot_every,
        accumulate=accumulate,
        max_skipped=max_skipped,
    )
    if engine is not None and not isinstance(engine, Engine):
        raise UnsupportedError(f"engine must be an Engine, as in Engine('cuda'), got {engine!r}")
    check_field(field)
    source = source_of(data)
    field.learn_shape(source.shape)
    if objective is None:
        objective = Objective(DenoisingScoreMatching(sigma_data=source.std), regularizers)
    if optim is None:
        optim = Optim(lr=2e-3, warmup=steps // 50, decay="cosine", clip=1.0)
    check_kind("objective", objective, Objective)
    check_kind("optim", optim, Optim)
    where = None if folder is None else Path(folder)
    return Trainer(
        field,
        source,
        objective,
        optim,
        settings,
        seed,
        where,
        config,
        quiet,
        engine=engine or Engine(),
    ).run()

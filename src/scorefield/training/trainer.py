r"""One trainer for every field and every objective.

A training is a pure function of its settings and its seed. Nothing random is remembered: the
data, the times and the noise of step :math:`k` are drawn at addresses that contain :math:`k`,
so that the state of a training is its weights, their average, the optimiser's moments, the
objective's controllers, and the number of steps done. What is restored from a checkpoint then
continues bit-exactly on the same hardware. torch's own dropout draws from its generator: where
a field has one, that generator is seeded from an address at each step, and given back at the end.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from scorefield.data.source import DataSource
from scorefield.dropout import dropouts, set_keys
from scorefield.engine import Engine
from scorefield.errors import (
    CheckpointError,
    Interrupted,
    TrainingError,
    UserError,
    out_of_memory,
)
from scorefield.fields.base import ScoreField, training_mode
from scorefield.fields.inputs import check_event
from scorefield.networks.augmentation import embeddings, set_labels
from scorefield.noise import Noise
from scorefield.objectives.objective import Objective
from scorefield.progress import Stages, clock, warn
from scorefield.training import checkpoint, identity, lengths, sharding
from scorefield.training.card import write_card
from scorefield.training.checkpoint import Checkpoint
from scorefield.training.cost import Forecast
from scorefield.training.guard import StopSignal, among_others, locked
from scorefield.training.record import Record, Row, Window
from scorefield.training.result import Fit
from scorefield.training.settings import Optim, TrainSettings
from scorefield.training.step import Stepper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The columns of a row before and after the terms of the loss.
_ORDER = (("loss",), ("grad_norm",))

Draw = Callable[[ScoreField], Mapping[str, "Figure"]]
"""What makes figures of a field, by their names."""

DrawFor = Callable[[DataSource], Draw | None]
"""What knows how to draw fields of some data, and nothing of other data."""


@dataclass(eq=False)
class Trainer:
    """Train a field; resume an earlier training in the same folder.

    Arguments:
        field: The field, trained in place; it and the objective move to the device of the engine,
            unless weights are in shards: it then stays where it is.
        source: The data.
        objective: What is minimised.
        optim: The optimiser.
        settings: The length of the training, and what it leaves behind.
        seed: The seed of everything random.
        folder: The run's folder, for checkpoints and metrics; nothing is written without one.
        config: The configuration, written into each file of weights.
        quiet: Whether to show nothing on the standard output.
        draw: Called with the field and its averaged weights, in evaluation mode, whenever there is
            a checkpoint; the figures that it returns go to TensorBoard under their names. It draws
            no part of what is trained.
        engine: The device and the precision of denoising score matching; regularisers, with their
            derivatives, are computed in the precision of the weights.

    Raises:
        ValueError: If the field has no parameters, or was made under ``torch.inference_mode``; if
            its event shape is not the data's, or it knows
            another number of classes than the data have.
    """

    field: ScoreField
    source: DataSource
    objective: Objective
    optim: Optim
    settings: TrainSettings
    seed: int = 0
    folder: Path | None = None
    config: Mapping[str, Any] | None = None
    quiet: bool = False
    draw: Draw | None = None
    engine: Engine = dataclass_field(default_factory=Engine)

    def __post_init__(self) -> None:
        field, source, settings = self.field, self.source, self.settings
        check_event(field.domain.shape, source.shape)
        if field.classes not in (None, source.classes):
            raise UserError(
                f"the field knows {field.classes} classes, the data {source.name} have "
                f"{source.classes or 'none'}"
            )
        if self.engine.sharded:
            sharding.check_sharded(field, self.objective)
        self.world = self.engine.world
        identity.share_weights(self.world, field)
        snapshots = self.folder is not None and settings.snapshot_every is not None
        self.stepper = Stepper(
            field,
            source,
            self.objective,
            self.optim,
            settings,
            Noise(self.seed),
            self.engine,
            snapshots,
        )
        self.ema = self.stepper.ema
        self.window = Window()
        self.step = 0
        self.saved: Path | None = None

    def run(self) -> Fit:
        """Trains up to the last step.

        The field then has the averaged weights and is in evaluation mode; its own weights are
        in the last checkpoint.

        A model card is written into the folder, unless there is a ``README.md`` already.

        Raises:
            TrainingError: If the loss or the gradient of ``max_skipped`` steps in a row is not
                finite (the checkpoints hold what was before), memory does not suffice, a file
                cannot be written, or another process trains in the folder.
            CheckpointError: If the folder belongs to another training.
            Interrupted: If SIGINT or SIGTERM arrived, before the first step or later; a checkpoint
                has been written.
            LostProcessError: If another process of the training has ended or does not answer.
        """
        begin = time.perf_counter()
        folder = self.folder if self.world.first else None
        with StopSignal() as stop, nullcontext() if folder is None else locked(folder):
            if self.world.size > 1:
                points = identity.of_points(self.source, self.stepper.noise)
                facts = self._identity() | {"points": points, "folder": bool(self.folder)}
                identity.check_same(self.world, **facts, settings=self.settings)
            if self.folder is not None:
                self._resume(self.folder / "checkpoints")
            record = Record(folder, self.step)
            with (
                Stages(self.quiet or not self.world.first) as stages,
                torch.random.fork_rng(self.stepper.generators, enabled=self.stepper.dropout),
                torch.enable_grad(),
                training_mode(self.stepper.field),
                among_others(self._last_good),
                self.world.heard(),
            ):
                self._loop(record, stages, stop)
                self.ema.copy_to(self.field)
            if folder is not None:
                facts = {
                    "data": self.source.name,
                    "seed": self.seed,
                    "batch size": self.settings.batch_size,
                }
                write_card(folder, self.field, facts)
        set_keys(dropouts(self.field), None)
        set_labels(embeddings(self.field), None)
        self.field.eval()
        return Fit(self.field, self.ema, tuple(record.rows), time.perf_counter() - begin)

    def _loop(self, record: Record, stages: Stages, stop: StopSignal) -> None:
        settings = self.settings
        weights = sum(t.nbytes for t in self.field.state_dict().values())
        forecast = Forecast(self.step, settings, weights, self.engine.wait, self.folder)
        since, timed, paused = time.perf_counter(), 0, 0.0
        saved, every = since, settings.checkpoints
        while self.step < settings.steps:
            self._guarded_step()
            timed += 1
            if (cost := forecast.after(self.step, paused)) is not None:
                stages.note(cost)
            last = self.step == settings.steps
            if last or self.step % settings.log_every == 0:
                self.engine.wait()
                now = time.perf_counter() - paused
                seconds = (now - since) / timed
                # Logging counts as part of the steps that follow, what is stored does not.
                since, timed = now, 0
                row = self._row(seconds)
                record.add(row)
                self._show(stages, row.get("loss", math.nan), seconds, last)
            past = time.perf_counter() - paused - saved
            due = every.due(self.step, settings.batch_size, past)
            # The clocks of several processes differ.
            called = self.world.any(stop.received or due)
            stopped = called and self.world.any(stop.received)
            due = last or called
            if due or self._is_snapshot():
                self.engine.wait()
                pause = time.perf_counter()
                if self._is_snapshot():
                    self._store_averages()
                if due:
                    self._save(record)
                now = time.perf_counter()
                paused += now - pause
                if due:
                    saved = now - paused
            if stopped and not last:
                raise Interrupted(self.step, self.saved)

    def _show(self, stages: Stages, loss: float, seconds: float, last: bool) -> None:
        step, steps = self.step, self.settings.steps
        left = clock((steps - step) * seconds)
        note = f"loss {loss:.4g}  {1e3 * seconds:.1f} ms/step  {left} left"
        stages.show("training", step, steps, f"{step}/{steps}  {note}")
        stages.follow(f"step {step}/{steps}  {note}", last)

    def _guarded_step(self) -> None:
        try:
            self.window.add(self.step + 1, self.stepper.take(self.step))
            self.step += 1
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise TrainingError(
                f"memory does not suffice for step {self.step + 1} with "
                f"batch_size={self.settings.batch_size}; {self._last_good()}"
            ) from error

    def _row(self, seconds: float) -> Row:
        self._check_finite()
        means, skipped = self.window.means(), len(self.window.skipped())
        self.window.clear()
        first, last = ({k: means.pop(k) for k in names if k in means} for names in _ORDER)
        return {
            "step": self.step,
            "images": self.step * self.settings.batch_size,
            **first,
            **means,
            **last,
            "lr": self.stepper.rate(self.step - 1),
            "ema_decay": self.ema.decay_at(self.step),
            "seconds_per_step": seconds,
            **({"skipped": skipped} if skipped else {}),
        }

    def _check_finite(self) -> None:
        """Ends a training whose last steps were all skipped."""
        first = self.stepper.stopped(self.step)
        if first is not None:
            more = self.settings.max_skipped - 1
            after = f", and the {more} steps after it are not finite either" if more else ""
            raise TrainingError(f"{self.stepper.fault(first)}{after}; {self._last_good()}")

    def _last_good(self) -> str:
        if self.saved is None:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self.saved}"

    def _identity(self) -> dict[str, Any]:
        """What must be equal to resume a training."""
        found = {
            "seed": self.seed,
            "batch_size": self.settings.batch_size,
            "ema_decay": self.settings.ema_decay,
            "ema_halflife": self.settings.ema_halflife,
            **({"averages": lengths.LENGTHS} if self.stepper.averages else {}),
            **{f"optim.{k}": v for k, v in asdict(self.optim).items()},
            **identity.of_source(self.source),
            **identity.of_module("field", self.field),
            **identity.of_module("objective", self.objective),
        }
        if self.optim.decay in ("cosine", "linear"):
            found["steps"] = self.settings.steps
        return found

    def _save(self, record: Record) -> None:
        self._check_finite()
        field = self.stepper.field
        if name := self.world.first_words(sharding.not_finite(field)):
            raise TrainingError(
                f"the weights {name} are not finite after step {self.step}; {self._last_good()}"
            )
        if self.folder is None:
            return
        folder, rest = self.folder / "checkpoints", self.stepper.state_dict()
        rest |= {"identity": self._identity(), "window": self.window.state_dict()}
        states = field.state_dict(), self.ema.state_dict(), rest
        model, ema, rest = sharding.gathered(states, self.world.first)
        if self.world.first:
            keep, parts = self.settings.keep, identity.parts(self.field)
            checkpoint.save(folder, self.step, model, ema, rest, self.config, keep, parts)
        # Nobody counts on it before it is there.
        self.world.any(False)
        self.saved = folder / checkpoint.name_of(self.step)
        if self.draw is not None:
            averaged = copy.deepcopy(self.field)
            self.ema.copy_to(averaged)
            if self.world.first:
                record.picture(self.step, self.draw(averaged.eval()))
        if record.rows:
            record.summarize({**record.rows[-1], "steps": self.settings.steps})

    def _is_snapshot(self) -> bool:
        every = self.settings.snapshot_every
        if self.folder is None or every is None:
            return False
        return self.step % every == 0 or self.step == self.settings.steps

    def _store_averages(self) -> None:
        assert self.folder is not None
        self._check_finite()
        states = {length: a.state_dict() for length, a in self.stepper.averages.items()}
        whole = sharding.gathered(states, self.world.first)
        if self.world.first:
            lengths.save(self.folder / "averages", self.step, whole, self.config)

    def _resume(self, folder: Path) -> None:
        """Resume from the newest complete checkpoint that the first process finds, if any."""
        found = checkpoint.newest(folder, self.world, warn)
        if found is not None:
            self._take_up(found)
        for path in checkpoint.set_aside(folder, self.step) if self.world.first else ():
            warn(f"{path} is out of the way of the training, which goes on from step {self.step}")

    def _take_up(self, found: Checkpoint) -> None:
        identity.check_own(self._identity(), found.state.get("identity"), found.path)
        if found.step > self.settings.steps:
            raise CheckpointError(
                f"{found.path} is beyond the {self.settings.steps} requested steps"
            )
        checkpoint.load_weights(self.field, found.model, found.path)
        sharding.copy_state(self.field, self.stepper.field)
        self.ema.load_state_dict(found.ema.tensors, found.step)
        try:
            self.stepper.load_state_dict(found.state, found.step)
            self.window.load_state_dict(found.state["window"])
        except (ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{found.path} belongs to another objective") from error
        self.step, self.saved = found.step, found.path

r"""One trainer for every field and every objective.

A training is a pure function of its settings and its seed. Nothing random is remembered: the
data, the times and the noise of step :math:`k` are drawn at addresses that contain :math:`k`,
so that the state of a training is its weights, their average, the optimiser's moments, the
objective's controllers, and the number of steps done. What is restored from a checkpoint then
continues bit-exactly on the same hardware. Dropout draws from torch's own generator: where a field
has one, that generator is seeded from an address at each step, and given back at the end.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from scorefield.data.source import DataSource
from scorefield.errors import CheckpointError, Interrupted, TrainingError, UserError, out_of_memory
from scorefield.fields.base import ScoreField
from scorefield.files import clean
from scorefield.noise import Noise
from scorefield.objectives.denoising import Batch
from scorefield.objectives.objective import Objective
from scorefield.progress import Stages, clock, warn
from scorefield.training import checkpoint, identity
from scorefield.training.checkpoint import Checkpoint
from scorefield.training.draws import has_dropout, joint_gradient, training_draws
from scorefield.training.ema import EMA
from scorefield.training.guard import StopSignal, locked
from scorefield.training.record import Record, Row, Window
from scorefield.training.settings import Optim, TrainSettings, multiplier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Draw = Callable[[ScoreField], Mapping[str, "Figure"]]
"""What makes figures of a field, by their names."""

DrawFor = Callable[[DataSource], Draw | None]
"""What knows how to draw fields of some data, and nothing of other data."""


@dataclass(frozen=True)
class Fit:
    """A finished training.

    Attributes:
        field: The field, with the averaged weights, in evaluation mode.
        ema: The average.
        history: The rows of the metrics.
        seconds: The time that the training took, in this process.
    """

    field: ScoreField
    ema: EMA
    history: tuple[Row, ...]
    seconds: float


@dataclass(eq=False)
class Trainer:
    """Train a field; resume an earlier training in the same folder.

    Arguments:
        field: The field, trained in place.
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

    def __post_init__(self) -> None:
        field, source, optim = self.field, self.source, self.optim
        self.parameters = [p for p in field.parameters() if p.requires_grad]
        if not self.parameters:
            raise UserError(f"{type(field).__name__} has no parameters to train")
        if any(p.is_inference() for p in self.parameters):
            raise UserError(
                f"{type(field).__name__} was made under torch.inference_mode, and cannot be trained"
            )
        if field.domain.shape != source.shape:
            raise UserError(
                f"the field lives on the event shape {field.domain.shape}, the data "
                f"{source.name} on {source.shape}"
            )
        if field.classes not in (None, source.classes):
            raise UserError(
                f"the field knows {field.classes} classes, the data {source.name} have "
                f"{source.classes or 'none'}"
            )
        self.noise = Noise(self.seed)
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        self.optimizer = kinds[optim.kind](
            self.parameters,
            lr=optim.lr,
            betas=optim.betas,
            eps=optim.eps,
            weight_decay=optim.weight_decay,
            fused=True,
        )
        self.gradient = joint_gradient(self.parameters)
        self.ema = EMA(field, self.settings.ema_decay)
        self.window = Window()
        self.step = 0
        self.saved: Path | None = None
        self._dropout = has_dropout(field)
        self._ahead = training_draws(
            field, source, self.objective, self.noise, self.settings.batch_size
        )

    def run(self) -> Fit:
        """Trains up to the last step.

        The field then has the averaged weights and is in evaluation mode; its own weights are
        in the last checkpoint.

        Raises:
            TrainingError: If a loss or the gradient is not finite (the checkpoints hold what
                was before), memory does not suffice, a file cannot be written, or another
                process trains in the folder.
            CheckpointError: If the folder belongs to another training.
            Interrupted: If SIGINT or SIGTERM arrived; a checkpoint has been written.
        """
        begin = time.perf_counter()
        with nullcontext() if self.folder is None else locked(self.folder):
            if self.folder is not None:
                self._resume(self.folder / "checkpoints")
            record = Record(self.folder, self.step)
            with (
                Stages(self.quiet) as stages,
                torch.random.fork_rng(enabled=self._dropout),
                torch.enable_grad(),
            ):
                self._loop(record, stages)
        self.ema.copy_to(self.field)
        self.field.eval()
        return Fit(self.field, self.ema, tuple(record.rows), time.perf_counter() - begin)

    def _loop(self, record: Record, stages: Stages) -> None:
        settings = self.settings
        self.field.train()
        clock, timed = time.perf_counter(), 0
        with StopSignal() as stop:
            while self.step < settings.steps:
                self._guarded_step()
                timed += 1
                last = self.step == settings.steps
                due = last or self.step % settings.log_every == 0
                if due:
                    now = time.perf_counter()
                    seconds = (now - clock) / timed
                    # Logging counts as part of the steps that follow, checkpoints do not.
                    clock, timed = now, 0
                    row = self._row(seconds)
                    record.add(row)
                    self._show(stages, row["loss"], seconds, last)
                if last or stop.received or self.step % settings.checkpoint_every == 0:
                    pause = time.perf_counter()
                    self._save()
                    if self.draw is not None and self.folder is not None:
                        averaged = copy.deepcopy(self.field)
                        self.ema.copy_to(averaged)
                        record.picture(self.step, self.draw(averaged.eval()))
                    if record.rows:
                        record.summarize({**record.rows[-1], "steps": settings.steps})
                    clock += time.perf_counter() - pause
                if stop.received and not last:
                    raise Interrupted(self.step, self.saved)

    def _show(self, stages: Stages, loss: float, seconds: float, last: bool) -> None:
        step, steps = self.step, self.settings.steps
        left = clock((steps - step) * seconds)
        note = f"loss {loss:.4g}  {1e3 * seconds:.1f} ms/step  {left} left"
        stages.show("training", step, steps, f"{step}/{steps}  {note}")
        stages.follow(f"step {step}/{steps}  {note}", last)

    def _guarded_step(self) -> None:
        try:
            self._train_step()
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise TrainingError(
                f"memory does not suffice for step {self.step + 1} with "
                f"batch_size={self.settings.batch_size}; {self._last_good()}"
            ) from error

    def _train_step(self) -> None:
        step, optim = self.step, self.optim
        x, t, z, *others = self._ahead(step)
        if self._dropout:
            torch.manual_seed(int(others.pop()))
        for group in self.optimizer.param_groups:
            group["lr"] = optim.lr * self._multiplier(step)
        losses = self.objective(self.field, Batch(x, t, z, *others), self.noise, step)
        self.gradient.zero_()
        losses.total.backward()
        norm = torch.linalg.vector_norm(self.gradient)
        if optim.clip is not None:
            self.gradient.mul_((optim.clip / norm).clamp(max=1.0))
        self.optimizer.step()
        self.ema.update()
        self.step += 1
        self.window.add(
            self.step, {**losses.terms, "loss": losses.total.detach(), "grad_norm": norm}
        )

    def _multiplier(self, step: int) -> float:
        return multiplier(step, self.settings.steps, self.optim.warmup, self.optim.decay)

    def _row(self, seconds: float) -> Row:
        self._check_finite()
        means = self.window.means()
        self.window.clear()
        loss, norm = means.pop("loss"), means.pop("grad_norm")
        return {
            "step": self.step,
            "images": self.step * self.settings.batch_size,
            "loss": loss,
            **means,
            "grad_norm": norm,
            "lr": self.optim.lr * self._multiplier(self.step - 1),
            "ema_decay": self.ema.decay_at(self.step),
            "seconds_per_step": seconds,
        }

    def _check_finite(self) -> None:
        failure = self.window.failure()
        if failure is not None:
            totals = {"loss": "total loss", "grad_norm": "norm of the gradient"}
            what = totals.get(failure.name, f"loss {failure.name!r}")
            raise TrainingError(
                f"the {what} is {failure.value} at step {failure.step}; {self._last_good()}"
            )

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
            **{f"optim.{k}": v for k, v in asdict(self.optim).items()},
            **identity.of_source(self.source),
            **identity.of_module("field", self.field),
            **identity.of_module("objective", self.objective),
        }
        if self.optim.decay in ("cosine", "linear"):
            found["steps"] = self.settings.steps
        return found

    def _save(self) -> None:
        self._check_finite()
        for name, parameter in self.field.named_parameters():
            if not bool(parameter.isfinite().all()):
                raise TrainingError(
                    f"the weights {name} are not finite after step {self.step}; {self._last_good()}"
                )
        if self.folder is None:
            return
        self.saved = checkpoint.save(
            self.folder / "checkpoints",
            self.step,
            self.field.state_dict(),
            self.ema.state_dict(),
            {
                "identity": self._identity(),
                "optimizer": self.optimizer.state_dict(),
                "objective": self.objective.state_dict(),
                "window": self.window.state_dict(),
            },
            self.config,
            self.settings.keep,
        )

    def _resume(self, folder: Path) -> None:
        """Resume from the newest complete checkpoint, if there is one."""
        clean(folder)
        found = checkpoint.latest(folder, warn)
        if found is not None:
            self._take_up(found)
        for path in checkpoint.set_aside(folder, self.step):
            warn(f"{path} is out of the way of the training, which goes on from step {self.step}")

    def _take_up(self, found: Checkpoint) -> None:
        mine, theirs = self._identity(), found.state.get("identity")
        if not isinstance(theirs, dict):
            raise CheckpointError(f"{found.path} does not state its training")
        theirs = identity.translated(theirs)
        # In this order: what differs first is what the rest follows from.
        for name in mine | theirs:
            if mine.get(name) != theirs.get(name):
                raise CheckpointError(
                    f"{found.path} belongs to another training: {name} is "
                    f"{theirs.get(name, 'missing')} there and {mine.get(name, 'missing')} here"
                )
        if found.step > self.settings.steps:
            raise CheckpointError(
                f"{found.path} is beyond the {self.settings.steps} requested steps"
            )
        checkpoint.load_weights(self.field, found.model, found.path)
        self.ema.load_state_dict(found.ema.tensors, found.step)
        try:
            self.optimizer.load_state_dict(found.state["optimizer"])
            self.objective.load_state_dict(found.state["objective"])
            self.window.load_state_dict(found.state["window"])
        except (ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{found.path} belongs to another objective") from error
        self.step, self.saved = found.step, found.path

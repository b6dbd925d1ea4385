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
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scorefield.data.source import DataSource
from scorefield.engine import Engine, exact
from scorefield.errors import CheckpointError, Interrupted, TrainingError, UserError, out_of_memory
from scorefield.fields.base import ScoreField
from scorefield.files import clean
from scorefield.noise import Noise
from scorefield.objectives.denoising import Batch
from scorefield.objectives.objective import Objective
from scorefield.progress import Stages, clock, warn
from scorefield.training import checkpoint, identity, lengths
from scorefield.training.checkpoint import Checkpoint
from scorefield.training.descent import Descent
from scorefield.training.draws import has_dropout, training_draws
from scorefield.training.ema import Average
from scorefield.training.faults import locate
from scorefield.training.guard import StopSignal, locked
from scorefield.training.record import TAKEN, Record, Row, Window
from scorefield.training.settings import Optim, TrainSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The columns of a row before and after the terms of the loss.
_ORDER = (("loss",), ("grad_norm",))

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
    ema: Average
    history: tuple[Row, ...]
    seconds: float


@dataclass(eq=False)
class Trainer:
    """Train a field; resume an earlier training in the same folder.

    Arguments:
        field: The field, trained in place; it and the objective move to the device of the engine.
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
        parameters = [p for p in field.parameters() if p.requires_grad]
        if not parameters:
            raise UserError(f"{type(field).__name__} has no parameters to train")
        if any(p.is_inference() for p in parameters):
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
        self.engine.place(field)
        self.objective.to(self.engine.torch_device)
        scaled = self.engine.precision == "float16"
        self.descent = Descent(parameters, self.optim, settings.max_skipped, scaled)
        self.ema = settings.average(field)
        self.averages = settings.averages(field)
        self.window = Window()
        self.step = 0
        self.saved: Path | None = None
        self._dropout = has_dropout(field)
        self._moving = [*self.objective.buffers(), *running_statistics(field)]
        self._ahead = training_draws(
            field, source, self.objective, self.noise, settings.batch_size
        )

    def run(self) -> Fit:
        """Trains up to the last step.

        The field then has the averaged weights and is in evaluation mode; its own weights are
        in the last checkpoint.

        Raises:
            TrainingError: If the loss or the gradient of ``max_skipped`` steps in a row is not
                finite (the checkpoints hold what was before), memory does not suffice, a file
                cannot be written, or another process trains in the folder.
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
                torch.random.fork_rng(self._generators(), enabled=self._dropout),
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
                    self._show(stages, row.get("loss", math.nan), seconds, last)
                if self.averages and (last or self.step % settings.snapshot_every == 0):
                    self._store_averages()
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
        before = [buffer.clone() for buffer in self._moving]
        terms = self._losses(self.step)
        rate = self.optim.lr * self.optim.multiplier(self.step, self.settings)
        self.step += 1
        norm, taken = self.descent.step(self.step, rate, terms["loss"])
        for buffer, old in zip(self._moving, before, strict=True):
            buffer.copy_(buffer.where(taken > 0, old))
        self.ema.update(taken)
        for average in self.averages.values():
            average.update(taken)
        self.window.add(self.step, {**terms, "grad_norm": norm, TAKEN: taken})

    def _losses(self, step: int) -> dict[str, Tensor]:
        """The terms of the loss of a step, of which the gradient is then known, and their sum."""
        batch, settings = self._batch(step), self.settings
        self.descent.clear()
        base = torch.zeros((), device=batch.x.device)
        for part in batch.split(settings.accumulate):
            with self.engine.running():
                loss = self.objective.base(self.field, part)
                loss = loss * (len(part.x) / settings.batch_size)
                self.descent.add(loss)
            base = base + loss.detach()
        with exact():
            rest, terms = self.objective.regularize(self.field, batch.x, base, self.noise, step)
            if rest is not None:
                self.descent.add(rest)
        total = base if rest is None else base + rest.detach()
        return {"denoising": base, **terms, "loss": total}

    def _batch(self, step: int) -> Batch:
        x, t, z, *others = self._ahead(step)
        if self._dropout:
            torch.manual_seed(int(others.pop()))
        return Batch(x, t, z, *others)

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
            "lr": self.optim.lr * self.optim.multiplier(self.step - 1, self.settings),
            "ema_decay": self.ema.decay_at(self.step),
            "seconds_per_step": seconds,
            **({"skipped": skipped} if skipped else {}),
        }

    def _check_finite(self) -> None:
        """Ends a training whose last steps were all skipped."""
        first, most = int(self.descent.last) + 1, self.settings.max_skipped
        if self.step - first + 1 < most:
            return
        # Nothing has changed since: the step repeats itself.
        terms = self._losses(first - 1)
        terms["grad_norm"] = torch.linalg.vector_norm(self.descent.gradient)
        bad = {name: float(term) for name, term in terms.items() if not bool(term.isfinite())}
        with self.engine.running(), torch.compiler.set_stance("force_eager"):
            where = locate(
                self.field, self.objective, self._batch(first - 1), self.noise, first - 1
            )
        totals = {"loss": "total loss", "grad_norm": "norm of the gradient"}
        name = next(iter(bad), "grad_norm")
        what = totals.get(name, f"loss {name!r}")
        more = f" and the {most - 1} steps after it are not finite either" if most > 1 else ""
        raise TrainingError(
            f"the {what} is {bad.get(name, math.inf)} at step {first}{where}{more}; "
            f"{self._last_good()}"
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
            "ema_halflife": self.settings.ema_halflife,
            **({"averages": lengths.LENGTHS} if self.averages else {}),
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
                "objective": self.objective.state_dict(),
                "window": self.window.state_dict(),
                "averages": {k: a.state_dict() for k, a in self.averages.items()},
                **self.descent.state_dict(),
            },
            self.config,
            self.settings.keep,
        )

    def _store_averages(self) -> None:
        assert self.folder is not None
        self._check_finite()
        lengths.save(self.folder / "averages", self.step, self.averages, self.config)

    def _generators(self) -> list[torch.device]:
        """The devices whose generators dropout draws from, beside the CPU."""
        device = self.engine.torch_device
        return [] if device.type == "cpu" else [device]

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
            # What the first versions wrote has no steps that were skipped.
            self.descent.load_state_dict({"last": found.step, **found.state})
            for name, average in self.averages.items():
                average.load_state_dict(found.state["averages"][name], found.step)
            self.objective.load_state_dict(found.state["objective"])
            self.window.load_state_dict(found.state["window"])
        except (ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{found.path} belongs to another objective") from error
        self.step, self.saved = found.step, found.path

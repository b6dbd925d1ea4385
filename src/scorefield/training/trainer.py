r"""One trainer for every field and every objective.

A training is a pure function of its settings and its seed. Nothing random is remembered: the
data, the times and the noise of step :math:`k` are drawn at addresses that contain :math:`k`,
so that the state of a training is its weights, their average, the optimiser's moments, the
objective's controllers, and the number of steps done. What is restored from a checkpoint then
goes on as if it had never stopped, to the bit on one machine.

Dropout is the exception that needs care, since torch's layers draw from torch's own generator:
where a field has one, that generator is seeded anew at each step, from an address, and given
back as it was at the end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.modules.dropout import _DropoutNd

from scorefield.data import DataSource
from scorefield.fields import ScoreField
from scorefield.noise import Lookahead, Noise
from scorefield.objectives import Batch, Objective
from scorefield.training import checkpoint
from scorefield.training.display import Display
from scorefield.training.ema import EMA
from scorefield.training.errors import CheckpointError, Interrupted, TrainingError
from scorefield.training.record import Record, Row
from scorefield.training.schedule import multiplier
from scorefield.training.settings import Optim, TrainSettings
from scorefield.training.stop import StopSignal
from scorefield.training.window import Window

_NUMBERS_AHEAD = 2**18
_STEPS_AHEAD = 32


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


class Trainer:
    """Trains a field, and goes on where an earlier training in the same folder stopped.

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

    Raises:
        ValueError: If the field has no parameters, or its event shape is not the data's.
    """

    def __init__(
        self,
        field: ScoreField,
        source: DataSource,
        objective: Objective,
        optim: Optim,
        settings: TrainSettings,
        seed: int = 0,
        folder: Path | None = None,
        config: Mapping[str, Any] | None = None,
        quiet: bool = False,
    ) -> None:
        self.parameters = [p for p in field.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError(f"{type(field).__name__} has no parameters to train")
        if field.domain.shape != source.shape:
            raise ValueError(
                f"the field lives on the event shape {field.domain.shape}, the data "
                f"{source.name} on {source.shape}"
            )
        self.field = field
        self.source = source
        self.objective = objective
        self.optim = optim
        self.settings = settings
        self.noise = Noise(seed)
        self.folder = folder
        self.config = config
        self.quiet = quiet
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        self.optimizer = kinds[optim.kind](
            self.parameters,
            lr=optim.lr,
            betas=optim.betas,
            eps=optim.eps,
            weight_decay=optim.weight_decay,
            fused=True,
        )
        self.gradient = _joint_gradient(self.parameters)
        self.ema = EMA(field, settings.ema_decay)
        self.window = Window()
        self.step = 0
        self.saved: Path | None = None
        self._dropout = any(isinstance(m, _DropoutNd) and m.p > 0 for m in field.modules())
        self._ahead = self._lookahead()

    def run(self) -> Fit:
        """Trains up to the last step.

        The field then has the averaged weights and is in evaluation mode; its own weights are
        in the last checkpoint.

        Raises:
            TrainingError: If a loss or the gradient is not finite (the checkpoints hold what
                was before), memory does not suffice, or a file cannot be written.
            CheckpointError: If the folder belongs to another training.
            Interrupted: If SIGINT or SIGTERM arrived; a checkpoint has been written.
        """
        begin = time.perf_counter()
        if self.folder is not None:
            self._resume(self.folder / "checkpoints")
        record = Record(self.folder, self.step)
        try:
            with (
                Display(self.settings.steps, self.step, self.quiet) as display,
                torch.random.fork_rng(enabled=self._dropout),
            ):
                self._loop(record, display)
        finally:
            record.close()
        self.ema.copy_to(self.field)
        self.field.eval()
        return Fit(self.field, self.ema, tuple(record.rows), time.perf_counter() - begin)

    def _loop(self, record: Record, display: Display) -> None:
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
                    display.progress(self.step, row["loss"], seconds)
                if last or stop.received or self.step % settings.checkpoint_every == 0:
                    pause = time.perf_counter()
                    self._save()
                    if record.rows:
                        record.summarize({**record.rows[-1], "steps": settings.steps})
                    clock += time.perf_counter() - pause
                if stop.received and not last:
                    raise Interrupted(self.step, self.saved)

    def _guarded_step(self) -> None:
        try:
            self._train_step()
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            raise TrainingError(
                f"memory does not suffice for step {self.step + 1} with "
                f"batch_size={self.settings.batch_size}; {self._last_good()}"
            ) from error

    def _train_step(self) -> None:
        step, optim = self.step, self.optim
        x, t, z, *seed = self._ahead(step)
        if seed:
            torch.manual_seed(int(seed[0]))
        for group in self.optimizer.param_groups:
            group["lr"] = optim.lr * self._multiplier(step)
        losses = self.objective(self.field, Batch(x, t, z), self.noise, step)
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

    def _lookahead(self) -> Lookahead:
        """The random numbers of the steps, drawn for many steps at once.

        A draw costs nearly the same for one step as for many.
        """
        batch_size = self.settings.batch_size
        device, dtype = self.parameters[0].device, self.parameters[0].dtype
        index = torch.arange(batch_size)

        def draw(steps: Tensor) -> tuple[Tensor, ...]:
            x = self.source.batch(self.noise, steps.squeeze(1), batch_size, dtype)
            t, z = self.objective.draw(self.field, self.noise, index, steps)
            draws = [d.to(device=device, dtype=dtype) for d in (x, t, z)]
            if self._dropout:
                # 32 bits: torch's generator on the CPU uses no more of a seed.
                draws.append(self.noise.integers("dropout", 2**32, (), steps * 0, steps)[:, 0])
            return tuple(draws)

        numbers = batch_size * (2 * self.field.domain.dim + 1)
        return Lookahead(draw, max(1, min(_STEPS_AHEAD, _NUMBERS_AHEAD // numbers)))

    def _multiplier(self, step: int) -> float:
        return multiplier(step, self.settings.steps, self.optim.warmup, self.optim.decay)

    def _row(self, seconds: float) -> Row:
        """The row of the metrics for the steps since the last one."""
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
        """What two trainings must share for one to go on where the other stopped."""
        identity = {
            "seed": self.noise.seed,
            "batch_size": self.settings.batch_size,
            "ema_decay": self.settings.ema_decay,
            **{f"optim.{k}": v for k, v in asdict(self.optim).items()},
        }
        if self.optim.decay in ("cosine", "linear"):
            identity["steps"] = self.settings.steps
        return identity

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
        """Takes up the newest checkpoint that is whole, if there is one."""
        checkpoint.clean(folder)
        found = checkpoint.latest(folder, Display.warn)
        if found is None:
            return
        for name, mine in self._identity().items():
            theirs = found.state["identity"].get(name)
            if theirs != mine:
                raise CheckpointError(
                    f"{found.path} belongs to another training: {name} is {theirs} there and "
                    f"{mine} here"
                )
        if found.step > self.settings.steps:
            raise CheckpointError(
                f"{found.path} is beyond the {self.settings.steps} steps that were asked for"
            )
        checkpoint.load_weights(self.field, found.model, found.path)
        self.ema.load_state_dict(found.ema.tensors, found.step)
        try:
            self.optimizer.load_state_dict(found.state["optimizer"])
            self.objective.load_state_dict(found.state["objective"])
        except (ValueError, RuntimeError, KeyError) as error:
            raise CheckpointError(f"{found.path} belongs to another objective") from error
        self.window.load_state_dict(found.state["window"])
        self.step, self.saved = found.step, found.path


def _joint_gradient(parameters: Sequence[Parameter]) -> Tensor:
    """One vector that the gradients of all parameters are parts of.

    Clearing, measuring and clipping it are one operation each, where separate gradients, made
    anew at each step, cost a tenth of a small network's step.

    Raises:
        ValueError: If the parameters differ in dtype or device.
    """
    kinds = {(p.dtype, p.device) for p in parameters}
    if len(kinds) > 1:
        raise ValueError("a field is trained in one dtype and on one device, not in several")
    joint = parameters[0].new_zeros(sum(p.numel() for p in parameters))
    parts = joint.split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)
    return joint


def _out_of_memory(error: Exception) -> bool:
    # On the CPU, torch says it in words only.
    words = ("can't allocate memory", "not enough memory")
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(w in str(error) for w in words)

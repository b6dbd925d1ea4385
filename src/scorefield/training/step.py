"""One step of a training, computed without waiting for the device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from scorefield.data.source import DataSource
from scorefield.dropout import dropouts, set_keys
from scorefield.engine import Engine, exact
from scorefield.errors import UserError, out_of_memory
from scorefield.fields.base import ScoreField
from scorefield.networks.augmentation import embeddings, set_labels
from scorefield.noise import Noise
from scorefield.objectives.denoising import Batch
from scorefield.objectives.objective import Objective
from scorefield.training.capture import Captured
from scorefield.training.descent import Descent
from scorefield.training.draws import check_shared, has_dropout, running_statistics, training_draws
from scorefield.training.faults import faulty_layer, faulty_term
from scorefield.training.lengths import LENGTHS, PowerAverage
from scorefield.training.reduction import Reduction
from scorefield.training.settings import Optim, TrainSettings
from scorefield.training.sharding import placed
from scorefield.world import ALONE


class Stepper:
    """The weights in training, all that follows from them, and the step from one to the next.

    A step that is skipped, see :class:`~scorefield.training.descent.Descent`, leaves weights,
    averages, controllers and running statistics as they are.

    Arguments:
        field: The field; it and the objective are moved to the engine's device, but for a field
            whose weights are trained in shards, see :func:`~.sharding.placed`.
        source: The data.
        objective: What is minimised.
        optim: The optimiser.
        settings: How the steps are taken.
        noise: The source of all that is random.
        engine: What denoising score matching runs on; regularisers run in the precision of the
            weights.
        snapshots: Whether the averages of :mod:`~scorefield.training.lengths` are tracked.

    Attributes:
        field: The field that is trained.
        ema: The average of the weights.
        generators: The devices, beside the CPU, whose generators torch's own dropout draws from.
        averages: The averages of :data:`~.LENGTHS`.

    Raises:
        ValueError: If the field has no parameters, or was made under ``torch.inference_mode``.
    """

    def __init__(
        self,
        field: ScoreField,
        source: DataSource,
        objective: Objective,
        optim: Optim,
        settings: TrainSettings,
        noise: Noise,
        engine: Engine,
        snapshots: bool = False,
    ) -> None:
        if any(p.is_inference() for p in field.parameters()):
            raise UserError(
                f"{type(field).__name__} was made under torch.inference_mode, and cannot be trained"
            )
        self.field = field = placed(field, engine)
        self.objective = objective.to(engine.torch_device)
        # On a device of another kind, parameters may be other objects than before.
        parameters = [p for p in field.parameters() if p.requires_grad]
        if not parameters:
            raise UserError(f"{type(field).__name__} has no parameters to train")
        self.optim, self.settings, self.noise, self.engine = optim, settings, noise, engine
        scaled = engine.precision == "float16"
        shards = engine.world if engine.sharded else ALONE
        self.descent = Descent(parameters, optim, settings.max_skipped, scaled, shards)
        self._reduction = None
        if engine.world.size > 1:
            check_shared(field)
            if not engine.sharded:
                self._reduction = Reduction(parameters, self.descent.gradient, engine.world)
        self.ema = settings.average(field)
        self.averages = {each: PowerAverage(field, each) for each in LENGTHS if snapshots}
        self._averages = [self.ema, *self.averages.values()]
        self.dropout, self._layers = has_dropout(field), dropouts(field)
        self._augmented = embeddings(field)
        self.generators = [] if engine.torch_device.type == "cpu" else [engine.torch_device]
        self._captured = self._to_capture()
        self._moving = [*objective.buffers(), *running_statistics(field)]
        self._ahead = training_draws(
            field,
            source,
            objective,
            noise,
            settings.batch_size,
            engine.data_on_device,
            engine.world,
        )

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.optim.lr * self.optim.multiplier(step, self.settings)

    def take(self, step: int) -> dict[str, Tensor]:
        """Takes or skips a step, counted from 0, and returns its scalars: the terms of the loss,
        their sum ``loss``, the norm of the gradient ``grad_norm``, and ``taken``, 1
        or 0 for a step that is skipped.
        """
        batch = self._batch(step)
        self._begin(step)
        if self._captured is None or self.objective.due(step):
            return self._advance(batch, step)
        try:
            return self._captured(*batch)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise UserError(
                f"engine: a training step of {type(self.field).__name__} cannot be captured in a "
                f"CUDA graph; set graphs=false ({error})"
            ) from error

    def _to_capture(self) -> Captured | None:
        if not self.engine.graphs:
            return None
        if self.engine.world.size > 1:
            raise UserError("engine: graphs=true is for trainings by one process")
        return Captured(lambda *parts: self._advance(Batch(*parts)))

    def _begin(self, step: int) -> None:
        """What of a step the host has to say."""
        self.descent.begin(step + 1, self.rate(step))
        for average in self._averages:
            average.begin()

    def _advance(self, batch: Batch, step: int | None = None) -> dict[str, Tensor]:
        """The step that was begun, with the regularisers that are due at its number."""
        before = [buffer.clone() for buffer in self._moving]
        scalars = self._losses(batch, step)
        norm, taken = self.descent.step(scalars["loss"])
        for buffer, old in zip(self._moving, before, strict=True):
            buffer.copy_(buffer.where(taken > 0, old))
        for average in self._averages:
            average.take_in(taken)
        return {**scalars, "grad_norm": norm, "taken": taken}

    def stopped(self, done: int) -> int | None:
        """The first of the steps, counted from 1, that were skipped in a row up to the last of
        ``done``, if they are too many; this waits for the device.
        """
        first = int(self.descent.last) + 1
        return first if done - first + 1 >= self.settings.max_skipped else None

    def fault(self, step: int) -> str:
        """What is not finite at a step, counted from 1, that was skipped and is the next to be
        taken: a clause.
        """
        terms = self._losses(self._batch(step - 1), step - 1)
        terms["grad_norm"] = self.descent.norm()
        found = ((name, float(term)) for name, term in terms.items())
        # A gradient that overflows by the loss scale alone is finite here.
        name, value = next((f for f in found if not math.isfinite(f[1])), ("grad_norm", math.inf))
        totals = {"loss": "total loss", "grad_norm": "norm of the gradient"}
        batch, layers = self._batch(step - 1), []
        x = self._clean(batch)
        with self.engine.running(), torch.compiler.set_stance("force_eager"):
            for part in self._parts(batch):
                self._set_rows(part)
                layers.append(faulty_layer(self.field, self.objective, part))
            base, where = terms[self.objective.denoising.name], next(filter(None, layers), "")
            where = where or faulty_term(self.field, self.objective, x, base, self.noise, step - 1)
        where = self.engine.world.first_words(where)
        scale = self.descent.scale
        scaled = "" if scale is None else f" with a loss scale of {float(scale):g}"
        return f"the {totals.get(name, f'loss {name!r}')} is {value} at step {step}{scaled}{where}"

    def state_dict(self) -> dict[str, Any]:
        """What the steps to come depend on beside the weights and their average."""
        return {
            "objective": self.objective.state_dict(),
            "averages": {name: a.state_dict() for name, a in self.averages.items()},
            **self.descent.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any], done: int) -> None:
        """Takes back what :meth:`state_dict` gave after so many steps.

        Raises:
            ValueError, RuntimeError, LookupError, TypeError, AttributeError: If it is that of
                another training.
        """
        # What the first versions wrote has no steps that were skipped.
        self.descent.load_state_dict({"last": done, **state})
        self.objective.load_state_dict(state["objective"])
        # The moments are other tensors now.
        self._captured = self._to_capture()
        for name, average in self.averages.items():
            average.load_state_dict(state["averages"][name], done)

    def _losses(self, batch: Batch, step: int | None) -> dict[str, Tensor]:
        """The terms of the loss of a step and their sum, whose gradient the descent then has: those
        of all processes. Without its number it is a step at which no regulariser is due.
        """
        base: list[Tensor] = []
        world, n = self.engine.world, self.settings.batch_size
        due = step is not None and bool(self.objective.due(step))
        parts = self._parts(batch)
        self.descent.clear()
        for number, part in enumerate(parts, start=1):
            share = len(part.x) / n
            self._set_rows(part)
            with self.engine.running():
                loss = self.objective.base(self.field, part)
                with self._last(number == len(parts) and not due):
                    self.descent.add(loss, share)
            base.append(loss.detach() * share)
        total = sum(base[1:], base[0])
        if step is not None and due:
            x = self._clean(batch)
            with self.engine.running(), exact():
                rest, terms = self.objective.regularize(
                    self.field, x, total, self.noise, step, world
                )
                if rest is not None and rest.requires_grad:
                    with self._last(True):
                        self.descent.add(rest)
        if self._reduction is not None:
            self._reduction.finish()
        if not due:
            # After the gradient, of which some processes have sent a part already.
            (total,) = world.total([total])
            terms = {self.objective.denoising.name: total, "loss": total}
        return terms

    def _parts(self, batch: Batch) -> list[Batch]:
        # The same number in all processes, which exchange the weights of each part.
        fewest = self.settings.batch_size // self.engine.world.size
        return batch.split(min(self.settings.accumulate, fewest))

    def _set_rows(self, part: Batch) -> None:
        """Sets what layers of the field receive of the rows of a batch."""
        set_keys(self._layers, part.keys)
        set_labels(self._augmented, part.labels)

    def _clean(self, batch: Batch) -> Tensor:
        """The points of the whole batch as regularisers see them."""
        own = batch.x if batch.before is None else batch.before
        return self.engine.world.gather(own, self.settings.batch_size)

    def _last(self, last: bool) -> AbstractContextManager[None]:
        """The context of a backward pass, which may be the last one of a step."""
        return self._reduction.last() if last and self._reduction is not None else nullcontext()

    def _batch(self, step: int) -> Batch:
        x, t, z, *others = self._ahead(step)
        if self.dropout:
            torch.manual_seed(int(others.pop()))
        augmented = self.objective.augmentation is not None
        before = others.pop() if augmented and self.objective.regularizers else None
        labels = others.pop() if augmented else None
        keys = others.pop() if self._layers else None
        classes = others.pop() if others else None
        return Batch(x, t, z, classes, keys, labels, before)

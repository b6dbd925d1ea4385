"""A run: the folder of one trained configuration.

``runs/{dataset}/{model_id}/seed{n}/`` holds ``config_resolved.yaml`` and ``environment.json``,
what the training leaves (``metrics.csv``, ``metrics.json``, ``tb/``, ``checkpoints/``, and
``.lock``, which keeps a second training out), and what is made from it (``samples/``, ``eval/``).
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from scorefield.config import schema
from scorefield.config.build import (
    build_engine,
    build_field,
    build_objective,
    build_sampler,
    build_source,
    build_training,
    check_sampler,
)
from scorefield.config.config import Config
from scorefield.config.custom import Custom
from scorefield.config.document import dump, read, shown
from scorefield.data.source import DataSource
from scorefield.engine import Engine
from scorefield.errors import CheckpointError, ConfigError, RunError, section_of
from scorefield.fields.base import ScoreField
from scorefield.files import absence, clean, delete_folder, write_folder
from scorefield.noise import Noise
from scorefield.objectives.objective import Objective
from scorefield.progress import warn
from scorefield.runs.environment import environment, read_environment, record_engine
from scorefield.runs.identity import check_same, differences_of
from scorefield.samplers.base import Sampler
from scorefield.training import checkpoint as checkpoints
from scorefield.training.checkpoint import Checkpoint
from scorefield.training.guard import locked
from scorefield.training.result import Fit
from scorefield.training.sharding import check_sharded
from scorefield.training.trainer import DrawFor, Trainer
from scorefield.world import ALONE, World

CONFIG, ENVIRONMENT = "config_resolved.yaml", "environment.json"


class Run:
    """A folder and the configuration in it; made by :meth:`create` or :meth:`open`."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder = folder
        self.config = config

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.config.name})"

    @classmethod
    def create(
        cls,
        config: Config,
        root: str | Path = "runs",
        overwrite: bool = False,
        world: World = ALONE,
    ) -> Run:
        """The run of a configuration in ``root/dataset/model_id/seed{n}``: a new one, or the one
        that is there, to be resumed or, with ``overwrite``, deleted first; nothing is changed where
        it raises. The first of several processes makes it, and all have its configuration.

        Raises:
            RunError: If the folder belongs to another configuration, or is no run's and not
                empty, or is a link and to be overwritten, or is being made by another process.
            ConfigError: If the parts of the configuration do not fit each other.
            ValueError: If the data cannot be read.
            TrainingError: If what is to be deleted is being trained.
            OSError: If the folder cannot be written.
        """
        made = [cls._made(config, Path(root), overwrite)] if world.first else []
        (config,) = world.each([lambda: made[0].config])
        return made[0] if made else cls(Path(root) / config.folder, config)

    @classmethod
    def _made(cls, config: Config, root: Path, overwrite: bool) -> Run:
        folder = root / config.folder
        run = cls(folder, config)
        clean(folder.parent)
        if overwrite and (folder / CONFIG).is_file():
            if folder.is_symlink():
                raise RunError(f"{folder} is a symbolic link, and is not overwritten: remove it")
            run._check_whole()
            with locked(folder), _alone(folder):
                delete_folder(folder)
        if (folder / CONFIG).is_file():
            there = cls.open(folder).config
            check_same(folder, there, config)
            # A run that is older than a key of its data goes on as it began.
            return cls(folder, config.model_copy(update={"data": there.data}))
        if folder.is_dir() and any(folder.iterdir()):
            raise RunError(f"{folder} is not empty, and no run: it has no {CONFIG}")
        run._check_whole()
        record = json.dumps(environment(), indent=2) + "\n"
        with _alone(folder):
            write_folder(folder, {ENVIRONMENT: record, CONFIG: dump(config.document())})
        return run

    @classmethod
    def check(cls, config: Config) -> None:
        """Builds all that a configuration describes, and writes nothing.

        Raises:
            ConfigError: If its parts do not fit each other.
        """
        cls(Path(), config)._check_parts()

    def _check_parts(self) -> ScoreField:
        field = self.untrained()
        engine = build_engine(self.config)
        build_training(self.config)
        with section_of("sde"):
            field.sde.prior(field.domain)
        objective = self.objective()
        if engine.sharded:
            check_sharded(field, objective)
        check_sampler(self.config.sampler, field.sde)
        # What is not part of this package may fail in any way when it is called.
        point, classes = torch.zeros(1, *field.domain.shape), None if field.classes is None else 0
        for key, network in self.config.networks.items():
            if isinstance(network, Custom):
                t = field.sde.t_min if key == "field.low_network" else field.sde.t_max
                with section_of(key, *network.faults):
                    field.eval().score(point, t, classes)
        return field

    def _check_whole(self) -> None:
        field, config, noise = self._check_parts(), self.config, Noise(self.config.seed)
        with section_of("data", *config.data.faults, keys=config.data):
            self.source().batch(noise, 0, 1)
            if field.classes is not None:
                self.source().batch_classes(noise, 0, 1)
        objective = self.objective()
        terms = zip(config.objective.terms.items(), objective.regularizers.values(), strict=True)
        for (key, term), regularizer in terms:
            if isinstance(term, Custom):
                with section_of(f"objective.{key}", *term.faults):
                    x = self.source().batch(noise, 0, config.train.batch_size)
                    regularizer(field, objective.denoising.law, x, noise, 0)

    @classmethod
    def open(cls, folder: str | Path, trust_code: bool = False) -> Run:
        """The run in a folder.

        Only with ``trust_code`` are classes of the user's own imported, once they are needed.

        Raises:
            RunError: If there is none.
            ConfigError: If its configuration cannot be read.
        """
        folder = Path(folder)
        if why := absence(folder):
            raise RunError(f"there is no run {str(folder)!r}{why}")
        file = folder / CONFIG
        if not file.is_file():
            raise RunError(f"{folder} is not a run: it has no {CONFIG}")
        return cls(folder, schema.stored(read(file), str(file), trust_code))

    @property
    def dataset(self) -> str:
        """The first part of the configuration's name."""
        return self.config.name.partition("/")[0]

    @property
    def model_id(self) -> str:
        """The second part of the configuration's name: the preset's, and what was changed."""
        return self.config.name.partition("/")[2]

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    @cached_property
    def _source(self) -> DataSource:
        return build_source(self.config)

    def source(self) -> DataSource:
        """The data."""
        return self._source

    def untrained(self) -> ScoreField:
        """The field as at the start of the training."""
        return build_field(self.config, self.source())

    def objective(self) -> Objective:
        """The objective, as at the start of the training."""
        return build_objective(self.config, self.source())

    def sampler(self) -> Sampler:
        """The sampler of the configuration."""
        return build_sampler(self.config.sampler)

    def steps(self) -> list[int]:
        """The steps of which there are checkpoints, in ascending order."""
        return list(map(checkpoints.step_of, checkpoints.paths(self.checkpoints)))

    @property
    def finished(self) -> bool:
        """Whether there is a checkpoint of the last step, it can be read, and it is this run's."""
        try:
            self.checkpoint(self.config.train.steps)
        except (RunError, CheckpointError):
            return False
        return True

    def train(
        self, quiet: bool = False, draw: DrawFor | None = None, engine: Engine | None = None
    ) -> Fit:
        """Trains to the last step, from the newest checkpoint that can be read if there is one.

        Arguments:
            quiet: Whether to show no progress.
            draw: Returns what draws figures of a field that is trained on the data, for
                TensorBoard; ``None`` for data of which there are none.
            engine: What to train on; that of the configuration by default. Which ones a run was
                trained on, one after the other, is kept in ``environment.json``.

        Raises:
            UserError: If the engine's device is not on this machine.
            CheckpointError: If the newest checkpoint is that of another run.
            TrainingError, Interrupted: See :meth:`~scorefield.training.trainer.Trainer.run`.
        """
        config, source = self.config, self.source()
        engine = build_engine(config) if engine is None else engine
        if engine.world.first:
            record_engine(self.folder / ENVIRONMENT, engine)
            if newest := checkpoints.latest(self.checkpoints, lambda _: None):
                self._check_own(newest)
        trainer = Trainer(
            self.untrained(),
            source,
            self.objective(),
            *build_training(config),
            config.seed,
            self.folder,
            config.document(),
            quiet,
            None if draw is None else draw(source),
            engine,
        )
        return trainer.run()

    def field(
        self,
        weights: Literal["ema", "raw"] = "ema",
        step: int | None = None,
        report: Callable[[str], None] = warn,
    ) -> ScoreField:
        """The trained field.

        Arguments:
            weights: ``ema`` for the averaged weights, ``raw`` for those of the last step.
            step: Which checkpoint; the newest that can be read by default.
            report: Called with a sentence for each newer checkpoint that cannot be read.

        Raises:
            RunError: If there is no such checkpoint, or none that can be read.
            CheckpointError: If the checkpoint of ``step`` cannot be read, or does not fit.
        """
        if weights not in ("ema", "raw"):
            raise RunError(f"weights are 'ema' or 'raw', not {weights!r}")
        found = self.checkpoint(step, report)
        chosen = found.ema if weights == "ema" else found.model
        field = self.untrained()
        checkpoints.load_weights(field, chosen, found.path)
        return field.eval()

    def checkpoint(
        self, step: int | None = None, report: Callable[[str], None] = warn
    ) -> Checkpoint:
        """A checkpoint, checked; arguments and errors are those of :meth:`field`."""
        steps = self.steps()
        if not steps:
            raise RunError(f"{self.folder} has no checkpoint yet: train it first")
        if step is not None:
            if step not in steps:
                there = ", ".join(map(str, steps))
                raise RunError(f"{self.folder} has no checkpoint of step {step}, it has {there}")
            return self._check_own(checkpoints.read(self.checkpoints / f"step_{step:08d}"))
        found = checkpoints.latest(self.checkpoints, report)
        if found is None:
            raise CheckpointError(f"no checkpoint in {self.checkpoints} can be read")
        return self._check_own(found)

    def _check_own(self, found: Checkpoint) -> Checkpoint:
        stored = found.model.config
        if stored is None:
            raise CheckpointError(f"{found.path} does not name its configuration")
        try:
            # Keys that are younger than the checkpoint have their defaults.
            theirs = schema.stored(stored, str(found.path))
        except ConfigError as error:
            raise CheckpointError(f"{error}; it is a checkpoint of another configuration") from None
        differing = differences_of(theirs, self.config)
        if differing:
            # What differs tells more than what it is called.
            key, there, here = min(differing, key=lambda difference: difference[0] == "name")
            raise CheckpointError(
                f"{found.path} belongs to another run: {key} is {shown(there)} there and "
                f"{shown(here)} in {self.folder}"
            )
        return found

    def environment(self) -> dict[str, Any]:
        """Where the run was made, as far as that is known."""
        return read_environment(self.folder / ENVIRONMENT)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Explains what fails because another process makes or deletes the same folder meanwhile."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT):
            raise
        raise RunError(
            f"{folder} is being made by another process: wait for its end or stop it"
        ) from error

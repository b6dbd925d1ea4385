"""A MODEL: a field, wherever it comes from, and what is known of its data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from scorefield.checks import kind_of
from scorefield.code import FAULTS, fault, imported
from scorefield.config import schema
from scorefield.config.build import build_engine
from scorefield.config.config import Config
from scorefield.config.data import ImagesData
from scorefield.config.document import read
from scorefield.data.source import DataSource
from scorefield.engine import Engine
from scorefield.errors import CheckpointError, ConfigError, RunError, UserError, nearest
from scorefield.fields.base import ScoreField
from scorefield.files import absence
from scorefield.interop import convolutional, foreign
from scorefield.interop.diffusers import folders as diffusers
from scorefield.interop.errors import InteropError
from scorefield.interop.score_sde.load import load as load_published
from scorefield.likelihood.density import CENTERED_BYTES, UNIT_BYTES, DataTransform
from scorefield.networks.minimal import Padding
from scorefield.progress import warn
from scorefield.runs import hub, saved
from scorefield.runs.classes import check_unconditional, of_class
from scorefield.runs.run import CONFIG, Run
from scorefield.training import checkpoint as checkpoints
from scorefield.training.checkpoint import Weights
from scorefield.training.described import field_of

_KINDS = (
    "a model is a run or another training's folder, a checkpoint, what sf.save wrote, a folder of "
    "diffusers or with model.json, a file ending in .safetensors, .pth or .pt, hub:owner/name, or "
    "package.module:factory"
)


@dataclass(frozen=True)
class Subject:
    """A trained field and where it comes from.

    Attributes:
        field: The field.
        config: The configuration of its training; ``None`` for a model of another code base.
        source: The data that it was trained on; ``None`` as before.
        about: What is recorded of it.
        folder: The folder of the run; ``None`` for a file.
        transform: How bytes become its points; ``None`` if they do not.
    """

    field: ScoreField
    config: Config | None
    source: DataSource | None
    about: dict[str, Any]
    folder: Path | None
    transform: DataTransform | None = None

    @property
    def name(self) -> str:
        """The name of its configuration, or of the model."""
        return str(next(iter(self.about.values()))) if self.config is None else self.config.name

    @property
    def centered(self) -> bool:
        """Whether the values of images lie in [-1, 1]; in [0, 1] otherwise."""
        return self.transform != UNIT_BYTES if self.config is None else self.config.centered

    def of_class(self, label: int | None) -> Subject:
        """Its field at points of a class, or of any.

        Raises:
            RunError: If it knows no such class, or points of one class only.
        """
        if label is not None:
            return replace(self, field=of_class(self.field, label))
        if self.config is not None:
            check_unconditional(self.config, self.field)
        elif not self.field.unlabelled:
            raise RunError(f"{self.name} knows points of one class only, and none was given")
        return self

    def engine(self, **chosen: Any) -> Engine:
        """The engine of its configuration, if it has one, but for the values ``chosen``."""
        return Engine(**chosen) if self.config is None else build_engine(self.config, **chosen)


def load(
    model: str | Path,
    *,
    weights: Literal["ema", "raw"] = "ema",
    config: str | None = None,
    trust_code: bool = False,
) -> ScoreField:
    """Load a field, whoever wrote it, in evaluation mode.

    Arguments:
        model: A model of any kind, see :func:`open_model`: the folder of a run or a training, a
            checkpoint, a file of weights, what :func:`~.saved.save` wrote, a folder of diffusers,
            ``hub:owner/name``, or ``package.module:factory``.
        weights, config, trust_code: See there.

    Raises:
        UserError: As there.
    """
    return open_model(model, weights, config, trust_code).field


def open_subject(
    path: str | Path,
    weights: Literal["ema", "raw"] = "ema",
    config: str | None = None,
    label: int | None = None,
    trust_code: bool = False,
) -> Subject:
    """A model whose field is evaluated without classes: at points of any class, or of the class
    ``label``. Other arguments and errors are those of :func:`open_model`.

    Raises:
        RunError: If the field knows points of one class only and none is given, or it knows no such
            class.
    """
    return open_model(path, weights, config, trust_code).of_class(label)


def open_model(
    model: str | Path,
    weights: Literal["ema", "raw"] = "ema",
    config: str | None = None,
    trust_code: bool = False,
    step: int | None = None,
) -> Subject:
    """The one place that knows what a MODEL is.

    Arguments:
        model: The folder of a run, or of a training by ``fit``, at its newest checkpoint; a
            checkpoint; a file ending in ``.safetensors``; a folder that :func:`~.saved.save` wrote;
            a folder of diffusers, or one with ``model.json`` (:mod:`scorefield.interop.foreign`);
            one of these on the hub, ``hub:owner/name``; a checkpoint of score_sde ending in
            ``.pth``, or a state dict ending in ``.pt`` (:mod:`scorefield.interop.convolutional`);
            or ``package.module:factory``, a field or a function without arguments that returns one,
            whose code is executed: its module is looked for where Python looks, and in the working
            directory.
        weights: Which weights of a run or checkpoint: averaged, or those of the last step.
        config: For a checkpoint of score_sde, the name of a published configuration, or a file
            ending in ``.yaml`` or ``.json`` with one in the original's keys; for a state dict,
            ``zeros`` or ``circular``, or a file with ``padding`` and ``size``.
        trust_code: Whether classes of the user's own that a file names are imported.
        step: The step of the checkpoint of a run; the newest by default.

    Raises:
        RunError: If it is none of these, there is a configuration for what has its own, or the hub
            does not give it.
        CheckpointError: If the weights cannot be read.
        ConfigError: If the configuration cannot be read, or names code that is not trusted.
        InteropError: If the checkpoint cannot be used, or the configuration says too little.
    """
    name = str(model)
    if ":" in name and not name.startswith(hub.PREFIX) and not Path(name).exists():
        return _plain(_made(name), name)
    path = hub.fetched(name) if name.startswith(hub.PREFIX) else Path(name)
    if path.is_file() and path.suffix == ".pth":
        return _published(path, weights, config)
    if path.is_file() and path.suffix == ".pt":
        return _convolutional(path, config)
    if config is not None:
        raise RunError(
            f"{path} is no file ending in .pth or .pt: it has a configuration of its own"
        )
    if (path / CONFIG).is_file():
        if name.startswith(hub.PREFIX):
            raise RunError(f"{name} is a run, which is not downloaded: upload what sf.save writes")
        run = Run.open(path, trust_code)
        step = run.checkpoint(step).step
        return _trained(run, run.field(weights, step), step, weights, run.folder)
    if diffusers.wrote(path):
        found = diffusers.open_pipeline(path)
        return Subject(found.field, None, None, found.about, None, found.transform)
    if foreign.is_foreign(path):
        return _foreign(path)
    content, source = _weights(path, name, weights, step)
    if content.config is None:
        return _plain(field_of(content, source, trust_code), name)
    run = Run(source.parent, schema.stored(content.config, str(source), trust_code))
    field = run.untrained()
    checkpoints.load_weights(field, content, source)
    which = source.name if path.is_file() else weights
    return _trained(run, field.eval(), content.step, which, None)


def _plain(field: ScoreField, name: str) -> Subject:
    """A field alone; images, if it has them, are taken to be in [-1, 1]."""
    return Subject(field, None, None, {"model": name}, None, CENTERED_BYTES)


def _made(name: str) -> ScoreField:
    factory = imported(name, "the model")
    try:
        made = factory() if callable(factory) and not isinstance(factory, ScoreField) else factory
    except FAULTS as error:
        raise UserError(f"{name} fails: {type(error).__name__}: {fault(error)}") from error
    if not isinstance(made, ScoreField):
        raise UserError(
            f"{name} returns {kind_of(made)}, it must return a field: sf.wrap makes one "
            "of a network"
        )
    return made


def _weights(
    path: Path, name: str, weights: Literal["ema", "raw"], step: int | None
) -> tuple[Weights, Path]:
    """The weights that a path names, and where they are from."""
    inside = path / "checkpoints"
    if not path.exists():
        raise RunError(f"there is no model {name!r}{absence(path)}{_nearest(path)}; {_KINDS}")
    if checkpoints.paths(inside):
        newest = checkpoints.latest(inside, warn) if step is None else None
        found = checkpoints.read(inside / checkpoints.name_of(step)) if step is not None else newest
        if found is None:
            raise CheckpointError(f"no checkpoint in {inside} can be read")
    elif step is not None:
        raise RunError(f"{name} is one model, without a checkpoint of step {step}")
    elif any((path / part).exists() for part in (checkpoints.STATE, checkpoints.WEIGHTS[1])):
        found = checkpoints.read(path)
    else:
        file = path / saved.WEIGHTS if path.is_dir() else path
        if file.suffix != ".safetensors" or not file.is_file():
            raise RunError(f"{name} is no model; {_KINDS}")
        return checkpoints.read_weights(file), file
    return found.ema if weights == "ema" else found.model, found.path


def _nearest(path: Path) -> str:
    """A clause with the paths that a misspelt one most resembles, where there are any."""
    for part in (path, *path.parents):
        if part.parent.is_dir() and not part.exists():
            try:
                there = [other.name for other in part.parent.iterdir() if other.exists()]
            except OSError:
                return ""
            near = nearest(part.name, there, part.parent)
            return f", {near}" if near else ""
    return ""


def _trained(run: Run, field: ScoreField, step: int, weights: str, folder: Path | None) -> Subject:
    data, transform = run.config.data, None
    if isinstance(data, ImagesData):
        transform = CENTERED_BYTES if data.centered else UNIT_BYTES
    about = {"run": run.config.name, "run_seed": run.config.seed, "step": step, "weights": weights}
    return Subject(field, run.config, run.source(), about, folder, transform)


def _published(path: Path, weights: Literal["ema", "raw"], config: str | None) -> Subject:
    given: dict[str, Any] | str | None = config
    if config is not None and config.endswith((".yaml", ".yml", ".json")):
        given = read(Path(config))
    try:
        field = load_published(path, given, weights)
    except InteropError as error:
        told = str(error)
        raise InteropError(told if str(path) in told else f"{path}: {told}") from None
    centered = getattr(getattr(field, "backbone", None), "centered", False)
    about = {"checkpoint": str(path), "configuration": config, "weights": weights}
    return Subject(field, None, None, about, None, CENTERED_BYTES if centered else UNIT_BYTES)


def _foreign(path: Path) -> Subject:
    field = foreign.load(path)
    about = {"model": str(path), "convention": field.backbone.convention}
    transform = None if field.backbone.latents else CENTERED_BYTES
    return Subject(field, None, None, about, None, transform)


def _convolutional(path: Path, config: str | None) -> Subject:
    given: dict[str, Any] = {}
    if config in get_args(Padding):
        given = {"padding": config}
    elif config is not None:
        given = read(Path(config))
        if given.keys() - {"padding", "size"} or not isinstance(given.get("size", 1), int):
            raise ConfigError(
                f"{config} must say the padding, zeros or circular, and the size of images, an "
                "integer, and nothing else"
            )
    field = convolutional.load(path, **given)
    about: dict[str, Any] = {"checkpoint": str(path), "padding": field.backbone.padding}
    return Subject(field, None, None, about, None, CENTERED_BYTES)

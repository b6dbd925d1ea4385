"""A trained field, wherever it comes from, and what is known of its data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from scorefield.config import schema
from scorefield.config.build import build_engine
from scorefield.config.config import Config
from scorefield.config.data import ImagesData
from scorefield.config.document import read
from scorefield.data.source import DataSource
from scorefield.engine import Engine
from scorefield.errors import CheckpointError, ConfigError, RunError
from scorefield.fields.base import ScoreField
from scorefield.files import absence
from scorefield.interop import convolutional, foreign
from scorefield.interop.diffusers import folders as diffusers
from scorefield.interop.errors import InteropError
from scorefield.interop.score_sde.load import load
from scorefield.likelihood.density import CENTERED_BYTES, UNIT_BYTES, DataTransform
from scorefield.networks.minimal import Padding
from scorefield.runs.classes import check_unconditional, of_class
from scorefield.runs.run import Run
from scorefield.training import checkpoint as checkpoints


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

    def engine(self, **chosen: Any) -> Engine:
        """The engine of its configuration, if it has one, but for the values ``chosen``."""
        return Engine(**chosen) if self.config is None else build_engine(self.config, **chosen)


def open_subject(
    path: Path,
    weights: Literal["ema", "raw"] = "ema",
    config: str | None = None,
    label: int | None = None,
    trust_code: bool = False,
) -> Subject:
    """The field of a run at its newest checkpoint, or of a file.

    One that knows classes is evaluated at points of any, or of one.

    Arguments:
        path: The folder, a file ending in ``.safetensors``, a folder of diffusers, one with
            ``model.json`` (:mod:`scorefield.interop.foreign`), a checkpoint of score_sde ending in
            ``.pth``, or a state dict ending in ``.pt`` (:mod:`scorefield.interop.convolutional`).
        weights: Which weights of a run or checkpoint: averaged, or those of the last step.
        config: For a checkpoint of score_sde, the name of a published configuration, or a file
            ending in ``.yaml`` or ``.json`` with one in the original's keys; for a state dict,
            ``zeros`` or ``circular``, or a file with ``padding`` and ``size``.
        label: The class; of any by default.
        trust_code: Whether classes of the user's own that its configuration names are imported.

    Raises:
        RunError: If it is none of these, there is a configuration for what has its own, the
            field knows points of one class only and none is given, or it knows no such class.
        CheckpointError: If the weights cannot be read.
        ConfigError: If the configuration cannot be read.
        InteropError: If the checkpoint cannot be used, or the configuration says too little.
    """
    subject = _open(path, weights, config, trust_code)
    if label is not None:
        return replace(subject, field=of_class(subject.field, label))
    if subject.config is not None:
        check_unconditional(subject.config, subject.field)
    elif not subject.field.unlabelled:
        raise RunError(f"{path} knows points of one class only, and none was given")
    return subject


def _open(
    path: Path, weights: Literal["ema", "raw"], config: str | None, trust_code: bool
) -> Subject:
    if diffusers.wrote(path):
        found = diffusers.open_pipeline(path)
        return Subject(found.field, None, None, found.about, None, found.transform)
    if foreign.is_foreign(path):
        return _foreign(path)
    if path.is_file() and path.suffix == ".pth":
        return _published(path, weights, config)
    if path.is_file() and path.suffix == ".pt":
        return _convolutional(path, config)
    if config is not None:
        raise RunError(
            f"{path} is no file ending in .pth or .pt: it has a configuration of its own"
        )
    if path.is_dir():
        run = Run.open(path, trust_code)
        step = run.checkpoint().step
        return _trained(run, run.field(weights, step), step, weights, run.folder)
    if not path.exists():
        raise RunError(f"there is no run or checkpoint {str(path)!r}{absence(path)}")
    if path.suffix != ".safetensors":
        raise RunError(
            f"{path} is neither the folder of a run nor a file ending in .safetensors, .pth or .pt"
        )
    stored = checkpoints.read_weights(path)
    if stored.config is None:
        raise CheckpointError(f"{path} does not name its configuration")
    run = Run(path.parent, schema.stored(stored.config, str(path), trust_code))
    field = run.untrained()
    checkpoints.load_weights(field, stored, path)
    return _trained(run, field.eval(), stored.step, path.name, None)


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
        field = load(path, given, weights)
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

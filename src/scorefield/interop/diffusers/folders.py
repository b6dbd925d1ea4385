"""Folders that pipelines of diffusers have saved.

Such a folder holds a network, in ``unet`` or ``transformer``, and a scheduler; diffusers itself
builds both. With an autoencoder, in ``vae`` or ``vqvae``, the points are *latents*: what its
encoder gives, times a scale. The autoencoder is not read, but for that scale.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scorefield.fields.preconditioned import PreconditionedField
from scorefield.files import DOCUMENT, read_file
from scorefield.interop.diffusers.convention import NETWORKS, SCHEDULERS, VE_SCHEDULER, field_of
from scorefield.interop.errors import InteropError
from scorefield.likelihood.density import CENTERED_BYTES, UNIT_BYTES, DataTransform

_INDEX, _CONFIG = "model_index.json", "config.json"
_RENAMED = {"Transformer2DModel": "DiTTransformer2DModel"}
"""Classes that pipelines were published with, under another name."""


@dataclass(frozen=True)
class Pipeline:
    """A pipeline as a field.

    Attributes:
        field: The field of its network.
        transform: How bytes of images become its points; ``None`` for latents.
        about: What it is, in words.
    """

    field: PreconditionedField
    transform: DataTransform | None
    about: dict[str, str]


def load(folder: str | Path) -> PreconditionedField:
    """The field of the network in a folder of diffusers, in evaluation mode.

    Arguments:
        folder: What ``save_pretrained`` of a pipeline wrote, with a network (``unet`` or
            ``transformer``) and a ``scheduler``.

    Raises:
        InteropError: If diffusers is not installed, the folder is not one of its pipelines or
            incomplete, or the network or the scheduler is of another kind.
    """
    return open_pipeline(Path(folder)).field


def wrote(folder: Path) -> bool:
    """Whether diffusers wrote a folder: that of a pipeline, or of one of its parts."""
    if (folder / _INDEX).is_file():
        return True
    file = folder / _CONFIG
    return file.is_file() and "_diffusers_version" in read_json(file)


def open_pipeline(folder: Path) -> Pipeline:
    """The pipeline in a folder; arguments and errors are those of :func:`load`."""
    if not (folder / _INDEX).is_file():
        if wrote(folder):
            raise InteropError(
                f"{folder} is a network without a scheduler, which states what it predicts and "
                "receives: give the folder of its pipeline, or save one, as in "
                "DDPMPipeline(unet, DDPMScheduler(...)).save_pretrained(folder)"
            )
        raise InteropError(f"{folder} has no {_INDEX}: save a pipeline with save_pretrained")
    index = read_json(folder / _INDEX)
    place = "transformer" if index.get("transformer") else "unet"
    network = _part(folder, index, place, NETWORKS, weights=True)
    scheduler = _part(folder, index, "scheduler", SCHEDULERS, weights=False)
    points, transform = _points(folder, index, network, scheduler)
    about = {
        "pipeline": str(folder),
        "network": type(network).__name__,
        "scheduler": type(scheduler).__name__,
        "points": points,
        "clipping": _clipping(scheduler.config),
    }
    return Pipeline(field_of(network.eval(), scheduler), transform, about)


def _points(
    folder: Path, index: dict[str, Any], network: Any, scheduler: Any
) -> tuple[str, DataTransform | None]:
    """What the points are, and how bytes become such."""
    for name in ("vae", "vqvae"):
        if index.get(name):
            file = folder / name / _CONFIG
            scale = read_json(file).get("scaling_factor") if file.is_file() else None
            times = "times an unknown scale" if scale is None else f"times {scale:g}"
            return f"latents, what the encoder of its {name} gives, {times}", None
    unit = type(scheduler).__name__ == VE_SCHEDULER or network.config.get("center_input_sample")
    return ("images in [0, 1]", UNIT_BYTES) if unit else ("images in [-1, 1]", CENTERED_BYTES)


def _clipping(settings: Any) -> str:
    if settings.get("thresholding"):
        share, most = settings.dynamic_thresholding_ratio, settings.sample_max_value
        how = f"thresholds the denoised state at the quantile {share:g} of its size, up to {most:g}"
    elif settings.get("clip_sample"):
        how = f"clips the denoised state to ±{settings.get('clip_sample_range', 1.0):g}"
    else:
        return "none"
    return f"the scheduler {how}, which is another field, sf.ClippedField of this one"


def read_json(file: Path) -> dict[str, Any]:
    """The configuration in a file of diffusers.

    Raises:
        InteropError: If it is no such file.
    """
    try:
        found = json.loads(read_file(file, DOCUMENT))
    except (ValueError, RecursionError) as error:
        raise InteropError(f"{file} is not a file of diffusers: {error}") from error
    if not isinstance(found, dict):
        raise InteropError(f"{file} is not a file of diffusers: it holds no names")
    return found


def _part(
    folder: Path, index: dict[str, Any], name: str, kinds: tuple[str, ...], weights: bool
) -> Any:
    """A part of a pipeline, of one of some kinds, as diffusers loads it; nothing is downloaded."""
    try:
        library, kind = index.get(name) or (None, None)
    except (TypeError, ValueError) as error:
        raise InteropError(f"{folder / _INDEX}: {name} is {index[name]!r}") from error
    kind = _RENAMED.get(str(kind), kind)
    if library != "diffusers" or kind not in kinds:
        raise InteropError(
            f"{folder / _INDEX}: {name} is {kind}, it must be one of {', '.join(kinds)}"
        )
    return from_folder(folder / name, str(kind), weights)


def from_folder(folder: Path, kind: str, weights: bool) -> Any:
    """What diffusers loads from a folder; nothing is downloaded.

    Arguments:
        folder: The folder.
        kind: The class.
        weights: Whether it has weights, all of which must be there and none in a pickle.

    Raises:
        InteropError: If diffusers is not installed, or does not read the folder.
    """
    try:
        import diffusers
    except ImportError as error:
        raise InteropError(
            f"{folder} is a folder of diffusers, which is not installed: pip install diffusers"
        ) from error
    # Weights that are pickles are refused; of weights that are missing diffusers only warns.
    strict = {"use_safetensors": True, "output_loading_info": True, "low_cpu_mem_usage": False}
    try:
        loaded = getattr(diffusers, kind).from_pretrained(
            folder, local_files_only=True, **(strict if weights else {})
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InteropError(f"{folder} cannot be read: {error}") from error
    if not weights:
        return loaded
    network, about = loaded
    if missing := sorted(about["missing_keys"]):
        raise InteropError(f"{folder} lacks the weights {', '.join(missing[:4])}")
    return network

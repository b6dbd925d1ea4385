r"""Images, networks and noise levels that studies of image models have in common.

A network and a closed form made of its training images can be compared only if both see the same
images, in the same range, under the same process and at the same noise levels. All of that is
settled here, before anything is computed.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from jaxtyping import Float, Int
from torch import Tensor

from scorefield.config.data import ImagesData
from scorefield.data.arrays import digits
from scorefield.data.images import images as image_set
from scorefield.data.source import DataSource
from scorefield.diagnostics.scales import ScaleCalibration
from scorefield.errors import ConfigError, RunError
from scorefield.fields.base import ScoreField
from scorefield.files import DOCUMENT, read_file
from scorefield.interop import convolutional
from scorefield.likelihood.density import UNIT_BYTES
from scorefield.networks.minimal import MinimalResNet, MinimalUNet
from scorefield.networks.minimal import Padding as Padding
from scorefield.runs.subject import Subject, open_subject
from scorefield.samplers.solvers import DDIM
from scorefield.sde.base import SDE
from scorefield.sde.exploding import EDM, VE
from scorefield.sde.preserving import Cosine
from scorefield.studies.settings import Dataset, Kind
from scorefield.targets.empirical import IdealScore
from scorefield.targets.patches import EquivariantLocalScore, LocalScore
from scorefield.targets.windows import Padding as Outside
from scorefield.targets.windows import PatchSizes

IMAGES = 1500
"""The most training images that a closed form is made of unless a number is given."""

_CHOICE = 0


@dataclass(frozen=True)
class ImageSet:
    """Images of a data set, with values in [-1, 1]."""

    dataset: Dataset
    source: DataSource
    images: Float[Tensor, "n channels height width"]
    labels: Int[Tensor, " n"] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an image."""
        return self.source.shape

    def held_out(self, n: int, seed: int = 0) -> Float[Tensor, "n channels height width"]:
        """Distinct images that are never trained on, in an order that the seed decides."""
        return self.source.reference(n, seed, "test")


def read_images(
    dataset: Dataset,
    path: Path | None = None,
    n: int | None = None,
    networks: Mapping[str, Subject] | None = None,
) -> ImageSet:
    """The training images of a data set."""
    if dataset == "digits":
        if path is not None:
            raise RunError("the digits come with a library, and are not read from a path")
        source: DataSource = digits()
    else:
        source = image_set(dataset=dataset, centered=True, **_place(networks or {}, path))
    for option, subject in (networks or {}).items():
        if subject.field.domain.shape != source.shape:
            raise RunError(
                f"{option} takes images of shape {subject.field.domain.shape}, those of {dataset} "
                f"are of shape {source.shape}"
            )
    total = source.size
    assert total is not None  # images are finitely many
    if n is not None and not 1 <= n <= total:
        raise RunError(f"{dataset} has 1 to {total} training images, {n} were requested")
    count = min(total, IMAGES) if n is None else n
    images = source.reference(count, _CHOICE, "train")
    labels = None
    if source.classes is not None:
        labels = source.reference_classes(count, _CHOICE, "train")
    return ImageSet(dataset, source, images, labels)


def class_of(images: ImageSet, label: int | None) -> Float[Tensor, "n channels height width"]:
    """The images of a class, or of all."""
    if label is None:
        return images.images
    if images.labels is None:
        raise RunError(f"the images of {images.dataset} have no classes, and take no label")
    found = images.images[images.labels == label]
    if not len(found):
        raise RunError(f"none of the {len(images.images)} images is of the class {label}")
    return found


def open_networks(
    dataset: Dataset,
    runs: Mapping[str, Path | None],
    label: int | None = None,
    padding: Padding | None = None,
    trust_code: bool = False,
) -> dict[str, Subject]:
    """Trained networks that can be compared with each other."""
    opened: dict[str, Subject] = {}
    for option, path in runs.items():
        if path is None:
            continue
        silent = path.suffix == ".pt" and convolutional.padding_of(path) is None
        config = padding if silent else None
        try:
            subject = open_subject(path, config=config, label=label, trust_code=trust_code)
        except RunError as error:
            raise RunError(f"{option}: {error}") from error
        opened[option] = subject
        _check_data(option, subject, dataset)
        other = next(iter(opened))
        field, own = opened[other].field, subject.field
        if own.domain != field.domain:
            raise RunError(
                f"{option} takes images of shape {own.domain.shape}, {other} of shape "
                f"{field.domain.shape}"
            )
        if own.sde != field.sde:
            raise RunError(
                f"{option} and {other} were trained under different processes, {own.sde} and "
                f"{field.sde}"
            )
    return opened


def padding_of(networks: Mapping[str, Subject]) -> Padding:
    """What closed forms see outside the image: what the networks see there, or zeros."""
    kinds = (MinimalResNet, MinimalUNet)
    known = {
        module.padding: option
        for option, subject in networks.items()
        for module in subject.field.modules()
        if isinstance(module, kinds)
    }
    if len(known) > 1:
        options = " and ".join(known.values())
        raise RunError(f"{options} differ in what they see outside the image: give --padding")
    return next(iter(known), "zeros")


def reverse_process(sde: SDE | None, steps: int) -> tuple[SDE, DDIM]:
    r"""The process and the deterministic sampler of an analysis.

    Where the noise level itself is the time (EDM, VE), the levels are those of Karras' grid.
    Everywhere else times are :math:`t_{max}\,i/n` for :math:`i = n \dots 1`, and the process ends
    there. By default it is the cosine, :math:`\sigma^2 = 1 - \cos^2\frac{\pi t}{2 \cdot 1.008}`.
    """
    if sde is None:
        sde = Cosine(offset=0.0, margin=0.008, t_min=1e-3, t_max=1.0)
    if isinstance(sde, EDM | VE):
        return sde, DDIM(steps)
    if steps > 1:
        changes: dict[str, Any] = {"t_min": sde.t_max / steps}
        sde = replace(sde, **changes)  # type: ignore[type-var]
    return sde, DDIM(steps, spacing="time")


def closed_form(
    kind: Kind,
    images: Float[Tensor, "n channels height width"],
    sde: SDE,
    size: int | PatchSizes = 3,
    padding: Outside = "zeros",
) -> ScoreField:
    """A score in closed form."""
    if kind == "is":
        return IdealScore(images, sde)
    local = {"els": EquivariantLocalScore, "ls": LocalScore}[kind]
    return local(images, sde, size=size, padding=padding)


def with_process(field: ScoreField, sde: SDE) -> ScoreField:
    """A field whose process begins or ends elsewhere; weights are shared."""
    twin = copy.copy(field)
    twin.sde = sde
    return twin


_READ = ("path", "hub", "crop", "filter", "background", "sha256")


def _place(networks: Mapping[str, Subject], path: Path | None) -> dict[str, Any]:
    """How the images of networks are read: at which size, and from where."""
    for subject in networks.values():
        channels, *sides = subject.field.domain.shape
        found: dict[str, Any] = {"channels": channels, "size": sides[0], "path": path}
        data = None if subject.config is None else subject.config.data
        if path is None and isinstance(data, ImagesData):
            known = data.settings()
            found |= {key: known[key] for key in _READ if known[key] is not None}
            found["held_out_seed"] = data.held_out_seed
        return found
    return {"path": path}


def _check_data(option: str, subject: Subject, dataset: Dataset) -> None:
    shape = subject.field.domain.shape
    if len(shape) != 3 or shape[1] != shape[2]:
        raise RunError(f"{option} takes points of shape {shape}, not square images")
    if subject.config is None:
        if subject.transform == UNIT_BYTES:
            raise RunError(f"{option} takes images with values in [0, 1], not in [-1, 1]")
        return
    data = subject.config.data
    name = data.dataset if isinstance(data, ImagesData) else data.kind
    if name != dataset:
        raise RunError(f"{option} was trained on {name}, not on {dataset}")
    if isinstance(data, ImagesData) and not data.centered:
        raise RunError(
            f"{option} was trained on images with values in [0, 1], not in [-1, 1]: "
            f"data.centered was false"
        )


Choice = Literal["median", "mode", "monotone"]


def scales_json(
    calibration: ScaleCalibration, choice: Choice, settings: Mapping[str, Any]
) -> bytes:
    """The content of a file with the sizes of a calibration, all three choices of them, and the
    table behind them.
    """
    content: dict[str, Any] = {
        "sigmas": list(calibration.sigmas),
        **{name: list(getattr(calibration, name).sizes) for name in get_args(Choice)},
        "chosen": choice,
        "best": calibration.best.tolist(),
        "settings": {"by": calibration.by, "sizes": list(calibration.sizes), **settings},
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def read_scales(path: Path) -> PatchSizes:
    """The sizes that a file of ``analyze patches`` has chosen."""
    try:
        content = json.loads(read_file(path, DOCUMENT))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not a file of patch sizes: it is not JSON") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a file of patch sizes: it holds no names")
    sigmas = _numbers(path, content, "sigmas", (int, float))
    name = content.get("chosen")
    if name not in get_args(Choice):
        raise ConfigError(f"{path}: chosen must be one of median, mode and monotone, not {name!r}")
    sizes = _numbers(path, content, str(name), (int,))
    try:
        return PatchSizes(tuple(float(sigma) for sigma in sigmas), tuple(sizes))
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _numbers(
    path: Path, content: Mapping[str, Any], key: str, kinds: tuple[type, ...]
) -> list[Any]:
    values = content.get(key)
    if not isinstance(values, list) or not all(type(value) in kinds for value in values):
        what = "whole numbers" if kinds == (int,) else "numbers"
        raise ConfigError(f"{path}: {key} must be a list of {what}")
    return values

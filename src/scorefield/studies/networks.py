r"""Images, networks and noise levels that studies of image models have in common.

A network and a closed form made of its training images can be compared only if both see the same
images, in the same range, under the same process and at the same noise levels. All of that is
settled here, before anything is computed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from scorefield.config.data import ImagesData
from scorefield.data import DataSource, digits, image_source
from scorefield.errors import RunError
from scorefield.fields import ScoreField
from scorefield.interop import convolutional
from scorefield.likelihood import CENTERED_BYTES
from scorefield.networks import MinimalResNet, MinimalUNet
from scorefield.networks.minimal import Padding as Padding
from scorefield.runs.subject import Subject, open_subject
from scorefield.samplers import DDIM
from scorefield.sde import EDM, SDE, VE, Cosine
from scorefield.studies.settings import Dataset, Kind
from scorefield.targets import EquivariantLocalScore, IdealScore, LocalScore, PatchSizes
from scorefield.targets.windows import Padding as Outside

IMAGES = 1500
"""The most training images that a closed form is made of unless a number is given."""

_CHOICE = 0


@dataclass(frozen=True)
class ImageSet:
    """Images of a data set, with values in [-1, 1].

    Attributes:
        dataset: The name of the data set.
        source: The data set.
        images: Training images: the first of an order that is drawn once for all, so that fewer
            are a part of more.
        labels: Their classes; ``None`` where there are none.
    """

    dataset: Dataset
    source: DataSource
    images: Float[Tensor, "n channels height width"]
    labels: Int[Tensor, " n"] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an image."""
        return self.source.shape

    def held_out(self, n: int, seed: int = 0) -> Float[Tensor, "n channels height width"]:
        """Distinct images that are never trained on, in an order that the seed decides.

        Raises:
            ValueError: If there are fewer.
        """
        return self.source.reference(n, seed, "test")


def read_images(
    dataset: Dataset,
    path: Path | None = None,
    n: int | None = None,
    networks: Mapping[str, Subject] | None = None,
) -> ImageSet:
    """The training images of a data set.

    Arguments:
        dataset: The name.
        path: The folder of the images; by default that of the networks, or where
            :func:`~scorefield.data.image_source` finds them.
        n: How many; :data:`IMAGES` by default, or all where there are fewer.
        networks: Networks, as :func:`open_networks` gives them, whose images have these sides.

    Raises:
        RunError: If the data set has no path, there are not so many images, or they are of another
            shape than the networks'.
        ValueError: If the images cannot be read.
    """
    if dataset == "digits":
        if path is not None:
            raise RunError("the digits come with a library, and are not read from a path")
        source: DataSource = digits()
    else:
        source = image_source(dataset, centered=True, **_place(networks or {}, path))
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


def class_of(images: ImageSet, label: int) -> Float[Tensor, "n channels height width"]:
    """The images of a class.

    Raises:
        RunError: If there are none.
    """
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
    """Trained networks that can be compared with each other.

    Arguments:
        dataset: The data set that they were trained on.
        runs: What :func:`~scorefield.runs.subject.open_subject` takes, by the name of the
            option that it was given for; what is ``None`` is left out.
        label: The class of the images; any by default.
        padding: What those see outside the image whose files do not say it.
        trust_code: Whether classes that a run names by import path may be imported.

    Raises:
        RunError: If one cannot be opened, was trained on other data, knows no such class, or
            differs from another in the shape of the images or in the process.
    """
    opened = {
        option: _open(option, path, label, padding, trust_code)
        for option, path in runs.items()
        if path is not None
    }
    first: tuple[str, Subject] | None = None
    for option, subject in opened.items():
        _check_data(option, subject, dataset)
        if first is None:
            first = option, subject
            continue
        (other, field), own = (first[0], first[1].field), subject.field
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
    """What closed forms see outside the image: what the networks see there, or zeros.

    Raises:
        RunError: If networks differ in that.
    """
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
    there.

    Arguments:
        sde: The process of the networks; by default the cosine of which
            :math:`\sigma^2 = 1 - \cos^2\frac{\pi t}{2 \cdot 1.008}`.
        steps: The number :math:`n` of steps.
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
    """A score in closed form.

    Arguments:
        kind: ``els`` for the equivariant local score, ``ls`` for the local, ``is`` for the ideal.
        images: The training images that it is made of.
        sde: The process.
        size: The side of the patches that local scores see, or that at each noise level.
        padding: What local scores see outside the image.

    Raises:
        ValueError: If the patches do not fit.
    """
    match kind:
        case "els":
            return EquivariantLocalScore(images, sde, size=size, padding=padding)
        case "ls":
            return LocalScore(images, sde, size=size, padding=padding)
        case "is":
            return IdealScore(images, sde)


def with_process(field: ScoreField, sde: SDE) -> ScoreField:
    """A field whose process begins or ends elsewhere; weights are shared.

    Arguments:
        field: The field.
        sde: Its process, with other first and last times.
    """
    twin = copy.copy(field)
    twin.sde = sde
    return twin


def _open(
    option: str, path: Path, label: int | None, padding: Padding | None, trust_code: bool
) -> Subject:
    silent = path.suffix == ".pt" and convolutional.padding_of(path) is None
    try:
        return open_subject(path, "ema", padding if silent else None, label, trust_code)
    except RunError as error:
        raise RunError(f"{option}: {error}") from error


def _place(networks: Mapping[str, Subject], path: Path | None) -> dict[str, Any]:
    """How the images of networks are read: at which size, and from where."""
    for subject in networks.values():
        channels, *sides = subject.field.domain.shape
        found: dict[str, Any] = {"channels": channels, "size": sides[0], "path": path}
        data = None if subject.config is None else subject.config.data
        if path is None and isinstance(data, ImagesData):
            found |= {"path": data.path, "hub": data.hub}
        return found
    return {"path": path}


def _check_data(option: str, subject: Subject, dataset: Dataset) -> None:
    shape = subject.field.domain.shape
    if len(shape) != 3 or shape[1] != shape[2]:
        raise RunError(f"{option} takes points of shape {shape}, not square images")
    if subject.config is None:
        if subject.transform != CENTERED_BYTES:
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

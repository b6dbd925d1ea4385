"""The data: samples of a known distribution without end, images, or points of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    PlainSerializer,
    PlainValidator,
    Strict,
    StringConstraints,
    model_validator,
)

from scorefield.config.base import Count, Positive, Section, Seed, one_or_each
from scorefield.config.custom import Custom
from scorefield.config.document import shown
from scorefield.errors import UserError

# Far beyond these, squares overflow or vanish in single precision.
Length = Annotated[float, Field(ge=1e-6, le=1e6)]
_MOST_SIDE = 2**15
_CROPS = ("center", "adm", "stretch")


def _is_side(value: object) -> bool:
    return type(value) is int and 1 <= value <= _MOST_SIDE


def _size(value: Any) -> int | tuple[int, int] | None:
    """The side of images, or height and width; none if it is found in their files."""
    if value is None or _is_side(value):
        return value
    if isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_side, value)):
        return value[0], value[1]
    raise UserError(
        f"data.size is {shown(value)}, it must be the side of images from 1 to {_MOST_SIDE}, or a "
        "list of height and width"
    )


def _crop(value: Any) -> int | str | None:
    if value is None or value in _CROPS or _is_side(value):
        return value
    raise UserError(
        f"data.crop is {shown(value)}, it must be {', '.join(_CROPS)}, or a number of pixels from 1"
    )


def _plain_size(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


Name = Annotated[str, StringConstraints(min_length=1)]
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6)]
Positions = Annotated[
    tuple[Annotated[tuple[Coordinate, ...], Strict(False), Field(min_length=1)], ...],
    Strict(False),
    Field(min_length=1),
]
Period = Annotated[
    float | tuple[float, ...],
    *one_or_each(
        "data.period",
        "a number from 1e-06 to 1e+06, or a list of one for each coordinate of an atom",
        1e-6,
        1e6,
    ),
]


class RingData(Section):
    """Points of :meth:`~scorefield.targets.mixture.GaussianMixture.ring`, without end."""

    builds = "scorefield.targets.mixture:GaussianMixture.ring"
    points: ClassVar[str] = "vectors"
    kind: Literal["ring"]
    modes: Annotated[int, Field(ge=1, le=10_000)]
    radius: Length
    std: Length


class DigitsData(Section):
    """The images of :func:`~.digits`."""

    builds = "scorefield.data.arrays:digits"
    points: ClassVar[str] = "images"
    kind: Literal["digits"]


class ImagesData(Section):
    """The images of :func:`~scorefield.data.images.images`; what is ``null`` is what is known of
    the set, or found in its file or folder.
    """

    builds = "scorefield.data.images:images"
    points: ClassVar[str] = "images"
    kind: Literal["images"]
    path: Name | None
    dataset: Name | None
    size: Annotated[
        int | tuple[int, int] | None,
        PlainValidator(_size),
        PlainSerializer(_plain_size, when_used="json"),
    ]
    channels: Annotated[int, Field(ge=1, le=2**12)] | None
    classes: Count | None
    class_names: Annotated[tuple[Name, ...], Strict(False)] | None
    hub: Name | None
    centered: bool
    flip: bool
    dequantize: bool
    crop: Annotated[int | Literal["center", "adm", "stretch"] | None, PlainValidator(_crop)]
    filter: Literal["box", "bilinear", "hamming", "bicubic", "lanczos"] | None
    background: Annotated[int, Field(ge=0, le=255)] | None
    held_out_seed: Seed | None
    sha256: Sha256 | None


class LatentsData(Section):
    """The latents of :class:`~.LatentSource`; what is ``null`` is found in the pack."""

    builds = "scorefield.data.latents:LatentSource"
    points: ClassVar[str] = "images"
    kind: Literal["latents"]
    path: Name | None
    dataset: Name | None
    shape: Annotated[tuple[Count, Count, Count], Strict(False)] | None
    classes: Count | None
    class_names: Annotated[tuple[Name, ...], Strict(False)] | None
    held_out_seed: Seed | None
    sha256: Sha256 | None

    @model_validator(mode="before")
    @classmethod
    def _not_mirrored(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "flip" in values:
            raise UserError(
                "data.flip is for images, and latents are not mirrored: those of a mirrored image "
                "are not the mirrored ones of the image"
            )
        return values


class ArraysData(Section):
    """The points of :class:`~.PointFile`; what is ``null`` is found in the file."""

    builds = "scorefield.data.point_files:PointFile"
    kind: Literal["arrays"]
    path: Name | None
    dataset: Name | None
    shape: Annotated[tuple[Count, ...], Strict(False), Field(min_length=1, max_length=3)] | None
    classes: Count | None
    held_out_seed: Seed

    @property
    def points(self) -> str | None:
        """What sort of points the file has, where that is known."""
        return None if self.shape is None else "vectors" if len(self.shape) == 1 else "images"


class RandomData(Section):
    """Points of :func:`~.random_points`, in place of data that are not there."""

    builds = "scorefield.data.arrays:random_points"
    kind: Literal["random"]
    shape: Annotated[tuple[Count, ...], Strict(False), Field(min_length=1, max_length=3)]
    classes: Count | None
    count: Annotated[int, Field(ge=2, le=10**6)]

    @property
    def points(self) -> str:
        """What sort of points they are."""
        return "vectors" if len(self.shape) == 1 else "images"


class AtomsData(Section):
    """Atoms of :class:`~.PseudoAtoms` on a torus, without end; ``positions`` has
    one list of coordinates for each.
    """

    builds = "scorefield.targets.atoms:PseudoAtoms"
    points: ClassVar[str] = "atoms"
    kind: Literal["atoms"]
    positions: Positions
    std: Length
    period: Period

    @model_validator(mode="after")
    def _rectangular(self) -> AtomsData:
        numbers = [len(place) for place in self.positions]
        if min(numbers) < max(numbers):
            raise UserError(
                f"data.positions has places of {min(numbers)} and of {max(numbers)} coordinates, "
                f"all must have as many"
            )
        if isinstance(self.period, tuple) and len(self.period) != numbers[0]:
            raise UserError(
                f"data.period has {len(self.period)} values, it must have one for each of the "
                f"{numbers[0]} coordinates of data.positions"
            )
        return self


class ChainsData(Section):
    """Relative coordinates of particles, draws of Markov chains for an energy."""

    points: ClassVar[str] = "particles"
    particles: Annotated[int, Field(ge=2, le=1000)]
    dims: Annotated[int, Field(ge=1, le=10)]
    tau: Length
    chains: Annotated[int, Field(ge=4, le=10**6)]
    draws: Annotated[int, Field(ge=1, le=10**6)]
    burn_in: Annotated[int, Field(ge=0, le=10**6)]
    every: Annotated[int, Field(ge=1, le=10**6)]
    step: Positive
    leaps: Annotated[int, Field(ge=1, le=1000)]
    chains_seed: Seed


class DoubleWellData(ChainsData):
    """Particles of :class:`~.DoubleWell`, DW-4 by default."""

    builds = "scorefield.data.chains:double_well"
    kind: Literal["double_well"]
    a: Coordinate
    b: Coordinate
    c: Length
    d0: Length


class LennardJonesData(ChainsData):
    """Particles of :class:`~.LennardJones`, LJ-13 by default."""

    builds = "scorefield.data.chains:lennard_jones"
    kind: Literal["lennard_jones"]
    eps: Length
    rm: Length
    trap: Length


Data = Annotated[
    RingData
    | DigitsData
    | ImagesData
    | LatentsData
    | ArraysData
    | RandomData
    | AtomsData
    | DoubleWellData
    | LennardJonesData
    | Custom,
    Field(discriminator="kind"),
]

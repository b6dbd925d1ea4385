"""The data: samples of a known distribution without end, or images."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, Strict, StringConstraints, model_validator

from scorefield.config.base import Count, Section, one_or_each
from scorefield.config.custom import Custom
from scorefield.errors import UserError

# Far beyond these, squares overflow or vanish in single precision.
Length = Annotated[float, Field(ge=1e-6, le=1e6)]
Name = Annotated[str, StringConstraints(min_length=1)]
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
    """The images of :func:`~.image_source`; what is ``null`` is what is known of
    the data set.
    """

    builds = "scorefield.data.images:image_source"
    points: ClassVar[str] = "images"
    kind: Literal["images"]
    dataset: Name
    size: Annotated[int, Field(ge=1, le=2**15)] | None
    channels: Literal[1, 3] | None
    classes: Count | None
    centered: bool
    flip: bool
    dequantize: bool
    path: Name | None
    hub: Name | None


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


Data = Annotated[
    RingData | DigitsData | ImagesData | AtomsData | Custom, Field(discriminator="kind")
]

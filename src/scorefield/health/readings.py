r"""Other readings of a model: what it would be if one thing that is claimed of it were otherwise.

A claim that is wrong in one point (the time that the network receives, what its output is, the
scale of the data, ...) makes of a good network a bad field. Under the right reading the same
network has a lower denoising loss, on the same data and the same noise.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from scorefield.domain import Euclidean
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import Classes
from scorefield.fields.forms import Batch, Means, Quantity, Times, convert, times
from scorefield.fields.labels import (
    Label,
    LogNoiseLabel,
    ReversedTimeLabel,
    SigmaLabel,
    TimeLabel,
)
from scorefield.fields.parametrization import (
    Coefficients,
    DenoiserPrediction,
    EDMScaling,
    NoisePrediction,
    Parametrization,
    ScorePrediction,
    VelocityPrediction,
    VPrediction,
)
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.sde.base import SDE
from scorefield.sde.steps import DiscreteVP
from scorefield.sde.tables import Betas

SAME = ("sign", "output", "time", "sigma_data", "betas")
"""The kinds of readings that evaluate the same network at the same points."""
_STEPS = 10
"""From which label on a network is taken to count steps."""


class Reading(NamedTuple):
    """A reading of a model.

    Attributes:
        kind: What of the claim is otherwise, in a word or two.
        words: What would have to be so, as a clause.
        field: The model under this reading.
        points: How points of the data become those of the field.
    """

    kind: str
    words: str
    field: ScoreField
    points: Callable[[Tensor], Tensor] = lambda x: x


@dataclass(frozen=True)
class Reread(Parametrization):
    r"""A parametrisation of which one thing is otherwise: what the output is, its sign, or the
    label, which becomes :math:`a + b\,c_{noise}`.
    """

    base: Parametrization
    output: Parametrization | None = None
    sign: int = 1
    label: Label | None = None
    factor: float = 1.0
    shift: float = 0.0

    def coefficients(self, t: Tensor, sde: SDE) -> Coefficients:
        own = self.base.coefficients(t, sde)
        found = own.means if self.output is None else self.output.coefficients(t, sde).means
        turned = Means(*(pair._replace(of_value=self.sign * pair.of_value) for pair in found))
        label = own.c_noise if self.label is None else self.label(t, sde)
        return Coefficients(turned, own.c_in, self.shift + self.factor * label)


class Finer(ScoreField):
    r"""A field of images of twice the height and width, as one of images whose pixels are means of
    two by two of its own.

    The four pixels of a mean receive independent noise of twice the level, given their mean, so
    that nothing is known of the image but what the point says.
    """

    def __init__(self, field: ScoreField, shape: tuple[int, ...], seed: int = 0) -> None:
        super().__init__(field.sde, Euclidean(shape))
        self.field, self.seed = field, seed

    def predict(self, x: Batch, t: Times, quantity: Quantity, classes: Classes = None) -> Batch:
        sde = self.sde
        level = sde.noise_level(times(x, t)).reshape(-1).expand(len(x))
        fine = sde.time(2 * level)
        generator = torch.Generator().manual_seed(self.seed)
        shape = (*x.shape[:-2], 2 * x.shape[-2], 2 * x.shape[-1])
        z = torch.randn(shape, generator=generator, dtype=x.dtype).to(x.device)
        z = z - _doubled(_halved(z))
        scale = (2 * level).reshape(-1, 1, 1, 1)
        hat = _doubled(x / sde.alpha(times(x, t))) + scale * z
        alpha = sde.alpha(fine).reshape(-1, 1, 1, 1)
        denoised = _halved(self.field.denoise(alpha * hat, fine, classes))
        return convert(denoised, x, t, sde, "denoiser", quantity)


def readings(field: ScoreField, std: float) -> Iterator[Reading]:
    """All other readings of a field that can be tried, on data whose coordinates have a standard
    deviation ``std``.
    """
    if isinstance(field, PreconditionedField):
        yield from _outputs(field)
        yield from _labels(field)
        yield from _scales(field, std)
        yield from _tables(field)
    yield from _data(field)


def _read(field: PreconditionedField, parametrization: Parametrization) -> PreconditionedField:
    other = copy.copy(field)
    other.parametrization = parametrization
    return other


def _outputs(field: PreconditionedField) -> Iterator[Reading]:
    """Other outputs, and the other sign."""
    base = field.parametrization
    yield Reading(
        "sign", "the network's output had the opposite sign", _read(field, Reread(base, sign=-1))
    )
    t = torch.tensor([field.sde.t_min, 0.5 * (field.sde.t_min + field.sde.t_max)])
    own = base.coefficients(t, field.sde).means.noise
    for words, output in _OUTPUTS:
        found = output.coefficients(t, field.sde).means.noise
        alike = (torch.allclose(abs(a), abs(b), rtol=1e-3) for a, b in zip(found, own, strict=True))
        if all(alike):
            continue
        for sign in (1, -1):
            ending = "" if sign > 0 else ", with the opposite sign"
            other = _read(field, Reread(base, output=output, sign=sign))
            yield Reading("output", f"the network's output were {words}{ending}", other)


_OUTPUTS: tuple[tuple[str, Parametrization], ...] = (
    ("the score", ScorePrediction()),
    ("the noise", NoisePrediction()),
    ("the denoised point", DenoiserPrediction()),
    ("v, alpha times the noise minus sigma times the data", VPrediction()),
    ("the velocity", VelocityPrediction()),
)


@dataclass(frozen=True)
class _Log(Label):
    """The logarithm of the noise level."""

    def __call__(self, t: Tensor, sde: SDE) -> Tensor:
        return sde.noise_level(t).log()


@dataclass(frozen=True)
class _Level(Label):
    """The noise level."""

    def __call__(self, t: Tensor, sde: SDE) -> Tensor:
        return sde.noise_level(t)


_LABELS: tuple[tuple[str, Label], ...] = (
    ("a quarter of the logarithm of the noise level", LogNoiseLabel()),
    ("the logarithm of the noise level", _Log()),
    ("the noise level", _Level()),
    ("the standard deviation of the noise", SigmaLabel()),
    ("the time from 0 to 1", TimeLabel(1.0)),
    ("the time times 999", TimeLabel(999.0)),
    ("the time times 1000", TimeLabel(1000.0)),
    ("the time from the other end", ReversedTimeLabel()),
)


def _labels(field: PreconditionedField) -> Iterator[Reading]:
    """Other labels of the noise level than the one that the network is said to receive."""
    base, sde = field.parametrization, field.sde
    t = torch.linspace(sde.t_min, sde.t_max, 9, dtype=torch.float64)[1:-1]
    own = base.coefficients(t, sde).c_noise

    def other(words: str, **changes: Any) -> Reading:
        return Reading(
            "time", f"the network received {words}", _read(field, Reread(base, **changes))
        )

    for words, label in _LABELS:
        if not torch.allclose(label(t, sde), own, rtol=1e-3):
            yield other(words, label=label)
    if float(own.abs().max()) > _STEPS:
        yield other("one step more", shift=1.0)
        yield other("one step less", shift=-1.0)
        yield other("its steps from the other end", factor=-1.0, shift=float(own.max() + own.min()))
    for factor in (1000.0, 0.001):
        yield other(f"its label times {factor:g}", factor=factor)


def _scales(field: PreconditionedField, std: float) -> Iterator[Reading]:
    """Other standard deviations of the data that a network is scaled for."""
    base = field.parametrization
    if not isinstance(base, EDMScaling):
        return
    tried = [base.sigma_data]
    for sigma_data in (0.5, 1.0, std, base.sigma_data / 2, base.sigma_data * 2):
        if all(abs(math.log(sigma_data / other)) > 0.1 for other in tried):
            tried.append(sigma_data)
            words = f"the network were scaled for sigma_data {sigma_data:.3g}"
            yield Reading("sigma_data", words, _read(field, replace(base, sigma_data=sigma_data)))


def _tables(field: PreconditionedField) -> Iterator[Reading]:
    """Other tables of the steps."""
    if not isinstance(field.sde, DiscreteVP):
        return
    own = field.sde.table
    for name in get_args(Betas):
        try:
            sde = DiscreteVP(betas=name, levels=field.sde.levels)
        except UserError:
            continue
        if not torch.allclose(sde.table, own, rtol=1e-3):
            other = copy.copy(field)
            other.sde = sde
            yield Reading("betas", f"the table of betas were {name}", other)


def _data(field: ScoreField) -> Iterator[Reading]:
    """Other scales, channels and sizes of the data."""
    yield Reading("data", "the model were for data in [-1, 1], and these are from 0 to 1", field,
                  lambda x: 2 * x - 1)  # fmt: skip
    yield Reading("data", "the model were for data in [0, 1], and these are from -1 to 1", field,
                  lambda x: (x + 1) / 2)  # fmt: skip
    yield Reading("data", "the model were for bytes, and these are from 0 to 1", field,
                  lambda x: 255 * x)  # fmt: skip
    shape = field.domain.shape
    if len(shape) == 3 and shape[0] > 1:
        yield Reading("channels", "the channels were in reverse order", field, lambda x: x.flip(1))
    if len(shape) == 3 and min(shape[1:]) >= 4:
        fine = (shape[0], 2 * shape[1], 2 * shape[2])
        yield Reading("size", f"the model were for images of {fine[1]}×{fine[2]}",
                      Finer(_of_shape(field, fine), shape))  # fmt: skip
        if shape[1] % 2 == 0 and shape[2] % 2 == 0:
            coarse = (shape[0], shape[1] // 2, shape[2] // 2)
            yield Reading("size", f"the model were for images of {coarse[1]}×{coarse[2]}",
                          _of_shape(field, coarse), _halved)  # fmt: skip


def _of_shape(field: ScoreField, shape: tuple[int, ...]) -> ScoreField:
    other = copy.copy(field)
    other.domain = Euclidean(shape)
    return other


def _halved(x: Tensor) -> Tensor:
    """Means of two by two pixels."""
    return avg_pool2d(x, 2)


def _doubled(x: Tensor) -> Tensor:
    """Each pixel as two by two of its value."""
    return interpolate(x, scale_factor=2, mode="nearest")

r"""The evaluation protocol of diagnostics: points, noise levels, seeds, precision.

A protocol fixes the noise levels, the noisy points and the precision at which a diagnostic is
evaluated. Points depend on the protocol and the data alone, never on the field, so that two fields
under one protocol are evaluated at the same points: :math:`x = \alpha x_0 + \sigma\varepsilon` with
:math:`x_0` from the data and one :math:`\varepsilon` per point, shared by all noise levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.calculus.derivatives import VectorField
from scorefield.checks import check_count, check_share
from scorefield.engine import device_of, exact
from scorefield.errors import UserError
from scorefield.estimate import Estimate
from scorefield.fields.base import ScoreField, check_field, evaluation_mode
from scorefield.fields.classes import Classes, classes_at
from scorefield.fields.forms import Quantity
from scorefield.fields.inputs import check_event
from scorefield.html import table
from scorefield.noise import Noise
from scorefield.points import Given, numbers_of
from scorefield.targets.base import Target

_ENTRIES = 1 << 16
"""The entries of the copies of points at which a field is differentiated at once."""


class Points(NamedTuple):
    """The points of a protocol at one noise level."""

    sigma: float
    clean: Float[Tensor, "batch *event"]
    noisy: Float[Tensor, "batch *event"]
    z: Float[Tensor, "batch *event"]
    t: Float[Tensor, " batch"]
    indices: Tensor
    classes: Int[Tensor, " batch"] | None

    def by_class(self) -> list[Int[Tensor, " rows"]]:
        """The rows of the points of each class; of all points, where they have none."""
        if self.classes is None:
            return [torch.arange(len(self.t), device=self.t.device)]
        return [(self.classes == c).nonzero().flatten() for c in self.classes.unique()]


@dataclass(frozen=True)
class Protocol:
    r"""Noise levels, points and precision.

    Arguments:
        sigmas: The noise levels :math:`\sigma/\alpha`, in units of the data.
        n: The number of points at each level.
        seed: The seed of points and probes.
        dtype: The dtype of points and derivatives; a network computes in its own.
        precision: The relative standard error at which random probes stop; by default their
            number is fixed.

    Raises:
        ValueError: If a level is not positive, there is none, ``n`` is below 2, or the precision
            is not in (0, 1).
    """

    sigmas: Sequence[float]
    n: int = 256
    seed: int = 0
    dtype: torch.dtype = torch.float64
    precision: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", tuple(float(s) for s in self.sigmas))
        if not self.sigmas or not all(math.isfinite(s) and s > 0 for s in self.sigmas):
            raise UserError(f"a protocol needs positive noise levels, got {list(self.sigmas)}")
        check_count("the points of a protocol", self.n, 2)
        if self.precision is not None:
            check_share("a precision", self.precision)

    @property
    def noise(self) -> Noise:
        """The random numbers of the protocol.

        Its addresses have the seed ``-1 - seed``, so that a field trained and evaluated with
        equal seeds is not evaluated on the points of its first training step.
        """
        return Noise(-1 - self.seed)

    def points(
        self, data: Target | Given, field: ScoreField, classes: Classes = None
    ) -> Iterator[Points]:
        """The points at each noise level, in order.

        Arguments:
            data: A target, or clean points to choose from without replacement, as
                :func:`~scorefield.points.points_of` takes them; their classes are used where the
                field knows classes and ``classes`` is ``None``.
            field: Provides the process, the domain, the device and the number of classes only.

        Raises:
            ValueError: If the data has fewer points than the protocol asks for or points of another
                shape than the field, a noise level is not one of the field's process, or the
                classes do not fit.
        """
        sde, domain = field.sde, field.domain
        least, most = sde.level_range
        outside = [s for s in self.sigmas if not least <= s <= most]
        if outside:
            raise UserError(
                f"the noise levels {outside} of the protocol are outside those of the process, "
                f"{least:g} to {most:g}"
            )
        device = device_of(field)
        index = torch.arange(self.n, device=device)
        if isinstance(data, Target):
            clean = data.draw(self.noise, index, dtype=self.dtype)
            rows = field.class_rows(classes, index)
        else:
            given, own = numbers_of("the data", data)
            if len(given) < self.n:
                raise UserError(f"the protocol asks for {self.n} points, the data has {len(given)}")
            if classes is None and field.classes is not None:
                classes = own
            places = self.noise.permutation("diagnostics/choice", len(given))[: self.n]
            places = places.to(given.device)
            clean = given[places].to(device=device, dtype=self.dtype)
            rows = classes_at(field.class_rows(classes, given), places)
            rows = None if rows is None else rows.to(device)
        check_event(domain.shape, clean.shape[1:])
        z = self.noise.normal("diagnostics/noise", domain.shape, index, dtype=self.dtype)
        for sigma in self.sigmas:
            level = torch.full((self.n,), sigma, dtype=self.dtype, device=device)
            t = sde.time(level)
            yield Points(sigma, clean, sde.perturb(clean, t, z, domain), z, t, index, rows)

    def record(self) -> dict[str, Any]:
        """The protocol as plain values, to be stored with results."""
        dtype = str(self.dtype).removeprefix("torch.")
        return {**asdict(self), "sigmas": list(self.sigmas), "dtype": dtype}


@dataclass(frozen=True, repr=False)
class Profile:
    """A diagnostic as a function of the noise level.

    Iterating gives pairs of noise level and :class:`~.Estimate`.

    Attributes:
        name: The name of the diagnostic.
        unit: Its unit; empty for a pure number.
        estimates: One estimate per noise level, in the order of the protocol.
        protocol: The evaluation protocol.
        settings: Further settings of the estimator.
    """

    name: str
    unit: str
    estimates: tuple[Estimate, ...]
    protocol: Protocol
    settings: dict[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[float, Estimate]]:
        return iter(zip(self.protocol.sigmas, self.estimates, strict=True))

    def __len__(self) -> int:
        return len(self.estimates)

    def rows(self) -> list[dict[str, Any]]:
        """One plain record per noise level, for tables."""
        settings = " ".join(f"{key}={value}" for key, value in self.settings.items())
        return [
            {
                "metric": self.name,
                "sigma": sigma,
                "value": e.value,
                "standard_error": e.standard_error,
                "numerical_error": e.numerical_error,
                "n": e.n,
                "freedom": e.freedom,
                "unit": self.unit,
                "settings": settings,
            }
            for sigma, e in self
        ]

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows = [(f"{sigma:g}", estimate) for sigma, estimate in self]
        return table(f"{self.name}, n = {self.protocol.n}", rows, ("σ", self.unit or "value"))

    def __str__(self) -> str:
        unit = f" [{self.unit}]" if self.unit else ""
        lines = [f"{self.name}{unit}, n = {self.protocol.n}"]
        lines += [f"  sigma {sigma:<10.4g} {estimate}" for sigma, estimate in self]
        return "\n".join(lines)


def form(field: ScoreField, quantity: Quantity) -> VectorField:
    """The field in one of its forms, as a function of points, times and classes."""

    def fn(x: Tensor, t: Tensor, classes: Tensor | None = None) -> Tensor:
        return field.predict(x, t, quantity, classes)

    return fn


def blocks(n: int, entries: int, device: torch.device) -> tuple[Int[Tensor, " block"], ...]:
    """The indices of ``n`` points in blocks, whose size bounds the memory of derivatives.

    Arguments:
        n: The number of points.
        entries: The coordinates of a point times the copies of it at which the field is evaluated.
        device: Where the points are.

    Returns:
        Blocks of at most 2¹⁶ entries, or of one point.
    """
    return torch.arange(n, device=device).split(max(1, _ENTRIES // entries))


def precision_of(field: ScoreField, dtype: torch.dtype) -> float:
    """The relative precision of the coarsest dtype that a field's values at points pass through."""
    dtypes = {p.dtype for p in field.parameters() if p.is_floating_point()}
    return max(torch.finfo(d).eps for d in (dtype, *dtypes))


def measure(
    name: str,
    unit: str,
    at: Callable[[Points], Estimate],
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    classes: Classes,
    **settings: Any,
) -> Profile:
    """Evaluate ``at`` at each noise level of a protocol, exactly and with the field in evaluation
    mode; errors name the diagnostic and the noise level.
    """
    if classes is not None:
        settings["classes"] = classes if isinstance(classes, int) else "of each point"
    estimates = []
    check_field(field)
    with exact(), evaluation_mode(field), torch.no_grad():
        for points in protocol.points(data, field, classes):
            try:
                estimates.append(at(points))
            except UserError as error:
                raise UserError(f"{name} at noise level {points.sigma:g}: {error}") from error
    return Profile(name, unit, tuple(estimates), protocol, settings)

r"""The asymmetry of the Jacobian of a field, point by point.

In exact form the whole Jacobian is computed, a few points at a time, so that the memory does not
grow with their number; a closed-form Jacobian is used if the field has one. With probes, random
:math:`J v` and :math:`J^\top v` estimate the same squared norms without bias. Given a precision,
the number of probes doubles until their standard error, from the scatter between the probes of a
point, is that fraction of the value, or until there are 1024 per point. For a field without curl
the probes end at the level of rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.calculus.asymmetry import exact_asymmetry, probed_asymmetry
from scorefield.calculus.derivatives import VectorField, jacobian
from scorefield.checks import check_count, check_floating, check_share
from scorefield.diagnostics.protocol import blocks, form, precision_of
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import classes_at
from scorefield.fields.forms import Quantity, affine
from scorefield.noise import Noise

MOST_PROBES = 1024
"""The largest number of probes per point."""

_WORKSPACE = 1 << 26
"""The memory of the Jacobians in one block (64 MiB), at least one Jacobian."""
_ROUNDING = 64.0
"""The ratio of the norms of J - Jᵀ and J due to rounding, in units of the machine precision."""


@dataclass(frozen=True)
class Norms:
    r"""The squared norms ``skew`` :math:`\|J - J^\top\|_F^2` and ``whole`` :math:`\|J\|_F^2` of the
    Jacobians at points; ``rounding`` is the ratio of the norms, not squared, due to rounding.

    With a precision, ``added`` is the largest relative standard error of the probes, or 0 at the
    level of rounding.
    """

    skew: Float[Tensor, "probes points"]
    whole: Float[Tensor, "probes points"]
    rounding: float
    exact: bool = True
    added: float | None = None

    @property
    def probes(self) -> int | None:
        """The number of probes per point; ``None`` if exact."""
        return None if self.exact else self.skew.shape[0]

    @property
    def exterior(self) -> Float[Tensor, " points"]:
        r"""The norm :math:`\|J - J^\top\|_F` at each point."""
        return self.skew.mean(dim=0).sqrt()

    @property
    def relative(self) -> Float[Tensor, " points"]:
        r"""The relative asymmetry :math:`\|J - J^\top\|_F / 2\|J\|_F` at each point."""
        return 0.5 * (self.skew.mean(dim=0) / self.whole.mean(dim=0)).sqrt()

    @property
    def exterior_error(self) -> Float[Tensor, " points"]:
        """The standard error that the probes add to :attr:`exterior`, at each point."""
        return self._root(self.exterior, self.skew)

    @property
    def relative_error(self) -> Float[Tensor, " points"]:
        """The standard error that the probes add to :attr:`relative`, at each point."""
        share = self.skew.mean(dim=0) / self.whole.mean(dim=0)
        return self._root(self.relative, self.skew - share * self.whole)

    def _root(self, value: Tensor, draws: Tensor) -> Tensor:
        """The standard error of a value proportional to the root of a mean of these draws."""
        if self.exact:
            return torch.zeros_like(value)
        square = self.skew.mean(dim=0)
        error = (draws.var(dim=0) / len(draws)).sqrt() * value / (2 * square)
        return torch.where(square > self.rounding**2 * self.whole.mean(dim=0), error, 0.0)


@dataclass(frozen=True)
class Probing:
    """Random probes of the Jacobians at points, at the addresses ``(purpose, index, number)``.

    Without a precision, the relative standard error at which they stop, ``first`` is their number
    per point; with one, that of the first round. Raises ``ValueError`` if ``first`` is not positive
    or the precision not in (0, 1).
    """

    noise: Noise
    index: Int[Tensor, " points"]
    first: int
    precision: float | None = None
    purpose: str = "diagnostics/probe"
    dtype: torch.dtype = torch.float64

    def __post_init__(self) -> None:
        check_count("probes", self.first)
        if self.precision is not None:
            check_share("a precision", self.precision)


At = tuple[Tensor, Tensor, Tensor | None]
"""Points, their times and their classes."""

ProbeError = Callable[[Norms], float]
"""The relative standard error that probes add to a number computed from norms."""


def each_point(norms: Norms) -> float:
    """The largest relative standard error of either number at any point."""
    errors = norms.exterior_error / norms.exterior, norms.relative_error / norms.relative
    return max(float(torch.where(norms.exterior > 0, e, 0.0).max()) for e in errors)


def asymmetry_at(
    field: ScoreField,
    x: Float[Tensor, "points *event"],
    t: Float[Tensor, " points"],
    quantity: Quantity = "score",
    probing: Probing | None = None,
    probe_errors: tuple[ProbeError, ...] = (each_point,),
    classes: Int[Tensor, " points"] | None = None,
) -> Norms:
    r"""The squared norms of :math:`J - J^\top` and :math:`J` at points, without a graph.

    Arguments:
        field: The field, in evaluation mode.
        probing: The random probes; exact Jacobians by default.
        probe_errors: The errors that the precision bounds; those at each point by default.

    Raises:
        ValueError: If the points are not floating-point numbers, or a norm is not finite.
    """
    check_floating("x", x)
    rounding = _ROUNDING * precision_of(field, x.dtype)
    with torch.no_grad():
        if probing is None:
            norms = _exact(field, x, t, classes, quantity, rounding)
        else:
            norms = _probed(form(field, quantity), (x, t, classes), probing, probe_errors, rounding)
    bad = ~(norms.skew + norms.whole).isfinite().all(dim=0)
    if bool(bad.any()):
        raise UserError(f"the Jacobian is not finite at {int(bad.sum())} of {len(x)} points")
    return norms


def _exact(
    field: ScoreField,
    x: Tensor,
    t: Tensor,
    classes: Tensor | None,
    quantity: Quantity,
    rounding: float,
) -> Norms:
    at_once = max(1, _WORKSPACE // (x.shape[1:].numel() ** 2 * x.element_size()))
    parts = [
        exact_asymmetry(_jacobian(field, x[r], t[r], classes_at(classes, r), quantity))
        for r in torch.arange(len(x), device=x.device).split(at_once)
    ]
    skew, whole = (torch.cat(values).unsqueeze(0) for values in zip(*parts, strict=True))
    return Norms(skew, whole, rounding)


def _jacobian(
    field: ScoreField, x: Tensor, t: Tensor, classes: Tensor | None, quantity: Quantity
) -> Tensor:
    if not field.has_jacobian:
        return jacobian(form(field, quantity), x, t, classes=classes)
    score = field.jacobian(x, t, classes)
    if quantity == "score":
        return score
    a, b = affine(x.flatten(1), t, field.sde, quantity)
    found = b[:, :, None] * score
    found.diagonal(dim1=1, dim2=2).add_(a)
    return found


def _probed(
    fn: VectorField,
    at: At,
    probing: Probing,
    probe_errors: tuple[ProbeError, ...],
    rounding: float,
) -> Norms:
    if probing.precision is None:
        return _round(fn, at, probing, 0, probing.first, rounding)
    used = min(max(2, probing.first), MOST_PROBES)
    norms = _round(fn, at, probing, 0, used, rounding)
    while True:
        skew, whole = float(norms.skew.mean()), float(norms.whole.mean())
        if not rounding**2 * whole < skew < math.inf:
            return replace(norms, added=0.0)
        error = max(probe_error(norms) for probe_error in probe_errors)
        if error <= probing.precision or used == MOST_PROBES:
            return replace(norms, added=error)
        further = _round(fn, at, probing, used, min(2 * used, MOST_PROBES), rounding)
        norms = replace(
            norms,
            skew=torch.cat((norms.skew, further.skew)),
            whole=torch.cat((norms.whole, further.whole)),
        )
        used = norms.skew.shape[0]


def _round(
    fn: VectorField,
    at: At,
    probing: Probing,
    start: int,
    end: int,
    rounding: float,
) -> Norms:
    """The estimates of the probes ``start … end - 1`` of each point."""
    x, t, classes = at
    n, *event = x.shape
    row = torch.arange(n, device=t.device).repeat(end - start)
    step = torch.arange(start, end, device=t.device).repeat_interleave(n)
    parts = []
    for some in blocks(len(row), x.shape[1:].numel(), t.device):
        chosen, steps = row[some], step[some]
        index = probing.index[chosen]
        v = probing.noise.signs(probing.purpose, event, index, steps, dtype=probing.dtype)
        known = classes_at(classes, chosen)
        parts.append(probed_asymmetry(fn, x[chosen], t[chosen], v, classes=known))
    skew, whole = (torch.cat(values).reshape(-1, n) for values in zip(*parts, strict=True))
    return Norms(skew, whole, rounding, exact=False)

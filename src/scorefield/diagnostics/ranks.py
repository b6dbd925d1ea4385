r"""Simulation-based calibration: the ranks of data among draws of their posterior.

Data :math:`x` are drawn from the prior, a measurement :math:`y` is simulated from each, and
:math:`L` draws :math:`x^1 \dots x^L` are made of the posterior of :math:`y`. If they are of the
exact posterior, :math:`x, x^1 \dots x^L` are exchangeable, and the rank of any quantity :math:`f`,

.. math:: r = \#\{l : f(x^l, y) < f(x, y)\} \in \{0, \dots, L\},

is uniform, for one pair :math:`(x, y)` as for any number of them. Draws that are too narrow make
ranks at both ends too frequent, too wide ones those in the middle, and biased ones those at one
end.

Uniform ranks of the coordinates alone are no proof: draws of the prior, which know nothing of the
measurement, have them too. The *misfit* :math:`|y - \mathcal{A}(x)|^2`, which depends on the
measurement, distinguishes these.

References:
    Validating Bayesian inference algorithms with simulation-based calibration (Talts, Betancourt,
    Simpson, Vehtari and Gelman, 2018), theorem 1 and section 4.

    Simulation-based calibration checking for Bayesian computation: the choice of test quantities
    shapes sensitivity (Modrák, Moon, Kim, Bürkner, Huurre, Faltejsková, Gelman and Vehtari, 2023),
    on quantities that depend on the data.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from scorefield.checks import check_count, check_data, check_floating, check_kind, kind_of
from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean
from scorefield.fields.observation import Observation
from scorefield.fields.posterior import PosteriorField
from scorefield.html import table
from scorefield.noise import Noise
from scorefield.samplers.base import Sampler
from scorefield.targets.posterior import ExactPosteriors

Quantities = Mapping[str, Callable[[Tensor], Tensor]]
"""Functions of points ``(batch, *event)``, with one value ``(batch,)`` of each."""

_MOST_BINS = 50
_LEAST_EXPECTED = 5


@dataclass(frozen=True, repr=False)
class Ranks:
    r"""The ranks of data among draws of their posterior, by quantity.

    Attributes:
        ranks: The rank of each of the :math:`n` data, from 0 to :math:`L`, by name of the quantity.
        draws: The number :math:`L` of draws for each.

    Raises:
        ValueError: If there is no quantity, or no number of :attr:`bins` fits.
    """

    ranks: Mapping[str, Int[Tensor, " n"]]
    draws: int

    def __post_init__(self) -> None:
        if not self.ranks:
            raise UserError("ranks are those of at least one quantity, and there is none")
        _bins(self.n, self.draws)

    @property
    def n(self) -> int:
        """The number of data."""
        return len(next(iter(self.ranks.values())))

    @property
    def bins(self) -> int:
        r"""The number of bins of the histograms: the most, up to 50, that divide :math:`L + 1` and
        expect 5 ranks each.
        """
        return _bins(self.n, self.draws)

    def histogram(self, name: str) -> Int[Tensor, " bins"]:
        """The number of ranks of a quantity in each bin."""
        width = (self.draws + 1) // self.bins
        return torch.bincount(self.ranks[name] // width, minlength=self.bins)

    def band(self, confidence: float = 0.95) -> tuple[float, float]:
        """The interval of the number of uniform ranks in one bin: binomial quantiles."""
        low, high = stats.binom.interval(confidence, self.n, 1 / self.bins)
        return float(low), float(high)

    @property
    def p_values(self) -> dict[str, float]:
        r"""The p-value of Pearson's :math:`\chi^2` test of uniform ranks, by quantity."""
        return {
            name: float(stats.chisquare(self.histogram(name).cpu().numpy()).pvalue)
            for name in self.ranks
        }

    @property
    def p_value(self) -> float:
        """The least p-value times the number of quantities (Bonferroni), which are not independent;
        at most 1.
        """
        return min(1.0, len(self.ranks) * min(self.p_values.values()))

    @property
    def shift(self) -> dict[str, Estimate]:
        r"""The mean of :math:`u - \tfrac12` by quantity, with :math:`u = (r + \tfrac12) / (L + 1)`:
        0 for uniform ranks, positive where the draws are too small.
        """
        return {name: mean(self._shares(name) - 0.5) for name in self.ranks}

    @property
    def spread(self) -> dict[str, Estimate]:
        r"""The mean of :math:`(u - \tfrac12)^2` by quantity, in units of that of uniform ranks,
        :math:`(1 - (L + 1)^{-2}) / 12`: 1 for uniform ranks, above 1 where the draws are too narrow
        or off, below 1 where they are too wide.
        """
        uniform = (1 - (self.draws + 1) ** -2) / 12
        return {name: mean((self._shares(name) - 0.5) ** 2 / uniform) for name in self.ranks}

    def rows(self) -> list[dict[str, Any]]:
        """One plain record per quantity, for tables."""
        p, shift, spread = self.p_values, self.shift, self.spread
        return [
            {
                "quantity": name,
                "n": self.n,
                "draws": self.draws,
                "p_value": p[name],
                "shift": shift[name].value,
                "shift_standard_error": shift[name].standard_error,
                "spread": spread[name].value,
                "spread_standard_error": spread[name].standard_error,
            }
            for name in self.ranks
        ]

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        lines = [f"ranks of {self.n} among {self.draws} draws, p = {self.p_value:.2g}"]
        p, shift, spread = self.p_values, self.shift, self.spread
        lines += [
            f"  {name:<10} p = {p[name]:<8.2g} shift {shift[name]}, spread {spread[name]}"
            for name in self.ranks
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        p, shift, spread = self.p_values, self.shift, self.spread
        rows = [(name, f"{p[name]:.2g}", shift[name], spread[name]) for name in self.ranks]
        title = f"ranks of {self.n} among {self.draws} draws"
        return table(title, rows, ("quantity", "p", "shift", "spread"))

    def _shares(self, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        shares: np.ndarray[Any, np.dtype[np.float64]] = (
            ((self.ranks[name].double() + 0.5) / (self.draws + 1)).cpu().numpy()
        )
        return shares


def posterior_ranks(
    points: Float[Tensor, "n *event"],
    draws: Float[Tensor, "n l *event"],
    observation: Observation | None = None,
    quantities: Quantities | None = None,
    seed: int = 0,
) -> Ranks:
    r"""The ranks of data among draws of their posteriors, however these were made.

    Arguments:
        points: The data :math:`x`, drawn from the prior.
        draws: The draws of the posterior of each.
        observation: The measurement of each, for the misfit.
        quantities: Functions of points to be ranked; each coordinate by default, ``x0`` the first.
        seed: The seed of the ranks among equals, at the addresses ``("rank", point, quantity)``.

    Raises:
        ValueError: If a shape does not fit, a number is not finite, there are not as many
            measurements as data, a quantity is not one number a point or has the name of the
            misfit, or no number of bins fits: see :class:`Ranks`.
    """
    check_data("the points of ranks", points)
    check_floating("draws of a posterior", draws)
    if draws.dim() < 2 or len(draws) != len(points) or draws.shape[2:] != points.shape[1:]:
        raise UserError(
            f"draws of the posteriors of points {tuple(points.shape)} have the shape (n, L, "
            f"*event), got {tuple(draws.shape)}"
        )
    check_data("draws of a posterior", draws.flatten(0, 1))
    n, count = draws.shape[:2]
    flat = draws.flatten(0, 1)
    values = {
        name: (own, _values(name, f(flat), n * count))
        for name, (f, own) in _own_values(points, quantities).items()
    }
    if observation is not None:
        _check_misfit(values)
        if observation.count != n:
            raise UserError(
                f"the observation of {n} points has as many measurements, not {observation.count}"
            )
        rows = torch.arange(n, device=points.device)
        values["misfit"] = (
            _misfit(observation, points, rows),
            _misfit(observation, flat, rows.repeat_interleave(count)),
        )
    noise, index = Noise(seed), torch.arange(n, device=points.device)
    found = {}
    for k, (name, (own, others)) in enumerate(values.items()):
        below = (others.reshape(n, count) < own.unsqueeze(1)).sum(dim=1)
        equal = (others.reshape(n, count) == own.unsqueeze(1)).sum(dim=1)
        # Its place among equals is any, as likely as any other.
        u = noise.uniform("rank", (), index, k, dtype=torch.float64)
        found[name] = (below + torch.floor(u * (equal + 1)).long()).cpu()
    return Ranks(found, count)


def calibration_ranks(
    posterior: PosteriorField | ExactPosteriors,
    points: Float[Tensor, "n *event"],
    sampler: Sampler | None = None,
    draws: int = 19,
    quantities: Quantities | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Ranks:
    r"""Simulation-based calibration of a posterior and its sampler: see
    :mod:`scorefield.diagnostics.ranks`.

    Arguments:
        posterior: The field of the posteriors of the data's measurements, one of each:
            :meth:`.Observation.of` simulates them.
        points: The data, drawn from the prior.
        sampler: The sampler of the field; :class:`~.ExactPosteriors` draw exactly without one.
        draws: The number :math:`L` of draws for each; draw :math:`l` of point :math:`k` is sample
            :math:`k L + l`.
        quantities: Functions of points to be ranked beside the misfit; each coordinate by default.
        seed: The seed of the draws.
        dtype: The dtype of the draws.

    Raises:
        ValueError: Before anything is drawn, as by :func:`posterior_ranks`.
        TypeError: If the field is of another kind, or has no exact draws and no sampler.

    Example:
        >>> points = prior.sample(10_000, seed=1)
        >>> observation = Observation.of(matrix, points, noise=0.3, seed=2)
        >>> print(calibration_ranks(MMPS(prior, observation), points, Heun(32)))
    """
    check_data("the points of ranks", points)
    check_count("calibration_ranks: draws", draws)
    _bins(len(points), draws)
    _check_misfit(_own_values(points, quantities))
    if sampler is None:
        check_kind("a posterior that is drawn from without a sampler", posterior, ExactPosteriors)
    else:
        check_kind("what draws from a posterior", sampler, Sampler)
    if not isinstance(posterior, PosteriorField):
        check_kind("a posterior to be calibrated", posterior, ExactPosteriors)
    n = len(points)
    if posterior.observation.count != n:
        raise UserError(
            f"the posterior of {n} points has as many measurements, not "
            f"{posterior.observation.count}"
        )
    classes = torch.arange(n, device=points.device).repeat_interleave(draws)
    if sampler is None:
        assert isinstance(posterior, ExactPosteriors)
        found = posterior.sample(n * draws, seed, classes, dtype)
    else:
        found = sampler.sample(posterior, n * draws, seed, classes=classes, dtype=dtype)
    found = found.reshape(n, draws, *points.shape[1:]).to(points)
    return posterior_ranks(points, found, posterior.observation, quantities, seed)


def _bins(n: int, draws: int) -> int:
    """See :attr:`Ranks.bins`."""
    most = min(_MOST_BINS, n // _LEAST_EXPECTED)
    fitting = [b for b in range(2, most + 1) if (draws + 1) % b == 0]
    if not fitting:
        raise UserError(
            f"{n} ranks of {draws} draws have no bins: take draws whose number plus one has small "
            "divisors, such as 19, and at least 10 data"
        )
    return fitting[-1]


def _own_values(
    points: Tensor, quantities: Quantities | None
) -> dict[str, tuple[Callable[[Tensor], Tensor], Tensor]]:
    """The quantities, and the value of each at the data."""
    if quantities is None:
        quantities = {f"x{k}": partial(_coordinate, k) for k in range(points[0].numel())}
    return {name: (f, _values(name, f(points), len(points))) for name, f in quantities.items()}


def _check_misfit(names: Container[str]) -> None:
    if "misfit" in names:
        raise UserError(
            "misfit is the name of the distance from the measurement, which is ranked too: give "
            "the quantity misfit another one"
        )


def _misfit(observation: Observation, x: Tensor, rows: Tensor) -> Tensor:
    return (observation.values(rows, x) - observation.measure(x)).square().sum(dim=1)


def _coordinate(k: int, x: Tensor) -> Tensor:
    return x.reshape(len(x), -1)[:, k]


def _values(name: str, values: Tensor, n: int) -> Tensor:
    fits = isinstance(values, Tensor) and values.shape == (n,)
    if not fits or not bool(values.isfinite().all()):
        raise UserError(
            f"the quantity {name} is one finite number a point: {n} points gave {kind_of(values)}"
        )
    return values.double()

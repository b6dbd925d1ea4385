r"""A number with its uncertainty.

Every measurement of the library is an :class:`Estimate`: a value, its standard error, the number
of independent draws behind it, and the unit. An exact number has standard error zero. The error of
a quadrature or a solver is a second, numerical error, which more draws do not reduce.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from scorefield.checks import check_share
from scorefield.errors import UserError


class Variance(NamedTuple):
    r"""The variance :math:`v_0 + b\,\theta + c\,\theta^2` of a measurement of the number
    :math:`\theta`, with :math:`c \le 0`.
    """

    at_zero: float
    slope: float
    bend: float = 0.0


@dataclass(frozen=True)
class Estimate:
    r"""A measured number.

    Arguments:
        value: The number, in ``unit``.
        standard_error: The standard deviation of ``value`` over repetitions of the
            measurement, in ``unit``; zero where the number is exact.
        n: The number of independent draws that were averaged; 0 where the number is exact.
        unit: The unit, in words; empty for a pure number.
        settings: The settings of the estimator: quadrature, radius, probes, …
        numerical_error: A bound on the error of quadrature or solver in ``value``, in ``unit``;
            it widens every interval.
        variance: How the variance depends on the true value; by default it does not.
        freedom: The degrees of freedom of ``standard_error``; by default, and of numbers that are
            averaged again, one less than ``n``.

    Raises:
        ValueError: If the value is not finite or an error is not a finite, non-negative number
            (a measurement that failed is an error, not a number), or if there is a standard error
            but no draws.
    """

    value: float
    standard_error: float
    n: int
    unit: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    numerical_error: float = 0.0
    variance: Variance | None = None
    freedom: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise UserError(f"a measurement gave {self.value}, which is not a finite number")
        errors = {"standard": self.standard_error, "numerical": self.numerical_error}
        for name, error in errors.items():
            if not (math.isfinite(error) and error >= 0):
                raise UserError(f"a {name} error must be finite and >= 0, got {error}")
        if self.n < 0 or (self.n == 0 and self.standard_error > 0):
            raise UserError(f"a number with a standard error needs draws, got n={self.n}")
        if self.freedom is not None and not self.freedom > 0:
            raise UserError(f"degrees of freedom must be positive, got {self.freedom}")

    @property
    def draws(self) -> float:
        """The number of normal draws that would determine the standard error as well."""
        return float(self.n) if self.freedom is None else self.freedom + 1

    @property
    def exact(self) -> bool:
        """Whether the number has no error: nothing was drawn or approximated to obtain it."""
        return self.n == 0 and self.numerical_error == 0

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        r"""The two-sided confidence interval, widened by the numerical error on both sides.

        It holds the true values :math:`\theta` with :math:`|y - \theta| \le q\,\mathrm{se}`, where
        :math:`y` is the value and :math:`q` the quantile of Student's distribution with the
        degrees of freedom of the standard error; with a variance that depends on the true value,
        those with :math:`(y - \theta)^2 \le q^2 (v_0 + b\,\theta + c\,\theta^2)`, around
        :math:`(y + q^2 b / 2) / (1 - q^2 c)`.

        Raises:
            ValueError: If the coverage ``confidence`` is not in (0, 1).

        References:
            Probable inference, the law of succession, and statistical inference (Wilson, 1927).
        """
        check_share("a confidence", confidence)
        level = 0.5 + confidence / 2
        normal = self.n < 2
        q = NormalDist().inv_cdf(level) if normal else float(stats.t.ppf(level, df=self.draws - 1))
        middle, half = self.value, q * self.standard_error
        if self.variance is not None:
            at_zero, slope, bend = self.variance
            y, shift, whole = self.value, 0.5 * q * slope, 1 - q**2 * bend
            middle = (y + q * shift) / whole
            square = at_zero * whole + slope * y + bend * y**2 + shift**2
            half = q * math.sqrt(max(square, 0.0)) / whole
        half += self.numerical_error
        return middle - half, middle + half

    def scaled(self, factor: float, unit: str | None = None) -> Estimate:
        """The estimate times a constant, in another unit where one is given."""
        v = self.variance
        return replace(
            self,
            value=self.value * factor,
            standard_error=self.standard_error * abs(factor),
            unit=self.unit if unit is None else unit,
            numerical_error=self.numerical_error * abs(factor),
            variance=None if v is None else Variance(v[0] * factor**2, v[1] * factor, v.bend),
        )

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if self.exact:
            return f"{self.value:.6g}{unit}"
        text = format_uncertain(self.value, self.standard_error)
        if self.numerical_error > 0.1 * self.standard_error:
            text += f" (numerical: {self.numerical_error:.1e})"
        return text + unit


def mean(draws: ArrayLike, /, unit: str = "", **settings: Any) -> Estimate:
    r"""The mean :math:`\bar y` of independent draws, with standard error
    :math:`\sqrt{\sum (y_i - \bar y)^2 / (n (n - 1))}`; ``settings`` are those of the estimator.

    Its degrees of freedom are those of the variance of the draws by their kurtosis
    :math:`\kappa`, and at most :math:`n - 1`, which they are of normal draws: long-tailed ones
    determine their variance as badly as few normal ones.

    .. math:: \nu = \frac{2}{\mathrm{var}(s^2) / \sigma^4}
        = 2 \Big/ \Big(\frac{\kappa}{n} - \frac{n - 3}{n (n - 1)}\Big)

    Raises:
        ValueError: For fewer than two draws, or a draw that is not finite.

    References:
        An approximate distribution of estimates of variance components (Satterthwaite, 1946).
    """
    y = finite_draws(draws)
    error = float(y.std(ddof=1)) / math.sqrt(y.size)
    freedom = _freedom(y) if error > 0 else None
    return Estimate(float(y.mean()), error, y.size, unit, settings, freedom=freedom)


def ratio(
    numerators: ArrayLike, denominators: ArrayLike, unit: str = "", **settings: Any
) -> Estimate:
    r"""The ratio of means :math:`r = \bar a / \bar b` of paired draws, by the delta method:
    its standard error is that of the mean of :math:`(a_i - r b_i) / \bar b`.

    Raises:
        ValueError: For fewer than two pairs, a draw that is not finite, or a zero denominator.

    References:
        Sampling techniques (Cochran, 1977), equation 6.9.
    """
    a, b = finite_draws(numerators), finite_draws(denominators)
    if a.size != b.size:
        raise UserError(f"a ratio needs paired draws, got {a.size} and {b.size}")
    if b.mean() == 0:
        raise UserError("a ratio with denominator zero is not defined")
    value = float(a.mean() / b.mean())
    residual = mean((a - value * b) / b.mean())
    return replace(residual, value=value, unit=unit, settings=settings)


def root(square: Estimate, unit: str = "") -> Estimate:
    r"""The square root of a mean square, by the delta method :math:`\mathrm{se} / (2\sqrt{v})`.

    A mean square that does not exceed its standard error has no such expansion; its root, 0 where
    it is negative, is reported with standard error :math:`\sqrt{\mathrm{se}}`.

    Raises:
        ValueError: If the mean square is negative by more than six standard errors.
    """
    if square.value < -6 * square.standard_error:
        raise UserError(f"a mean square of {square.value} has no root")
    if square.value <= square.standard_error:
        value, error = math.sqrt(max(square.value, 0.0)), math.sqrt(square.standard_error)
    else:
        value = math.sqrt(square.value)
        error = square.standard_error / (2 * value)
    e = square.numerical_error
    # Of the two bounds on |√(v ± e) − √v|, the better one.
    numerical = min(math.sqrt(e), e / value) if value > 0 else math.sqrt(e)
    return replace(
        square,
        value=value,
        standard_error=error,
        unit=unit,
        numerical_error=numerical,
        variance=None,
    )


def paired_difference(a: ArrayLike, b: ArrayLike, unit: str = "", **settings: Any) -> Estimate:
    """The mean of :math:`a_i - b_i` over common draws, whose shared noise cancels.

    Raises:
        ValueError: If the draws are not paired, or fewer than two.
    """
    x, y = finite_draws(a), finite_draws(b)
    if x.size != y.size:
        raise UserError(f"a paired difference needs paired draws, got {x.size} and {y.size}")
    return mean(x - y, unit, **settings)


def pool(estimates: Sequence[Estimate]) -> Estimate:
    """The unweighted mean of estimates, whose standard error is that of their scatter.

    For repetitions of one measurement (seeds, data sets): what varies between repetitions is
    part of the error, whatever each repetition's own standard error was. Numerical errors are
    averaged, as if all were of one sign.

    Raises:
        ValueError: For fewer than two estimates, or estimates in different units.
    """
    units = {e.unit for e in estimates}
    if len(units) > 1:
        raise UserError(f"estimates in different units cannot be pooled: {sorted(units)}")
    pooled = mean([e.value for e in estimates], next(iter(units), ""))
    numerical = sum(e.numerical_error for e in estimates) / len(estimates)
    return replace(pooled, numerical_error=numerical)


def add_errors(parts: Sequence[tuple[float, int | float]]) -> tuple[float, int]:
    r"""The standard error of a sum of independent errors, and an equivalent number of draws: one
    more than the degrees of freedom of Welch and Satterthwaite, rounded down. Each part is a
    standard error with the number of draws behind it; 0 and 1 stand for an error that is known.

    References:
        An approximate distribution of estimates of variance components (Satterthwaite, 1946),
        equation 17.
    """
    error = math.hypot(*(s for s, _ in parts))
    if error == 0:
        return 0.0, 0
    # In units of the whole, so that no power of it underflows.
    share = sum((s / error) ** 4 / (n - 1) for s, n in parts if s > 0 and n > 1)
    # Whole degrees of freedom stay whole under rounding.
    return error, math.floor(1 / share + 1e-9) + 1 if share > 0 else 1


def format_uncertain(value: float, error: float) -> str:
    """Format ``value ± error`` with two significant digits of the error."""
    if error == 0:
        return f"{value:.6g} ± 0"
    digits = 1 - math.floor(math.log10(error))
    largest = max(abs(value), error)
    if 1e-3 <= largest < 1e5 and digits >= 0:
        return f"{value:.{digits}f} ± {error:.{digits}f}"
    exponent = math.floor(math.log10(largest))
    scale = 10.0**exponent
    places = max(digits + exponent, 0)
    return f"({value / scale:.{places}f} ± {error / scale:.{places}f})e{exponent:+03d}"


def format_interval(estimate: Estimate) -> str:
    """Format a number with its 95 % interval and its unit, all rounded to two significant digits of
    the interval's half-width, as in ``0.123 (0.101 to 0.145) nats``.
    """
    unit = f" {estimate.unit}" if estimate.unit else ""
    low, high = estimate.interval()
    half = (high - low) / 2
    if half == 0:
        return f"{estimate.value:.6g}{unit}"
    digits = 1 - math.floor(math.log10(half))
    largest = max(abs(low), abs(high))
    scale, power = 1.0, ""
    if not 1e-3 <= largest < 1e6:
        exponent = math.floor(math.log10(largest))
        scale, power, digits = 10.0**exponent, f"e{exponent:+03d}", digits + exponent
    value, *ends = (
        f"{round(v / scale, digits):.{max(digits, 0)}f}{power}" for v in (estimate.value, low, high)
    )
    return f"{value} ({' to '.join(ends)}){unit}"


def _freedom(y: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """The degrees of freedom of the variance of draws, which are not all the same."""
    n = y.size
    # In units of the largest, so that no power of it underflows.
    off = np.abs(y - y.mean())
    square = np.square(off / off.max())
    kurtosis = float(np.square(square).mean() / square.mean() ** 2)
    return min(n - 1.0, 2 / (kurtosis / n - (n - 3) / (n * (n - 1))))


def finite_draws(draws: ArrayLike) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Draws as an array.

    Raises:
        ValueError: For fewer than two draws, or a draw that is not finite.
    """
    y = np.asarray(draws, dtype=np.float64).reshape(-1)
    if y.size < 2:
        raise UserError(f"a standard error needs at least two draws, got {y.size}")
    if not np.isfinite(y).all():
        raise UserError(f"{int((~np.isfinite(y)).sum())} of {y.size} draws are not finite")
    return y


def proportion(k: int, n: int) -> tuple[float, float, float]:
    """The proportion of ``k`` of ``n`` draws and its 95 % interval (Wilson)."""
    found = stats.binomtest(k, n).proportion_ci(method="wilson")
    return k / n, float(found.low), float(found.high)


def share(k: int, n: int) -> Estimate:
    r"""The proportion :math:`y` of ``k`` of ``n`` draws as a number whose variance
    :math:`\theta(1 - \theta)/n` depends on the true value: intervals are Wilson's, with Student's
    quantile, and within :math:`[0, 1]`.
    """
    y, low, high = proportion(k, n)
    error = (high - low) / (2 * NormalDist().inv_cdf(0.975))
    return Estimate(y, error, n, variance=Variance(0.0, 1 / n, -1 / n))

"""Figures of the exterior derivative, of one start and of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scorefield import plotting
from scorefield.diagnostics.exterior import UNITS
from scorefield.estimate import Estimate
from scorefield.plotting.palette import PALE, SEQUENTIAL, Look
from scorefield.studies.exterior.compute import (
    DDOF,
    LABELS,
    Analysis,
    CurlProfile,
    Floats,
    Measure,
    over_steps,
    values,
)
from scorefield.studies.settings import Points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A model has the same look whichever others are shown with it.
_LOOKS = plotting.looks(LABELS)
_SYMBOLS: dict[Measure, str] = {"exterior": "|J − Jᵀ|", "relative": "|J − Jᵀ| / 2|J|"}
_TITLES: dict[Measure, str] = {
    "exterior": "Exterior derivative",
    "relative": "Relative asymmetry of the Jacobian",
}
_FORMS = {"score": "score", "noise": "predicted noise", "denoiser": "denoiser"}
_POINTS: dict[Points, str] = {
    "trajectory": "along each model's own reverse trajectory",
    "noise": "at the starting noise, at every noise level",
    "data": "at held-out images with noise",
}
_ROUNDING = "0 within rounding"
_LEVEL = "noise level σ/α, in units of the data (reverse process from left to right)"


class _Curve(NamedTuple):
    """One model: its values, a row a start and a column a step, which of them are more than
    rounding, their means over starts, and the error bars of these.
    """

    label: str
    look: Look
    value: Floats
    clear: NDArray[np.bool_]
    means: list[Estimate]
    error: Floats
    profile: CurlProfile

    @property
    def std(self) -> Floats:
        """The standard deviation over starts at each step."""
        return self.value.std(axis=0, ddof=DDOF)

    @property
    def shown(self) -> NDArray[np.bool_]:
        """The steps at which all values are more than rounding."""
        return np.all(self.clear, axis=0)


def figures_of(points: Sequence[Points]) -> Iterator[tuple[str, Points, Measure]]:
    """The figures: the ends of their names, the kind of points and the measure. That of the
    exterior derivative at the first kind of points has the plain name.
    """
    for where in points:
        for measure in _TITLES:
            suffix = "" if where == points[0] else f"_{where}"
            yield suffix + ("" if measure == "exterior" else f"_{measure}"), where, measure


def figure(analysis: Analysis, points: Points, measure: Measure, about: str) -> bytes:
    """The figure of one kind of points as a PNG: four panels."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    chosen = analysis.settings
    curves = [_curve(analysis, name, points, measure) for name in analysis.models]
    sheet = plotting.new_figure(14, 10.5, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    title = f"{_TITLES[measure]} of the {_FORMS[chosen.units]}, {_POINTS[points]}\n{about}"
    sheet.suptitle(title, fontsize=13)
    outer: Any = sheet.subfigures(2, 1, height_ratios=(0.05, 1))
    # One for all panels, where no curve can be under it.
    all_clear = all(curve.clear.all() for curve in curves)
    hollow = "" if all_clear else f"{_ROUNDING} (at the bottom of logarithmic axes)"
    entries = {curve.label: curve.look for curve in curves}
    plotting.legend(outer[0], entries, hollow, loc="center", ncols=len(curves) + 1, fontsize=11)
    parts = outer[1].subfigures(2, 2, wspace=0.02, hspace=0.03)
    unit = UNITS[chosen.units] if measure == "exterior" else ""
    label = f"{_SYMBOLS[measure]}  [{unit}]" if unit else _SYMBOLS[measure]
    if chosen.n == 1:
        _by_time(parts[0, 0].subplots(), analysis, curves, label)
        _by_level(parts[0, 1].subplots(), analysis, curves, label, "the same, logarithmic")
        _images(parts[1, 0], analysis)
    else:
        bars = f"mean over {chosen.n} starts; bars: standard error"
        bands = f"{bars}, bands: standard deviation"
        _by_level(parts[0, 0].subplots(), analysis, curves, label, bands)
        _variation(parts[0, 1].subplots(), analysis, curves)
        _maps(parts[1, 0], analysis, curves, label)
    _bars(parts[1, 1].subplots(), curves, measure, label)
    return plotting.png(sheet)


def _curve(analysis: Analysis, name: str, points: Points, measure: Measure) -> _Curve:
    profile = analysis.profiles[name, points]
    value, _, rounding = values(profile, measure)
    means = [over_steps(profile, measure, slice(k, k + 1)) for k in range(value.shape[1])]
    error = np.array([e.standard_error for e in means])
    return _Curve(LABELS[name], _LOOKS[name], value, value > rounding, means, error, profile)


def _by_time(axes: Axes, analysis: Analysis, curves: Sequence[_Curve], label: str) -> None:
    for curve in curves:
        style = {**curve.look.line(), "linewidth": 1.3}
        axes.errorbar(analysis.times, curve.value.mean(axis=0), curve.error, **style)
    steps = np.diff(analysis.times)
    if not np.allclose(steps, steps[:1]):
        axes.set_xscale("log")
    axes.invert_xaxis()
    probed = any(curve.error.any() for curve in curves)
    bars = "; bars: standard errors of the probes" if probed else ""
    time = "time t of the process (reverse process from left to right)"
    plotting.label_axes(axes, time, label, f"against the time{bars}", ylim=(0, None))


def _by_level(
    axes: Axes, analysis: Analysis, curves: Sequence[_Curve], label: str, title: str
) -> None:
    """Means on logarithmic axes; what is rounding is at the bottom, hollow."""
    inside = np.concatenate([c.value.mean(axis=0)[c.shown] for c in curves])
    low, high = (inside.min(), inside.max()) if inside.size else (1e-1, 1.0)
    axes.set_ylim(low / 2.5, 2 * high)
    for curve in curves:
        ends = [(e.value - e.standard_error, e.value + e.standard_error) for e in curve.means]
        plotting.noise_profile(
            axes, analysis.sigmas, curve.means, curve.look, clear=curve.shown, errors=ends
        )
        if len(curve.value) > 1:
            mean = np.where(curve.shown, curve.value.mean(axis=0), np.nan)
            lower = np.maximum(mean - curve.std, low / 2.5)
            band: dict[str, Any] = {"color": curve.look.colour, "alpha": 0.13, "linewidth": 0}
            axes.fill_between(analysis.sigmas, lower, mean + curve.std, **band)
    plotting.label_axes(axes, _LEVEL, label, title, xscale="log")
    axes.invert_xaxis()


def _variation(axes: Axes, analysis: Analysis, curves: Sequence[_Curve]) -> None:
    absent = [curve.label for curve in curves if not curve.shown.any()]
    for curve in curves:
        if curve.shown.any():
            share = np.where(curve.shown, curve.std / curve.value.mean(axis=0), np.nan)
            axes.plot(analysis.sigmas, share, linewidth=1.3, **curve.look.line())
    note = f"; {', '.join(absent)}: {_ROUNDING}" if absent else ""
    title, limits = f"coefficient of variation between starts{note}", (0, None)
    quotient = "standard deviation / mean"
    plotting.label_axes(axes, _LEVEL, quotient, title, xscale="log", ylim=limits)
    axes.invert_xaxis()


def _maps(part: Any, analysis: Analysis, curves: Sequence[_Curve], label: str) -> None:
    """All values, a row a start and a column a step, on one scale of colours."""
    from matplotlib.colors import LogNorm

    panels = part.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
    part.suptitle("all starts", fontsize=11)
    inside = np.concatenate([curve.value[curve.clear] for curve in curves])
    norm = LogNorm(inside.min(), inside.max()) if inside.size else None
    drawn = None
    for axes, curve in zip(panels, curves, strict=True):
        axes.set_facecolor(PALE)
        starts, steps = curve.value.shape
        extent = (-0.5, steps - 0.5, starts + 0.5, 0.5)
        if curve.clear.any():
            shown = np.where(curve.clear, curve.value, np.nan)
            style = {"norm": norm, "cmap": SEQUENTIAL, "interpolation": "nearest"}
            drawn = axes.imshow(shown, aspect="auto", extent=extent, **style)
        else:
            axes.set(xlim=extent[:2], ylim=extent[2:])
            middle = {"ha": "center", "va": "center", "transform": axes.transAxes}
            axes.text(0.5, 0.5, _ROUNDING, **middle)
        name = {"rotation": 0, "ha": "right", "va": "center", "fontsize": 10}
        axes.set_ylabel(curve.label, color=curve.look.colour, **name)
        axes.set_yticks(sorted({1, starts}))
        axes.tick_params(labelsize=8)
    places = range(0, len(analysis.sigmas), max(1, len(analysis.sigmas) // 7))
    panels[-1].set_xticks(list(places), [f"{analysis.sigmas[k]:.3g}" for k in places])
    panels[-1].set_xlabel("noise level σ/α at each step")
    if drawn is not None:
        part.colorbar(drawn, ax=list(panels), label=label, fraction=0.05, pad=0.02)


def _images(part: Any, analysis: Analysis) -> None:
    """The final image of every model."""
    part.suptitle("final images of the trajectories, from one starting noise", fontsize=11)
    columns = min(3, len(analysis.models))
    rows = -(-len(analysis.models) // columns)
    panels = list(part.subplots(rows, columns, squeeze=False).flat)
    for name, axes in zip(analysis.models, panels, strict=False):
        plotting.show_image(axes, analysis.images[name][0])
        axes.set_title(LABELS[name], fontsize=10, color=_LOOKS[name].colour)
    for axes in panels:
        axes.set_axis_off()


def _bars(axes: Axes, curves: Sequence[_Curve], measure: Measure, label: str) -> None:
    """Means over the steps, and where there are several starts the deviations between them."""
    several = len(curves[0].value) > 1
    height = 0.36 if several else 0.6

    def bar(y: float, value: float, text: str, alpha: float) -> None:
        axes.barh(y, value, height, color=curve.look.colour, alpha=alpha)
        beside: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 9}
        axes.annotate(text, (value, y), (5, 0), **beside)

    for place, curve in enumerate(curves):
        average = over_steps(curve.profile, measure)
        low, high = average.interval()
        rounding = average.value <= average.numerical_error
        text = _ROUNDING if rounding else f"{average.value:.4g}"
        if not rounding and high - low > 0.001 * average.value:
            text += f"  ({max(low, 0):.4g} to {high:.4g})"
        bar(place - height / 2 if several else float(place), average.value, text, 1.0)
        if several:
            spread = float(curve.std.mean())
            bar(place + height / 2, spread, "" if rounding else f"{spread:.3g}", 0.4)
    axes.set_yticks(range(len(curves)), [curve.label for curve in curves])
    axes.invert_yaxis()
    spreads = " (95 % interval); pale: standard deviation between starts" if several else ""
    limits = (0, 1.55 * max(float(curve.value.mean()) for curve in curves))
    plotting.label_axes(axes, label, title=f"means over steps{spreads}", grid="x", xlim=limits)
    axes.set_axisbelow(True)

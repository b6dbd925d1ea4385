"""Pictures of the exterior-derivative analysis, of one start and of several."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from scorefield.diagnostics.exterior import UNITS
from scorefield.studies.exterior import LABELS, Analysis, Course, Floats, Where
from scorefield.studies.exterior_files import DDOF, Measure, over_steps, values

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class _Look(NamedTuple):
    colour: str
    marker: str


# Okabe and Ito's colours, which keep apart under the common colour blindnesses; a model has the
# same look whichever others stand beside it.
_LOOKS = {
    "unet": _Look("#0072B2", "o"),
    "resnet": _Look("#D55E00", "s"),
    "els": _Look("#009E73", "^"),
    "ls": _Look("#CC79A7", "D"),
    "is": _Look("#767676", "X"),
}
_NAMES: dict[Measure, str] = {"exterior": "|J − Jᵀ|", "relative": "|J − Jᵀ| / 2|J|"}
_SAID: dict[Measure, str] = {
    "exterior": "Exterior derivative",
    "relative": "Relative asymmetry of the Jacobian",
}
_UNITS = {"score": "score", "noise": "predicted noise", "denoiser": "denoiser"}
_POINTS: dict[Where, str] = {
    "trajectory": "along each model's own reverse trajectory",
    "noise": "at the starting noise, at every noise level",
    "data": "at held-out images with noise",
}
_ROUNDING = "0 within rounding (at the foot of logarithmic axes)"
_PROBED = "; bars: standard errors of the probes"
_LEVEL = "noise level σ/α, in units of the data: the reverse process goes to the right"
_GROUND = "#EDEDED"


class _Curve(NamedTuple):
    """One model: its values, a row a start and a column a step; where they are no rounding; and
    the error bars of their means.
    """

    label: str
    look: _Look
    value: Floats
    told: Any
    error: Floats
    course: Course


def pictures(analysis: Analysis, stem: str, about: str) -> dict[str, bytes]:
    """All pictures of an analysis, by the names of their files.

    The picture of the exterior derivative at the first kind of points has the plain name.

    Arguments:
        analysis: The analysis.
        stem: How their names begin.
        about: What stands in their titles besides.
    """
    files = {}
    for where in analysis.terms.points:
        for measure, said in _SAID.items():
            parts = ["" if where == analysis.terms.points[0] else f"_{where}"]
            parts.append("" if measure == "exterior" else f"_{measure}")
            heading = f"{said} of the {_UNITS[analysis.terms.unit]}, {_POINTS[where]}\n{about}"
            files[f"{stem}{''.join(parts)}.png"] = picture(analysis, where, measure, heading)
    return files


def picture(analysis: Analysis, where: Where, measure: Measure, title: str) -> bytes:
    """The picture of one kind of points as a PNG: four panels.

    Of one start: the number against the time, the same on logarithmic axes, the final image of
    every model, and means over the steps. Of several: means with error bars, coefficients of
    variation, a heat map of every model, and means and standard deviations over the steps.

    Arguments:
        analysis: The analysis.
        where: The kind of points.
        measure: Which number.
        title: What stands above.
    """
    curves = _curves(analysis, where, measure)
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    sheet = Figure(figsize=(14, 10.5), dpi=110, layout=layout)
    sheet.suptitle(title, fontsize=13)
    outer: Any = sheet.subfigures(2, 1, height_ratios=(0.05, 1))
    _legend(outer[0], curves)
    parts = outer[1].subfigures(2, 2, wspace=0.02, hspace=0.03)
    name = _NAMES[measure]
    unit = UNITS[analysis.terms.unit] if measure == "exterior" else ""
    label = f"{name}  [{unit}]" if unit else name
    if analysis.terms.realizations == 1:
        _by_time(parts[0, 0].subplots(), analysis, curves, label)
        _by_level(parts[0, 1].subplots(), analysis, curves, label, "the same, logarithmic")
        _images(parts[1, 0], analysis)
        _bars(parts[1, 1].subplots(), curves, measure, label)
    else:
        above = f"mean over {analysis.terms.realizations} starts; bars: standard error"
        _by_level(
            parts[0, 0].subplots(), analysis, curves, label, f"{above}, bands: standard deviation"
        )
        _variation(parts[0, 1].subplots(), analysis, curves)
        _maps(parts[1, 0], analysis, curves, label)
        _bars(parts[1, 1].subplots(), curves, measure, label)
    content = io.BytesIO()
    sheet.savefig(content, format="png")
    return content.getvalue()


def _curves(analysis: Analysis, where: Where, measure: Measure) -> list[_Curve]:
    curves = []
    for name in analysis.models:
        course = analysis.courses[name, where]
        value, probed, rounding = values(course, measure)
        several = len(value) > 1
        error = value.std(axis=0, ddof=DDOF) / np.sqrt(len(value)) if several else probed[0]
        curves.append(_Curve(LABELS[name], _LOOKS[name], value, value > rounding, error, course))
    return curves


def _legend(part: Any, curves: Sequence[_Curve]) -> None:
    """One for all panels: what is where no curve can lie under it."""
    handles = [
        Line2D([], [], color=c.look.colour, marker=c.look.marker, markersize=6, label=c.label)
        for c in curves
    ]
    if not all(curve.told.all() for curve in curves):
        hollow = {"color": "0.3", "markerfacecolor": "white", "linestyle": "none"}
        handles.append(Line2D([], [], marker="v", label=_ROUNDING, **hollow))  # type: ignore[arg-type]
    part.legend(handles=handles, loc="center", ncols=len(handles), fontsize=11, frameon=False)


def _by_time(axes: Axes, analysis: Analysis, curves: Sequence[_Curve], label: str) -> None:
    for curve in curves:
        axes.errorbar(
            analysis.times,
            curve.value.mean(axis=0),
            curve.error,
            color=curve.look.colour,
            marker=curve.look.marker,
            markersize=5,
            linewidth=1.3,
        )
    steps = np.diff(analysis.times)
    if not np.allclose(steps, steps[:1]):
        axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("time t of the process: the reverse process goes to the right")
    axes.set_ylabel(label)
    probed = any(curve.error.any() for curve in curves)
    axes.set_title(f"against the time{_PROBED if probed else ''}", fontsize=11)
    axes.grid(alpha=0.3)


def _by_level(
    axes: Axes, analysis: Analysis, curves: Sequence[_Curve], label: str, title: str
) -> None:
    """Means on logarithmic axes; what is rounding stands at the foot, hollow."""
    axes.set_yscale("log")
    shown = [c.value.mean(axis=0)[c.told.all(axis=0)] for c in curves]
    inside = np.concatenate(shown)
    low, high = (inside.min(), inside.max()) if inside.size else (1e-1, 1.0)
    low, high = low / 2.5, high * 2
    axes.set_ylim(low, high)
    foot = low * (high / low) ** 0.02
    for curve in curves:
        mean = curve.value.mean(axis=0)
        told = curve.told.all(axis=0)
        _line(axes, analysis.sigmas, mean, told, curve)
        if len(curve.value) > 1:
            std = curve.value.std(axis=0, ddof=DDOF)
            axes.fill_between(
                analysis.sigmas,
                np.where(told, np.maximum(mean - std, low), np.nan),
                np.where(told, mean + std, np.nan),
                color=curve.look.colour,
                alpha=0.13,
                linewidth=0,
            )
        if not told.all():
            axes.plot(
                analysis.sigmas[~told],
                np.full((~told).sum(), foot),
                "v",
                color=curve.look.colour,
                markerfacecolor="white",
                markersize=6,
                clip_on=False,
            )
    _levels(axes)
    axes.set_ylabel(label)
    axes.set_title(title, fontsize=11)


def _line(axes: Axes, x: Floats, mean: Floats, told: Any, curve: _Curve) -> None:
    axes.errorbar(
        x,
        np.where(told, mean, np.nan),
        np.where(told, curve.error, np.nan),
        color=curve.look.colour,
        marker=curve.look.marker,
        markersize=5,
        linewidth=1.3,
        capsize=2,
    )


def _variation(axes: Axes, analysis: Analysis, curves: Sequence[_Curve]) -> None:
    for curve in curves:
        told = curve.told.all(axis=0)
        if not told.any():
            continue
        share = curve.value.std(axis=0, ddof=DDOF) / curve.value.mean(axis=0)
        axes.plot(
            analysis.sigmas,
            np.where(told, share, np.nan),
            color=curve.look.colour,
            marker=curve.look.marker,
            markersize=5,
            linewidth=1.3,
        )
    absent = [curve.label for curve in curves if not curve.told.all(axis=0).any()]
    note = f"; {', '.join(absent)}: 0 within rounding" if absent else ""
    _levels(axes)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("standard deviation / mean")
    axes.set_title(f"coefficient of variation between starts{note}", fontsize=11)


def _maps(part: Any, analysis: Analysis, curves: Sequence[_Curve], label: str) -> None:
    """All values, a row a start and a column a step, on one scale of colours."""
    panels = part.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
    part.suptitle("all starts", fontsize=11)
    inside = np.concatenate([curve.value[curve.told] for curve in curves])
    norm = LogNorm(inside.min(), inside.max()) if inside.size else None
    drawn = None
    for axes, curve in zip(panels, curves, strict=True):
        axes.set_facecolor(_GROUND)
        starts, steps = curve.value.shape
        if curve.told.any():
            drawn = axes.imshow(
                np.where(curve.told, curve.value, np.nan),
                aspect="auto",
                norm=norm,
                cmap="viridis",
                interpolation="nearest",
                extent=(-0.5, steps - 0.5, starts + 0.5, 0.5),
            )
        else:
            axes.set_xlim(-0.5, steps - 0.5)
            axes.set_ylim(starts + 0.5, 0.5)
            axes.text(
                0.5, 0.5, "0 within rounding", ha="center", va="center", transform=axes.transAxes
            )
        axes.set_ylabel(
            curve.label, rotation=0, ha="right", va="center", color=curve.look.colour, fontsize=10
        )
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
    panels = part.subplots(rows, columns, squeeze=False).flat
    for name, axes in zip(analysis.models, panels, strict=False):
        image = analysis.images[name][0].double().cpu().add(1).div(2).clamp(0, 1)
        axes.imshow(
            image.permute(1, 2, 0).numpy().squeeze(),
            cmap="gray",
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )
        axes.set_title(LABELS[name], fontsize=10, color=_LOOKS[name].colour)
    for axes in panels:
        axes.set_axis_off()
    for axes in part.axes:
        axes.set_axis_off()


def _bars(axes: Axes, curves: Sequence[_Curve], measure: Measure, label: str) -> None:
    """Means over the steps, and where there are several starts the deviations between them."""
    several = len(curves[0].value) > 1
    height = 0.36 if several else 0.6
    top = max(float(curve.value.mean()) for curve in curves)
    for place, curve in enumerate(curves):
        average = over_steps(curve.course, measure)
        low, high = average.interval()
        rounding = average.value <= average.numerical_error
        told = "0 within rounding" if rounding else f"{average.value:.4g}"
        if not rounding and high - low > 0.001 * average.value:
            told += f"  ({max(low, 0):.4g} to {high:.4g})"
        y = place - height / 2 if several else float(place)
        axes.barh(y, average.value, height, color=curve.look.colour)
        _beside(axes, average.value, y, told)
        if several:
            spread = float(curve.value.std(axis=0, ddof=DDOF).mean())
            axes.barh(y + height, spread, height, color=curve.look.colour, alpha=0.4)
            _beside(axes, spread, y + height, "" if rounding else f"{spread:.3g}")
    axes.set_xlim(0, 1.55 * top)
    axes.set_yticks(range(len(curves)), [curve.label for curve in curves])
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    if several:
        title = "means over steps (95 % interval); pale: standard deviation between starts"
    else:
        title = "means over steps"
    axes.set_title(title, fontsize=11)


def _beside(axes: Axes, x: float, y: float, text: str) -> None:
    axes.annotate(text, (x, y), (5, 0), textcoords="offset points", va="center", fontsize=9)


def _levels(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xlabel(_LEVEL)
    axes.grid(alpha=0.3)

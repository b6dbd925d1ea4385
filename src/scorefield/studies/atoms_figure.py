"""Samples of atoms as pictures: where they lie, how far from their sites, and on the way there."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from scorefield.metrics import RadialLaw, radial_distances
from scorefield.sde import EDM
from scorefield.studies.atoms import AtomsAnalysis, Found
from scorefield.studies.atoms_look import (
    EXACT,
    Look,
    frame_plane,
    masses_told,
    png,
    spread_ground,
)
from scorefield.studies.atoms_plane import Floats, Plane
from scorefield.targets import PseudoAtoms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 6
_ZOOM = 5.0
_FAR = 6.0
_FINE = 400
_DOTS = 10_000
_LETTERS = 13.0  # an inch of small print


def scatter(plane: Plane, members: Sequence[Found], look: Mapping[str, Look]) -> bytes:
    """Samples over the regions of the exact law, and about each of its wells, where they are
    narrow: a column a model.

    Arguments:
        plane: The plane of the samples.
        members: The models.
        look: How each is drawn, by its name.
    """
    columns = min(len(members), _COLUMNS)
    bands = math.ceil(len(members) / columns)
    wide, high = plane.periods
    reach = _ZOOM * plane.law.width
    # A window longer than the box would show the same points several times.
    wells = plane.wells if 4 * reach < min(wide, high) else []
    rows = 1 + len(wells)
    size = (
        3.1 * columns + 0.6,
        bands * (3.0 * min(max(high / wide, 0.4), 2.5) + 2.9 * (rows - 1)) + 1,
    )
    sheet = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.09, w_pad=0.06))
    grid = sheet.subplots(bands * rows, columns, squeeze=False)
    reliefs = [plane.relief(0.0)]
    for x, y in wells:
        reliefs.append(plane.relief(0.0, ((x - reach, x + reach), (y - reach, y + reach))))
    for place in range(bands * columns):
        band, column = divmod(place, columns)
        panels = grid[band * rows : (band + 1) * rows, column]
        if place >= len(members):
            for axes in panels:
                axes.set_axis_off()
            continue
        found = members[place]
        points = found.samples[:_DOTS].double().reshape(-1, 2).numpy()
        colour = look[found.model.name].colour
        for row, axes in enumerate(panels):
            spread_ground(axes, reliefs[row])
            if row == 0:
                frame_plane(axes, plane)
                axes.tick_params(labelsize=8)
                axes.xaxis.label.set_size(8)
                axes.yaxis.label.set_size(8)
                axes.plot(*points.T, ".", color=colour, markersize=2, alpha=0.5)
                tv = found.distances["total_variation"]
                axes.set_title(f"{found.model.label}\ntotal variation {tv}", fontsize=9)
            else:
                _zoom(axes, plane, wells[row - 1], points, colour)
            if column > 0:
                axes.set_ylabel("")
    # Below the pictures, for which there are too many to say it in each.
    shown = f"; the first {_DOTS} samples" if len(members[0].samples) > _DOTS else ""
    told = textwrap.fill(f"shaded: {masses_told()}{shown}", int(_LETTERS * size[0]))
    sheet.supxlabel(told, fontsize=9, color="0.35")
    return png(sheet)


def _zoom(axes: Axes, plane: Plane, well: tuple[float, float], points: Floats, colour: str) -> None:
    """What lies about a well, by shortest displacements."""
    period = np.array(plane.periods)
    near = points - np.array(well)
    near -= period * np.round(near / period)
    reach = _ZOOM * plane.law.width
    inside = (np.abs(near) <= reach).all(axis=1)
    axes.plot(*(near[inside] + well).T, ".", color=colour, markersize=2, alpha=0.35)
    axes.set_xlim(well[0] - reach, well[0] + reach)
    axes.set_ylim(well[1] - reach, well[1] + reach)
    axes.set_aspect("equal")
    axes.locator_params(nbins=5)
    axes.tick_params(labelsize=8)
    axes.set_xlabel(plane.labels[0], fontsize=8)
    axes.set_ylabel(plane.labels[1], fontsize=8)
    axes.set_title(f"{100 * inside.mean():.1f} % of the samples are here", fontsize=8)


def radial(
    analysis: AtomsAnalysis, groups: Mapping[str, Sequence[Found]], look: Mapping[str, Look]
) -> bytes:
    """The distance of samples from the nearest configuration, against its exact law.

    Arguments:
        analysis: The analysis, of a law whose radial law is known.
        groups: What was found, all of a label in one curve.
        look: How each is drawn, by its label.
    """
    law = analysis.radial
    assert law is not None
    sheet = Figure(figsize=(12.5, 4.8), layout="constrained")
    near, far = sheet.subplots(1, 2)
    place = torch.linspace(0, _FAR * law.width, _FINE, dtype=torch.float64)
    near.fill_between(place.numpy(), law.density(place).numpy(), color="0.85", linewidth=0)
    near.plot(place.numpy(), law.density(place).numpy(), color=EXACT.colour, linewidth=1.2)
    edges = np.linspace(0, _FAR * law.width, 61)
    ends = [law.width / 20, _FAR * law.width]
    least = 1.0
    for label, members in groups.items():
        r = torch.cat([radial_distances(f.samples, analysis.law) for f in members]).cpu().numpy()
        counts, _ = np.histogram(r, edges)
        beyond = 100 * float((r > edges[-1]).mean())
        near.stairs(
            counts / (len(r) * np.diff(edges)),
            edges,
            color=look[label].colour,
            linewidth=1.6,
            label=f"{label}  ({beyond:.2g} % farther)",
        )
        r.sort()
        above = 1 - np.arange(len(r)) / len(r)
        far.step(r, above, where="post", color=look[label].colour, linewidth=1.6)
        ends = [min(ends[0], float(r[len(r) // 200])), max(ends[1], float(r[-1]))]
        least = min(least, float(above[-1]))
    _tail(far, law, (ends[0], ends[1]), least)
    near.set_xlim(0, _FAR * law.width)
    near.set_ylim(bottom=0)
    near.set_xlabel("distance from the nearest configuration  [units of length]")
    near.set_ylabel("density  [1/length]")
    near.set_title(
        rf"exact: $\sigma_d\,\chi_{{{law.dim}}}$, $\sigma_d$ = {law.width:g}", fontsize=11
    )
    handle = Patch(color="0.85", label="exact law")
    near.legend(handles=[handle, *near.get_legend_handles_labels()[0]], fontsize=9, frameon=False)
    return png(sheet)


def _tail(axes: Axes, law: RadialLaw, ends: tuple[float, float], least: float) -> None:
    place = torch.from_numpy(np.geomspace(ends[0], ends[1], _FINE))
    # Far out the distribution function is 1 but for rounding, and the curve leaves the picture.
    exact = np.clip(1 - law.cdf(place).numpy(), least / 100, None)
    axes.plot(place.numpy(), exact, color=EXACT.colour, linewidth=1.2, zorder=3, linestyle="--")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(*ends)
    axes.set_ylim(least / 2, 1.3)
    axes.set_xlabel("distance from the nearest configuration  [units of length]")
    axes.set_ylabel("share of samples beyond")
    axes.set_title("the tail; dashed: the exact law", fontsize=11)
    axes.grid(alpha=0.3, which="both")


def marginals(
    analysis: AtomsAnalysis, groups: Mapping[str, Sequence[Found]], look: Mapping[str, Look]
) -> bytes:
    """One coordinate of an atom at several noise levels on the way to samples, against its exact
    law: a column a level, and for each dimension a row of the whole box and one of what lies about
    the first site, where that is narrow.

    Arguments:
        analysis: The analysis.
        groups: What was found, all of a label in one curve.
        look: How each is drawn, by its label.
    """
    law = analysis.law
    dims = law.domain.shape[1]
    passed = analysis.found[0].states
    columns = len(passed) + 1
    sheet = Figure(figsize=(3.1 * columns, 5.6 * dims + 1.0), layout="constrained")
    grid = sheet.subplots(2 * dims, columns, squeeze=False)
    for column in range(columns):
        if column < len(passed):
            state = passed[column]
            stage = _Stage(law, state.t, f"t = {state.t:.2f},  σ = {state.sigma:.3g}")
        else:
            stage = _Stage(law.under(EDM()), 0.0, "samples (σ = 0)")
        for axis in range(dims):
            points = {
                label: torch.cat([_points(f, column)[..., axis] for f in members])
                for label, members in groups.items()
            }
            whole, near = grid[2 * axis : 2 * axis + 2, column]
            period, site = _period(law, axis), float(law.positions[0, axis])
            _marginal(whole, stage, axis, (0.0, period), points, look)
            whole.set_title(stage.told, fontsize=10)
            reach = _ZOOM * float(stage.law.effective_width(stage.t))
            if 4 * reach < period:
                _marginal(near, stage, axis, (site - reach, site + reach), points, look)
                near.set_title("about the first site", fontsize=9)
            else:
                near.set_axis_off()
    for axes in grid[::2, 0]:
        axes.set_ylabel("density  [1/length]", fontsize=9)
    handles: list[Any] = [Patch(color="0.85", label="exact law")]
    handles += [Line2D([], [], color=look[k].colour, linewidth=1.6, label=k) for k in groups]
    sheet.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    return png(sheet)


class _Stage(NamedTuple):
    """Where the points are on their way: the exact law, a time of its process, and words."""

    law: PseudoAtoms
    t: float
    told: str


def _points(found: Found, stage: int) -> Tensor:
    return found.states[stage].x if stage < len(found.states) else found.samples


def _period(law: PseudoAtoms, axis: int) -> float:
    return float(law.domain.periods(law.positions).expand(law.domain.shape[1])[axis])


def _marginal(
    axes: Axes,
    stage: _Stage,
    axis: int,
    window: tuple[float, float],
    points: Mapping[str, Tensor],
    look: Mapping[str, Look],
) -> None:
    """The exact density in a window of a coordinate, and histograms of all atoms' values."""
    start, end = window
    period = _period(stage.law, axis)
    width = float(stage.law.effective_width(stage.t))
    bins = int(np.clip(4 * (end - start) / width, 30, 400))
    edges, u = np.linspace(start, end, bins + 1), np.linspace(start, end, 4 * bins + 1)
    inside = torch.from_numpy(np.mod(u, period))
    exact = stage.law.marginal_density(inside, stage.t, axis).numpy()
    axes.fill_between(u, exact, color="0.85", linewidth=0)
    axes.plot(u, exact, color=EXACT.colour, linewidth=1.1)
    for label, values in points.items():
        x = start + np.mod(values.double().numpy().ravel() - start, period)
        counts, _ = np.histogram(x, edges)
        density = counts / (x.size * np.diff(edges))
        axes.stairs(density, edges, color=look[label].colour, linewidth=1.3)
    axes.set_xlim(start, end)
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="x", nbins=6)
    axes.tick_params(labelsize=8)
    name = "position" if stage.law.domain.shape[1] == 1 else f"coordinate {axis + 1}"
    axes.set_xlabel(f"{name} of an atom  [period {period:g}]", fontsize=9)

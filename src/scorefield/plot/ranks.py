"""Histograms of the ranks of data among draws of their posterior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from scorefield.diagnostics.ranks import Ranks
from scorefield.errors import UserError
from scorefield.plotting.axes import label_axes
from scorefield.plotting.palette import MODELS, PALE
from scorefield.plotting.png import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def ranks(found: Ranks | Mapping[str, Ranks]) -> Figure:
    """Draw the histograms of ranks by quantity, in columns, over the band in which 95 % of the bars
    of uniform ranks lie.

    Arguments:
        found: What :func:`~.calibration_ranks` returned, or several by label, in rows.

    Raises:
        ValueError: If there is nothing to draw.
    """
    rows = {"": found} if isinstance(found, Ranks) else dict(found)
    names = list(dict.fromkeys(name for each in rows.values() for name in each.ranks))
    if not names:
        raise UserError("there are no ranks to draw")
    figure = new_figure(2.3 * len(names), 1.7 * len(rows) + 0.3)
    grid = figure.subplots(len(rows), len(names), squeeze=False)
    for line, (label, each) in zip(grid, rows.items(), strict=True):
        for axes, name in zip(line, names, strict=True):
            title = f"{label}: {name}" if label else name
            label_axes(axes, title=title, grid="y")
            if name not in each.ranks:
                continue
            counts = each.histogram(name).cpu().numpy() * (each.bins / each.n)
            low, high = (count * each.bins / each.n for count in each.band())
            axes.axhspan(low, high, color=PALE)
            places = [(k + 0.5) / each.bins for k in range(each.bins)]
            axes.bar(places, counts, 1 / each.bins, color=MODELS[0].colour, alpha=0.8)
            axes.set(xlim=(0, 1), ylim=(0, max(2.0, 1.05 * float(counts.max()))))
    for axes in grid[-1]:
        axes.set_xlabel("rank / draws")
    return figure

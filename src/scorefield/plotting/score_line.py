r"""The score of atoms along a straight line through their configurations, field against truth.

The line goes through two of the configurations that the truth is centred on, :math:`m` and
:math:`\pi m` with each atom at the site of the next, and half their distance beyond,

.. math:: x(u) = m + u\,(\pi m - m), \qquad -\tfrac12 \le u \le \tfrac32,

of two atoms at a quarter and three quarters of a line that is from (0, 1) to (1, 0). Of one atom
it goes once around the torus. What is drawn is the component :math:`\sigma \langle s, e \rangle`
along the line, in units of the noise, at noise levels of even distances in their logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.fields.base import ScoreField
from scorefield.plotting.palette import EXACT, MODELS, PALE
from scorefield.plotting.png import new_figure
from scorefield.targets.atoms import PseudoAtoms
from scorefield.targets.base import Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEVELS = 8
_COLUMNS = 4
_LONGEST_TITLE = 4


@dataclass(frozen=True)
class ScoreLine:
    """The score along a line at several noise levels, in units of the noise, float64.

    Points, wells (the configurations) and widths (the standard deviation of an atom about its site
    at each level) are fractions of the line between its ends; noise levels ascend. ``field`` and
    ``truth`` are the components of the field's and the exact score along the line.
    """

    ends: Float[Tensor, "2 atoms dims"]
    place: Float[Tensor, " points"]
    wells: tuple[float, ...]
    widths: tuple[float, ...]
    sigmas: tuple[float, ...]
    field: Float[Tensor, "levels points"]
    truth: Float[Tensor, "levels points"]


def score_line(field: ScoreField, truth: PseudoAtoms, points: int = 201) -> ScoreLine:
    """The score of a field, and the exact one under its process, along the line through the
    configurations.
    """
    ends, wells = _line(truth)
    place = torch.linspace(0, 1, points, dtype=torch.float64)
    way = ends[1] - ends[0]
    x = truth.domain.wrap(ends[0] + place.reshape(-1, 1, 1) * way)
    unit = way / way.norm()
    sde = truth.sde
    least, most = sde.level_range
    sigmas = torch.logspace(math.log10(least), math.log10(most), _LEVELS).double()
    # The ends exactly: rounded, they may be outside the process.
    sigmas[0], sigmas[-1] = least, most
    times = sde.time(sigmas)
    with torch.no_grad():
        model, exact = (
            torch.stack([-(f.predict_noise(x, t) * unit).sum(dim=(1, 2)) for t in times])
            for f in (field, truth)
        )
    widths = tuple(float(truth.effective_width(t) / way.norm()) for t in times)
    return ScoreLine(ends, place, wells, widths, tuple(sigmas.tolist()), model, exact)


def draw_score_line(line: ScoreLine) -> Figure:
    """A panel for each noise level, with the truth and the field; two standard deviations about
    each configuration are shaded.
    """
    rows = math.ceil(len(line.sigmas) / _COLUMNS)
    # A layout that is computed would take as long again as the drawing.
    sheet = new_figure(3 * _COLUMNS, 2.4 * rows + 0.6, layout=None)
    margins = {"left": 0.07, "right": 0.99, "bottom": 0.11, "top": 0.88, "hspace": 0.2}
    axes = sheet.subplots(
        rows, _COLUMNS, sharex=True, squeeze=False, gridspec_kw={**margins, "wspace": 0.28}
    ).ravel()
    levels = zip(axes, line.sigmas, line.widths, line.field, line.truth, strict=True)
    for panel, sigma, width, field, truth in levels:
        for well in line.wells:
            ends = max(0.0, well - 2 * width), min(1.0, well + 2 * width)
            panel.axvspan(*ends, color=PALE, linewidth=0)
        panel.axhline(0, color=PALE, linewidth=1)
        place = line.place.numpy()
        panel.plot(place, truth.numpy(), color=EXACT.colour, linewidth=2.5, alpha=0.6)
        panel.plot(place, field.numpy(), color=MODELS[0].colour, linewidth=1.2)
        panel.set_title(f"σ = {sigma:.3g}", fontsize=9)
    sheet.legend(axes[0].lines[-2:], ("exact", "model"), loc="upper right", ncols=2)
    sheet.supylabel("σ × score, along the line")
    shaded = "shaded: within two standard deviations of a configuration"
    sheet.supxlabel(f"{_format_ends(line.ends)}; {shaded}")
    return sheet


def training_figures(truth: Target | None) -> Callable[[ScoreField], dict[str, Figure]] | None:
    """What draws the figures of a field at the checkpoints of its training, by their names;
    ``None`` for data of which nothing is drawn.
    """
    return partial(_figures, truth) if isinstance(truth, PseudoAtoms) else None


def _figures(truth: PseudoAtoms, field: ScoreField) -> dict[str, Figure]:
    line = draw_score_line(score_line(field, truth))
    return {"score along the line through the configurations": line}


def _line(truth: PseudoAtoms) -> tuple[Tensor, tuple[float, ...]]:
    """The two ends of the line, and where on it the configurations are."""
    sites = truth.positions.cpu()
    step = sites.roll(-1, dims=0) - sites
    if bool(step.any()):
        return torch.stack((sites - 0.5 * step, sites + 1.5 * step)), (0.25, 0.75)
    # There is one configuration only: an atom goes once around the first dimension.
    step[0, 0] = truth.domain.periods(sites).expand(sites.shape[1])[0]
    return torch.stack((sites - 0.5 * step, sites + 0.5 * step)), (0.5,)


def _format_ends(ends: Tensor) -> str:
    if ends[0].numel() > _LONGEST_TITLE:
        return "from one end of the line to the other"
    start, end = (", ".join(f"{v:.3g}" for v in end.flatten().tolist()) for end in ends)
    return f"from ({start}) to ({end})"

"""The dose–response figure, and its table in words."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from scorefield.estimate import Estimate
from scorefield.files import write_file
from scorefield.runs.cells import csv_text
from scorefield.studies.dose import BANDS, DoseResponse, Response

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class _Look(NamedTuple):
    """How a kind is drawn, and by which factor its points stand to the side."""

    label: str
    colour: str
    marker: str
    aside: float


# Okabe and Ito's colours, which keep apart under the common colour blindnesses.
_LOOKS = {
    "rotated score": _Look("rotated score: curl that moves no mass", "#009E73", "D", 0.94),
    "swirl": _Look("swirl: curl that moves mass", "#0072B2", "o", 0.98),
    "rotation": _Look("rotation about the origin: curl", "#CC79A7", "s", 1.02),
    "gradient": _Look("gradient: no curl", "#D55E00", "^", 1.06),
}

NUMBERS, FIGURE = "dose_response.csv", "dose_response.png"
TABLE = ("error", "noise levels", "relative asymmetry", "KL [nats]", "ratio to floor", "shift")


class _Quantity(NamedTuple):
    """A response: its name, its number, the ends of its axis, and where no error lies on it."""

    label: str
    of: Callable[[Response], Estimate]
    low: float
    high: float
    null: tuple[float, float] | None


def write(result: DoseResponse, out: Path) -> list[Path]:
    """Writes the numbers and the figure into a folder, in place of those that were there.

    Raises:
        OSError: If that fails.
    """
    write_file(out / NUMBERS, csv_text(result.rows()))
    write_file(out / FIGURE, figure(result))
    return [out / NUMBERS, out / FIGURE]


def table(result: DoseResponse, dose: float) -> list[list[str]]:
    """The responses at one dose in words, under the headings :data:`TABLE`."""
    return [
        [
            response.case.kind,
            "{:.3g} to {:.3g}".format(*response.case.ends),
            _words(response.asymmetry),
            _words(response.kl),
            _words(response.ratio),
            _words(response.shift),
        ]
        for response in result.responses
        if response.case.dose == dose and response.case.band_name in BANDS
    ]


def figure(result: DoseResponse) -> bytes:
    """The responses as a PNG: against the dose in each band, and against the noise level."""
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(12.5, 11.5), layout="constrained")
    sheet.suptitle(
        "Errors of equal size planted in the exact score of eight modes on a ring: "
        "what the model loses",
        fontsize=13,
    )
    parts: Any = sheet.subfigures(2, 1, height_ratios=(2, 1.05))
    upper, lower = parts
    quantities = _quantities(result)
    names = list(
        dict.fromkeys(r.case.band_name for r in result.responses if r.case.band_name in BANDS)
    )
    panels = upper.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    for row, quantity in zip(panels, quantities, strict=True):
        for axes, name in zip(row, names, strict=True):
            found = [r for r in result.responses if r.case.band_name == name]
            _draw(axes, quantity, found, lambda r: r.case.dose)
            doses = sorted({r.case.dose for r in found})
            axes.set_xlim(doses[0] / 1.6, doses[-1] * 1.6)
            axes.set_xticks(doses, [f"{dose:g}" for dose in doses])
            axes.set_xticks([], minor=True)
        row[0].set_ylabel(quantity.label)
    for axes, name in zip(panels[0], names, strict=True):
        first = next(r for r in result.responses if r.case.band_name == name)
        ends = "{:.3g} to {:.3g}".format(*first.case.ends)
        axes.set_title(f"{name} noise levels: σ from {ends}", fontsize=10)
        _guide(axes, doses, quantities[0].high)
    upper.supxlabel("dose δ: root mean square error of the predicted noise", fontsize=10)
    slices = [r for r in result.responses if r.case.band_name == "slice"]
    for axes, quantity in zip(lower.subplots(1, 2), quantities, strict=True):
        _draw(axes, quantity, slices, lambda r: math.sqrt(math.prod(r.case.ends)))
        for edge in sorted({end for r in slices for end in r.case.ends}):
            axes.axvline(edge, color="0.9", linewidth=0.8, zorder=0)
        axes.set_ylabel(quantity.label)
    lower.suptitle(
        f"Where it matters: dose {slices[0].case.dose:g} in one narrow band (between two grey "
        "lines) at a time",
        fontsize=10,
    )
    lower.supxlabel("noise level σ, in units of the data", fontsize=10)
    labels = {
        label: handle
        for axes in panels[:, 0]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    upper.legend(
        labels.values(),
        labels.keys(),
        loc="outside upper center",
        ncols=4,
        fontsize=9,
        frameon=False,
    )
    content = io.BytesIO()
    sheet.savefig(content, format="png", dpi=120)
    return content.getvalue()


def _quantities(result: DoseResponse) -> tuple[_Quantity, _Quantity]:
    """The two responses, with axes that hold all of their intervals."""
    kls = [r.kl.interval() for r in result.responses]
    ratios = [r.ratio.interval() for r in result.responses]
    sure = [low for low, _ in kls if low > 0] or [high for _, high in kls]
    spread = 1.96 * result.floor.sd / (math.sqrt(result.sets) * result.floor.mean.value)
    return (
        _Quantity(
            "KL(true law ‖ model) [nats]",
            lambda r: r.kl,
            10 ** math.floor(math.log10(min(sure)) - 1),
            2 * max(high for _, high in kls),
            None,
        ),
        _Quantity(
            "sliced Wasserstein / noise floor",
            lambda r: r.ratio,
            0.8 * max(0.2, min(1 - spread, *(low for low, _ in ratios))),
            1.3 * max(high for _, high in ratios),
            (1 - spread, 1 + spread),
        ),
    )


def _draw(
    axes: Axes,
    quantity: _Quantity,
    responses: Sequence[Response],
    place: Callable[[Response], float],
) -> None:
    """A line a kind with 95 % intervals; what covers zero stands at the foot."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(quantity.low, quantity.high)
    if quantity.null is not None:
        axes.axhspan(*quantity.null, color="0.88", label="real samples, 95 %")
    foot = quantity.low * (quantity.high / quantity.low) ** 0.035
    axes.plot([], [], "v", color="0.3", markerfacecolor="white", label="not told from zero")
    for kind, look in _LOOKS.items():
        found = [r for r in responses if r.case.kind == kind]
        xs = [look.aside * place(r) for r in found]
        bounds = [quantity.of(r).interval() for r in found]
        seen = [low > 0 for low, _ in bounds]
        ys = [quantity.of(r).value if s else foot for r, s in zip(found, seen, strict=True)]
        axes.plot(xs, ys, color=look.colour, linewidth=1, alpha=0.5)
        axes.plot([], [], color=look.colour, marker=look.marker, linewidth=1, label=look.label)
        for x, y, (low, high), sure in zip(xs, ys, bounds, seen, strict=True):
            marker, fill = (look.marker, look.colour) if sure else ("v", "white")
            axes.plot([x, x], [max(low, quantity.low), high], color=look.colour, linewidth=1.2)
            axes.plot(
                x, y, marker, color=look.colour, markerfacecolor=fill, markersize=5.5, zorder=3
            )


def _guide(axes: Axes, doses: Sequence[float], top: float) -> None:
    """Lines of slope two."""
    rise = (doses[-1] / doses[0]) ** 2
    for k in range(8):
        end = 10 * top / 10 ** (1.5 * k)
        label = "proportional to δ²" if k == 0 else None
        axes.plot(
            [doses[0], doses[-1]],
            [end / rise, end],
            ":",
            color="0.75",
            linewidth=0.9,
            zorder=0,
            label=label,
        )


def _words(estimate: Estimate) -> str:
    """A number with its error, where that is more than its rounding, or a bound."""
    low, high = estimate.interval()
    if low <= 0 < high:
        unit = 10.0 ** (math.floor(math.log10(high)) - 1)
        return f"0 (below {math.ceil(high / unit) * unit:.1e})"
    if high - low < 0.01 * estimate.value:
        return f"{estimate.value:.3g}"
    return str(estimate).removesuffix(f" {estimate.unit}")

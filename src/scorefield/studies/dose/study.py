"""Dose and response as a study: a table and a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from scorefield import plotting
from scorefield.errors import RunError
from scorefield.estimate import Estimate
from scorefield.evaluation.records import Level
from scorefield.fields.base import ScoreField
from scorefield.fields.planted import Band
from scorefield.plotting.palette import GUIDE, PALE
from scorefield.runs.subject import open_subject
from scorefield.studies.dose.cases import BANDS, KINDS, FieldCase
from scorefield.studies.dose.compute import (
    DoseResponse,
    Response,
    Trained,
    dose_response,
    ring_of_modes,
)
from scorefield.studies.dose.ranks import FEWEST, correlations, markdown
from scorefield.studies.dose.scatter import harm_figure
from scorefield.studies.frame import Cell, Study, Table, Work, csv_bytes, fingerprint
from scorefield.studies.settings import Dose

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADINGS = ("error", "noise levels", "relative asymmetry", "KL [nats]", "ratio to floor", "shift")

_LABELS = {
    "rotated score": "rotated score: curl that moves no mass",
    "swirl": "swirl: curl that moves mass",
    "rotation": "rotation about the origin: curl",
    "gradient": "gradient: no curl",
}
_LOOKS = plotting.looks(KINDS)
_ASIDE = 1.04
"""The ratio of the places of neighbouring kinds, which would lie upon each other."""


class DoseStudy(Study[Dose, DoseResponse]):
    """Errors of known kind and size in the exact score of a ring of modes, and trained errors."""

    kinds = (FieldCase, Band, Response, Estimate, Level)

    def __init__(self, settings: Dose, trained: Sequence[Trained] = ()) -> None:
        super().__init__(settings)
        self.truth, self.trained = ring_of_modes(), tuple(trained)
        self.about = {"fingerprints": {m.name: fingerprint(m.field) for m in trained}}

    @classmethod
    def open(cls, settings: Dose) -> DoseStudy:
        return cls(settings, [_opened(path, settings.trust_code) for path in settings.runs])

    def evaluated(self) -> Iterable[ScoreField]:
        return (self.truth, *(part for m in self.trained for part in (m.field, m.truth)))

    def compute(self, work: Work) -> DoseResponse:
        return dose_response(self.settings, work, self.truth, self.trained)

    def files(self, result: DoseResponse, work: Work) -> Mapping[str, Callable[[], bytes]]:
        found = correlations(result, self.settings.slice_dose, self.settings.seed)
        files: dict[str, Callable[[], bytes]] = {
            "dose_response.csv": lambda: csv_bytes(result.rows()),
            "dose_response.png": lambda: figure(result),
        }
        if found:
            files |= {
                "rank_correlations.csv": lambda: csv_bytes(c.row() for c in found),
                "rank_correlations.md": lambda: markdown(found).encode(),
                "harm.png": lambda: harm_figure(result, found),
            }
        return files

    def table(self, result: DoseResponse) -> Table:
        return table(result, self.settings.slice_dose)


STUDY = DoseStudy


def _opened(path: Path, trust_code: bool) -> Trained:
    """A run on two coordinates whose exact score is known, in the plane or on a torus."""
    subject = open_subject(path, trust_code=trust_code)
    truth = None if subject.source is None else subject.source.truth
    if subject.source is None or truth is None or truth.domain.dim != 2:
        raise RunError(
            f"{path} is no run on two coordinates of known distribution, such as toy/m0 or "
            "atoms/equivariant"
        )
    # By its folder: there may be several runs of a preset, a seed and a step.
    name = f"{path}, step {subject.about.get('step')}"
    field = subject.field.double()
    return Trained(name, subject.source.name, field, truth.under(field.sde))


class _Quantity(NamedTuple):
    """A response: its name, its number, the ends of its axis, and the interval without error."""

    label: str
    of: Callable[[Response], Estimate]
    low: float
    high: float
    null: tuple[float, float] | None


def table(result: DoseResponse, dose: float) -> Table:
    """The responses at one dose in words, and those of trained fields, under :data:`HEADINGS`."""
    rows: list[list[Cell]] = []
    planted = [r for r in result.responses if r.case.dose == dose and r.case.band_name in BANDS]
    for r in (*planted, *result.trained):
        numbers = (r.asymmetry, r.kl, r.ratio, r.shift)
        ends = "{:.3g} to {:.3g}".format(*r.case.ends)
        rows.append([r.case.kind, ends, *numbers])
    few = any(len(some) < FEWEST for some in result.trained_by_data.values())
    notes = (
        [f"trained fields are ranked where there are {FEWEST} or more of one kind of data"]
        if few
        else []
    )
    return Table(HEADINGS, rows, notes)


def figure(result: DoseResponse) -> bytes:
    """The responses against the dose in each band, and against the noise level."""
    sheet = plotting.new_figure(12.5, 11.5)
    sheet.suptitle(
        "Errors of equal size planted in the exact score of eight modes on a ring: "
        "loss of sample quality and likelihood",
        fontsize=13,
    )
    parts: Any = sheet.subfigures(2, 1, height_ratios=(2, 1.05))
    upper, lower = parts
    quantities = _quantities(result)
    names = [name for name in BANDS if any(r.case.band_name == name for r in result.responses)]
    panels = upper.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    for column, name in zip(panels.T, names, strict=True):
        found = [r for r in result.responses if r.case.band_name == name]
        doses = sorted({r.case.dose for r in found})
        for axes, quantity in zip(column, quantities, strict=True):
            _draw(axes, quantity, found, lambda r: r.case.dose)
            axes.set_xlim(doses[0] / 1.6, doses[-1] * 1.6)
            axes.set_xticks(doses, [f"{dose:g}" for dose in doses])
            axes.set_xticks([], minor=True)
        ends = "{:.3g} to {:.3g}".format(*found[0].case.ends)
        column[0].set_title(f"{name} noise levels: σ from {ends}", fontsize=10)
        _draw_slopes(column[0], doses, quantities[0].high)
    upper.supxlabel("dose δ: root mean square error of the predicted noise", fontsize=10)
    slices = [r for r in result.responses if r.case.band_name == "slice"]
    for axes, first, quantity in zip(lower.subplots(1, 2), panels[:, 0], quantities, strict=True):
        _draw(axes, quantity, slices, lambda r: math.sqrt(math.prod(r.case.ends)))
        for edge in sorted({end for r in slices for end in r.case.ends}):
            axes.axvline(edge, color=PALE, linewidth=0.8, zorder=0)
        for labelled in (first, axes):
            labelled.set_ylabel(quantity.label)
    lower.suptitle(
        f"Effect by noise level: dose {slices[0].case.dose:g} in one narrow band (between two grey "
        "lines) at a time",
        fontsize=10,
    )
    lower.supxlabel("noise level σ, in units of the data", fontsize=10)
    labels = {
        label: handle
        for axes in panels[:, 0]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    place = {"loc": "outside upper center", "ncols": 4, "fontsize": 9, "frameon": False}
    upper.legend(labels.values(), labels.keys(), **place)
    return plotting.png(sheet)


def _quantities(result: DoseResponse) -> tuple[_Quantity, _Quantity]:
    """The two responses, with axes that hold all of their intervals."""
    kls = [r.kl.interval() for r in result.responses]
    ratios = [r.ratio.interval() for r in result.responses]
    sure = [low for low, _ in kls if low > 0] or [high for _, high in kls]
    spread = 1.96 * result.floor.sd / (math.sqrt(result.sets) * result.floor.mean.value)
    return (
        _Quantity(
            "KL(data ‖ model) [nats]",
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
    """A line a kind with 95 % intervals; what covers zero is at the bottom."""
    axes.set_ylim(quantity.low, quantity.high)
    if quantity.null is not None:
        axes.axhspan(*quantity.null, color=PALE, label="real samples, 95 %")
    axes.plot([], [], "v", color=GUIDE, markerfacecolor="white", label="compatible with zero")
    for k, (kind, look) in enumerate(_LOOKS.items()):
        found = [r for r in responses if r.case.kind == kind]
        aside = _ASIDE ** (k - 1.5)
        plotting.noise_profile(
            axes,
            [aside * place(r) for r in found],
            [quantity.of(r) for r in found],
            look,
            _LABELS[kind],
            capsize=0,
        )


def _draw_slopes(axes: Axes, doses: Sequence[float], top: float) -> None:
    """Lines of slope two."""
    rise = (doses[-1] / doses[0]) ** 2
    for k in range(8):
        end = 10 * top / 10 ** (1.5 * k)
        label = "proportional to δ²" if k == 0 else None
        ends = [doses[0], doses[-1]]
        axes.plot(ends, [end / rise, end], ":", color=GUIDE, linewidth=0.9, zorder=0, label=label)

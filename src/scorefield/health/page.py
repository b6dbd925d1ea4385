"""The page of a check: one offline file with the verdicts, the pictures and the numbers."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield.health.plan import Done, Number
from scorefield.health.typical import Like
from scorefield.health.verdicts import Verdict, headline
from scorefield.plotting import label_axes, new_figure, png, samples_figure
from scorefield.report import words
from scorefield.report.templating import templates

_CURVES = (
    ("Denoising loss", "per coordinate, in units of the noise", ("loss", "trivial")),
    ("Correlation and slope of the noise on its prediction", "", ("correlation", "slope")),
    ("Relative asymmetry", "share of the Jacobian", ("relative_asymmetry",)),
    ("Gap between two paths", "nats", ("path_gap",)),
    ("Circulation around loops of radius σ/2", "curl of the denoiser", ("loop_circulation",)),
    ("Residual of the Fokker–Planck equation", "units of the noise", ("fokker_planck",)),
    ("Consistency error", "squared units of the noise", ("consistency",)),
    ("Error of the score", "units of the noise", ("score_error",)),
    ("Distance to the ideal score", "units of the noise", ("distance_to_ideal",)),
)
_COLOURS, _TYPICAL = ("#0b61a4", "#c05a00"), "#7d8790"
_STYLES = ("--", ":", "-.")


def page(
    claims: Sequence[tuple[str, str]],
    verdicts: Sequence[Verdict],
    done: Mapping[str, Done],
    about: Mapping[str, Any],
    real: Tensor,
    like: Like | None = None,
) -> str:
    """The page as text; ``real`` are points of the data, shown next to samples, and ``like`` what
    good models show on data of this kind.
    """
    environment = templates("scorefield.health")
    numbers = [n for one in done.values() for n in one.found.numbers]
    names = {n.name for n in numbers if n.sigma is not None}
    curves = [
        (title, _picture(_curve(title, unit, numbers, shown, like)))
        for title, unit, shown in _CURVES
        if names & set(shown)
    ]
    return environment.get_template("health.html.j2").render(
        headline=headline(verdicts),
        claims=claims,
        verdicts=verdicts,
        curves=curves,
        samples=_samples(done, real),
        numbers=[_row(n, like) for n in numbers if n.sigma is None],
        levels=[_row(n, like) for n in numbers if n.sigma is not None],
        like=like,
        readings=done["fit"].found.kept["readings"] if "fit" in done else [],
        tried=done["fit"].found.kept["tried"] if "fit" in done else 0,
        about=about,
        times=[(about["titles"][name], one) for name, one in done.items()],
    )


class _Row(NamedTuple):
    """A number as the tables show it."""

    number: Number
    shown: words.Number
    interval: str
    typical: str


def _row(n: Number, like: Like | None) -> _Row:
    low, high = n.interval()
    beside = {} if like is None else like.beside(n)
    typical = ", ".join(f"{model}: {value:.3g}" for model, value in beside.items())
    interval = f"{low:.3g} to {high:.3g}"
    return _Row(n, words.number(n.estimate), _signed(interval), _signed(typical))


def _signed(text: str) -> str:
    return text.replace("-", "−")


def _curve(
    title: str, unit: str, numbers: Sequence[Number], shown: Sequence[str], like: Like | None
) -> Any:
    """Numbers against the noise level, with their intervals; a single one with typical ones."""
    figure = new_figure(4.6, 3.0)
    axes = figure.add_subplot()
    values = []
    for name, colour in zip(shown, _COLOURS, strict=False):
        some = [n for n in numbers if n.name == name and n.sigma is not None]
        if not some:
            continue
        sigma = [n.sigma or 0.0 for n in some]
        middle = [n.estimate.value for n in some]
        ends = [n.interval() for n in some]
        below = [m - low for m, (low, _) in zip(middle, ends, strict=True)]
        above = [high - m for m, (_, high) in zip(middle, ends, strict=True)]
        axes.errorbar(sigma, middle, yerr=[[max(b, 0) for b in below], [max(a, 0) for a in above]],
                      color=colour, marker="o", markersize=4, linewidth=1.2, capsize=2,
                      label=some[0].title)  # fmt: skip
        values += middle
        if like is not None and len(shown) == 1:
            _add_typical(axes, some, like)
    settings: dict[str, Any] = {"xscale": "log"}
    label_axes(axes, "noise level, in units of the data", unit, title, **settings)
    if values and min(values) > 0 and max(values) > 30 * min(values):
        axes.set_yscale("log")
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False, fontsize=8)
    return figure


def _add_typical(axes: Any, numbers: Sequence[Number], like: Like) -> None:
    """What models show of the same numbers on like data, as thin lines."""
    for model, style in zip(like.models, _STYLES, strict=False):
        found = [(n.sigma, like.beside(n).get(model)) for n in numbers]
        points = [(sigma, value) for sigma, value in found if value is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=_TYPICAL, linestyle=style, linewidth=1,
                      label=f"{model} on {like.data}")  # fmt: skip


def _samples(done: Mapping[str, Done], real: Tensor) -> list[tuple[str, str]]:
    """Pictures of samples, of data, and of samples beside their nearest training images."""
    kept = [one.found.kept for one in done.values() if "samples" in one.found.kept]
    if not kept:
        return []
    low, high = float(real.min()), float(real.max())
    shown = {"samples of the model": kept[-1]["samples"], "data": real}
    if "neighbours" in kept[-1]:
        # Each pair is one picture.
        shown["the samples most like copies, each beside its nearest training image"] = torch.cat(
            kept[-1]["neighbours"].unbind(1), dim=3
        )
    pictures = []
    for title, some in shown.items():
        points = some.to(torch.float32)
        if points.dim() == 4:
            points = 2 * (points - low) / max(high - low, 1e-12) - 1
        figure = samples_figure(points)
        if figure is not None:
            pictures.append((title, _picture(figure)))
    return pictures


def _picture(figure: Any) -> str:
    """A figure as the address of a picture that is in the page itself."""
    return f"data:image/png;base64,{base64.b64encode(png(figure)).decode()}"

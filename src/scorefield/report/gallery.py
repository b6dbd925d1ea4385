"""The pictures of a data set: learned fields, samples, and the exact field's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from scorefield.comparison.groups import Group
from scorefield.evaluation.measure import (
    Floors,
    measure_levels,
    measure_samples,
    validate,
)
from scorefield.evaluation.protocol import Benchmark, Protocol
from scorefield.evaluation.records import Evaluation
from scorefield.fields import ScoreField
from scorefield.plotting.palette import EXACT, Look
from scorefield.report.images import (
    Picture,
    colour_bar,
    draw_field,
    draw_images,
    draw_scatter,
    field_map,
    reach_of,
    shared_scale,
)
from scorefield.runs.run import Run
from scorefield.targets import Target

_SHOWN = {"points": 1500, "images": 64}


@dataclass(frozen=True)
class Strip:
    """Pictures that belong side by side, and what they share."""

    heading: str
    pictures: list[Picture]
    scale: Picture | None = None


@dataclass(frozen=True)
class Gallery:
    """The pictures of a data set."""

    fields: list[Strip]
    samples: list[Strip]


def gallery(members: Sequence[Group], look: dict[str, Look], trust_code: bool) -> Gallery:
    """The pictures of the first seed of each model; none for data that is neither points of the
    plane nor images.

    Raises:
        RunError: If a run has no checkpoint.
        CheckpointError: If a checkpoint cannot be read.
    """
    runs = {g.label: _run(g, trust_code) for g in members}
    source = next(iter(runs.values())).source()
    models = {g.label: runs[g.label].field("ema", g.first.step) for g in members}
    benchmark = Benchmark(source, Protocol.read(members[0].first.protocol))
    black = -1.0 if next(iter(runs.values())).config.centered else 0.0
    samples = _samples(models, benchmark, look, black)
    return Gallery(_fields(models, benchmark), samples)


def exact_group(group: Group, trust_code: bool) -> Group | None:
    """The exact field evaluated by the protocol of a group; ``None`` where it is not known."""
    one = group.first
    run = _run(group, trust_code)
    source = run.source()
    truth = source.truth
    if truth is None:
        return None
    benchmark = Benchmark(source, Protocol.read(one.protocol))
    floors: Floors = {(d.metric, d.features): d.floor for d in one.distances if d.floor is not None}
    return Group(
        group.dataset,
        "exact",
        (
            Evaluation(
                group.dataset,
                "exact",
                seed=0,
                step=0,
                distances=measure_samples(truth, benchmark, floors),
                levels=measure_levels(truth, benchmark),
                validation=validate(truth, benchmark),
                compute={},
                protocol=one.protocol,
                about={"label": "exact field"},
            ),
        ),
    )


def _run(group: Group, trust_code: bool) -> Run:
    assert group.first.folder is not None
    return Run.open(group.first.folder, trust_code)


def _fields(models: dict[str, ScoreField], benchmark: Benchmark) -> list[Strip]:
    truth = benchmark.truth
    if truth is None or benchmark.source.shape != (2,):
        return []
    strips = []
    for sigma in _telling(truth, benchmark.protocol):
        reach = reach_of(truth, sigma)
        shown: dict[str, ScoreField] = {**models, "exact field": truth}
        maps = {label: field_map(f, sigma, reach) for label, f in shown.items()}
        scale = shared_scale({m: maps[m] for m in models}, truth, sigma)
        pictures = [draw_field(m, m, maps[m], truth, sigma, scale) for m in shown]
        strips.append(Strip(f"σ = {sigma:g}", pictures, colour_bar(scale)))
    return strips


def _telling(truth: Target, protocol: Protocol) -> list[float]:
    """Two noise levels of the protocol: where the parts of the data melt, and where they have."""
    wanted = (0.18 * truth.std, 0.7 * truth.std)
    nearest = [min((abs(s - w), s) for s in protocol.sigmas)[1] for w in wanted]
    return list(dict.fromkeys(nearest))


def _samples(
    models: dict[str, ScoreField],
    benchmark: Benchmark,
    look: dict[str, Look],
    black: float,
) -> list[Strip]:
    truth, shape, protocol = benchmark.truth, benchmark.source.shape, benchmark.protocol
    if shape == (2,) and truth is not None:
        n = min(_SHOWN["points"], protocol.samples)
    elif len(shape) == 3 and shape[0] in (1, 3):
        n = min(_SHOWN["images"], protocol.samples)
    else:
        return []
    real = benchmark.real[:n]
    strips = []
    # At the smallest budget, samples of the plane would lie far outside of the picture.
    ascending = sorted(protocol.nfes)
    for budget in dict.fromkeys((ascending[-1], ascending[:2][-1])):
        sampler = protocol.method(budget)
        pictures = []
        if truth is not None:
            draw = partial(draw_scatter, truth=truth)
            pictures.append(draw("real", f"{n} real samples", real, colour=EXACT.colour))
        else:
            alt = f"{n} real images, held out"
            pictures.append(draw_images("real", alt, real, black=black))
        for label, field in models.items():
            x = sampler.sample(field, n, protocol.seed).cpu()
            alt = f"{n} samples of {label} at {sampler.nfe} network calls"
            if truth is not None:
                pictures.append(draw(label, alt, x, colour=look[label].colour))
            else:
                pictures.append(draw_images(label, alt, x, black=black))
        strips.append(Strip(f"{sampler.nfe} network calls", pictures))
    return strips

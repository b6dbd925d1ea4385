"""Metrics of a run's images by the features of extractors, added to its evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from scorefield.config.build import build_engine
from scorefield.config.document import shown
from scorefield.data.latents import LatentSource
from scorefield.data.source import DataSource
from scorefield.engine import Engine
from scorefield.errors import RunError
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue import OF_IMAGES
from scorefield.evaluation.extractors import Extractor
from scorefield.evaluation.features import FeatureBlocks, ImageSets
from scorefield.evaluation.generation import Generation
from scorefield.evaluation.newest import evaluation_of_newest
from scorefield.evaluation.parts import Parts
from scorefield.evaluation.pixels import Pixels, pixels_of
from scorefield.evaluation.protocol import Protocol
from scorefield.evaluation.records import Distance, Evaluation
from scorefield.evaluation.reference import read_statistics, reference_set, statistics_of
from scorefield.files import sha256_of
from scorefield.progress import Stages
from scorefield.runs.classes import classes_by_index
from scorefield.runs.run import Run
from scorefield.training.identity import check_same

IMAGES = 50_000
"""The number of images that published numbers are of."""
FEATURES = "features"
"""The folder of the features of data, beside the runs on them."""

_RECORD = "images"


def evaluate_images(
    run: Run,
    extractors: Sequence[Extractor],
    n: int = IMAGES,
    nfes: Sequence[int] | None = None,
    *,
    statistics: Path | None = None,
    pngs: bool = False,
    opened: tuple[Pixels, DataSource] | None = None,
    stages: Stages | None = None,
    engine: Engine | None = None,
) -> Evaluation:
    """Measures the images of a run by the features of extractors, and adds the numbers to its
    evaluation, which must be there; what is measured already is not measured again.

    Images are drawn as those of the evaluation, by its sampler and its seed, with the averaged
    weights of the newest checkpoint, and compared with the training set, of at most 50,000 images
    at random, never mirrored. A field that knows classes draws them with the frequencies of the
    data, see :func:`~.classes_by_index`. Latents are decoded by their autoencoder, and compared
    with the images that the training set was encoded from.

    Arguments:
        extractors: The extractors.
        n: The number of images.
        nfes: The budgets of network calls, all of them in the evaluation; by default the largest.
        statistics: A published file whose statistics Fréchet distances are taken from, in place of
            those of the training set.
        pngs: Whether to write the images as ``samples/…/000123.png``.
        opened: What :func:`images_of` has opened; it opens it here by default.
        stages, engine: As of :func:`~.evaluate.evaluate`.

    Raises:
        UserError: If the data are no images, the file of statistics does not fit, or latents cannot
            be decoded.
        RunError: If there is no evaluation of the newest checkpoint, it has no such budget, or the
            images were measured with other settings.
    """
    stages = stages or Stages(quiet=True)
    engine = build_engine(run.config) if engine is None else engine
    engine.check()
    world, config = engine.world, run.config
    kept = evaluation_of_newest(run, world)
    budgets = [max(kept.budgets)] if nfes is None else sorted(set(nfes))
    for budget in set(budgets) - set(kept.budgets):
        raise RunError(
            f"{run.folder} has no evaluation at {budget} network calls, but at "
            f"{', '.join(map(str, kept.budgets))}"
        )
    field = engine.place(run.field("ema", kept.step).requires_grad_(False))
    source, protocol = run.source(), Protocol.read(kept.protocol)
    check_same(world, checkpoint=kept.step, images=(n, budgets, [e.sha256 for e in extractors]))
    pixels, real = opened or images_of(run)
    pixels = pixels.on(engine.torch_device)
    # One that is given twice is one.
    placed = list({e.name: e.on(engine.torch_device) for e in extractors}.values())
    known = {e.name: read_statistics(statistics, e) for e in placed} if statistics else {}
    record: dict[str, Any] = {
        "n": n,
        "statistics": None if statistics is None else statistics.name,
        "statistics_sha256": None if statistics is None else sha256_of(statistics),
        "classes": field.classes is not None,
    }
    measured = dict(kept.protocol.get(_RECORD, {}))
    for budget in budgets:
        for extractor in placed:
            _check_record(run, measured.get(_key(budget, extractor)), record, budget)
    classes = None if field.classes is None else classes_by_index(source, protocol.seed)
    facts = {**record, "step": kept.step, "seed": protocol.seed, "sampler": protocol.sampler}
    facts["extractors"] = [e.sha256 for e in placed]
    parts = Parts(
        run.folder, _RECORD, {**facts, "data": config.data.model_dump(mode="json")}, engine
    )
    for budget in budgets:
        left = [e for e in placed if _key(budget, e) not in measured]
        if not left and not pngs:
            stages.note(f"images at {budget} network calls are measured already")
            continue
        sampler = protocol.method(budget)
        stem = f"{protocol.sampler}_nfe{sampler.nfe}_n{n}_seed{protocol.seed}_step{kept.step:08d}"
        generation = Generation(
            field,
            sampler,
            n,
            protocol.seed,
            engine,
            pixels,
            classes,
            run.folder / "samples" / stem if pngs else None,
        )
        stage = f"images at {budget} network calls"
        stages.note(stage)
        generated = generation.features(left, parts.of(field), stages, stage)
        distances = []
        for extractor in left:
            sets = _sets(run, real, extractor, generated[extractor.name], engine, known)
            stages.note(f"metrics by {extractor.name}")
            (numbers,) = world.each([partial(_measured, sets)])
            distances += [
                Distance(protocol.sampler, budget, sampler.nfe, name, extractor.name, estimate)
                for name, estimate in numbers
            ]
            measured[_key(budget, extractor)] = record
        kept = replace(
            kept,
            distances=tuple(sorted((*kept.distances, *distances), key=lambda d: d.budget)),
            protocol={**kept.protocol, _RECORD: dict(measured)},
        )
        if world.first:
            kept.write(run.folder)
        world.any(False)
    if world.first:
        parts.remove()
    return kept


def images_of(run: Run, vae: Path | None = None) -> tuple[Pixels, DataSource]:
    """How the points of a run become images, and the images that they are compared with: those of
    its data, or that its latents were encoded from. Where the autoencoder of latents is, is as of
    :func:`~.pixels_of`.

    Raises:
        UserError: As of :func:`~.pixels_of`, or if the images of latents are not there.
    """
    source = run.source()
    pixels = pixels_of(source, run.config.centered, vae=vae)
    return pixels, source.pictures() if isinstance(source, LatentSource) else source


def _measured(sets: ImageSets) -> list[tuple[str, Estimate]]:
    """All metrics that apply, with their warnings among the settings."""
    found = []
    for metric in OF_IMAGES:
        if not metric.holds(sets):
            continue
        estimate = metric.estimate(sets)
        if estimate is None:
            continue
        warning = metric.warning(sets)
        if warning:
            estimate = replace(estimate, settings={**estimate.settings, "warning": warning})
        found.append((metric.name, estimate))
    return found


def _sets(
    run: Run,
    source: DataSource,
    extractor: Extractor,
    generated: FeatureBlocks,
    engine: Engine,
    known: dict[str, Any],
) -> ImageSets:
    config, world = run.config, engine.world
    folder = run.folder.parent.parent / FEATURES
    facts = {"data": config.data.model_dump(mode="json"), "name": source.name}
    train, test = (
        reference_set(source, split, extractor, folder, facts, config.centered, world)
        for split in ("train", "test")
    )
    assert train is not None
    own = extractor.name in known
    with world.first_goes_first():
        statistics = known[extractor.name] if own else statistics_of(train, extractor)
    return ImageSets(
        extractor.name,
        extractor.of_fid,
        generated,
        train.features,
        engine.torch_device,
        statistics,
        "a file of statistics" if own else train.features.n,
        None if test is None else test.features,
    )


def _key(budget: int, extractor: Extractor) -> str:
    return f"{budget} {extractor.name}"


def _check_record(
    run: Run, there: dict[str, Any] | None, wanted: dict[str, Any], budget: int
) -> None:
    for key in wanted if there is not None else ():
        if there is not None and there.get(key) != wanted[key]:
            raise RunError(
                f"{run.folder} has images measured at {budget} network calls with {key} "
                f"{shown(there.get(key))}, and {shown(wanted[key])} is wanted; --overwrite "
                "replaces that evaluation"
            )

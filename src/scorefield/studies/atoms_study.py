"""The analysis of atoms as a command: from runs to the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from scorefield.config.data import AtomsData
from scorefield.config.merge import differences
from scorefield.config.resolve import load
from scorefield.errors import ConfigError, RunError
from scorefield.evaluation.description import about
from scorefield.evaluation.sampling import choose_sampler
from scorefield.progress import Stages
from scorefield.runs.run import Run
from scorefield.samplers import Sampler
from scorefield.studies.atoms import EXACT, AtomsAnalysis, Model, Terms, analyse
from scorefield.studies.atoms_files import check_free, contents, write
from scorefield.studies.atoms_film import FilmError, mp4
from scorefield.studies.atoms_film_page import page
from scorefield.studies.atoms_look import EXACT as EXACT_LOOK
from scorefield.studies.atoms_look import Look, looks
from scorefield.studies.atoms_plane import Plane, drawable
from scorefield.studies.atoms_scenes import shoot
from scorefield.targets import PseudoAtoms

PRESET = "atoms/no_regularizer"
"""Whose law and sampler the exact field has where there is no run."""

_SIDE = 25
_TITLE = "σ times the score of pseudo-atoms"
_MOST_FRAMES = 1000


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Arguments:
        runs: The folders of runs on atoms.
        exact: Whether the exact field is one more model.
        terms: How much of what.
        frames: The number of noise levels of the film.
        sampler: The kind of the sampler; that of the runs by default.
        steps: Its number of steps; that of the runs by default.
    """

    runs: tuple[Path, ...]
    exact: bool = False
    terms: Terms = field(default_factory=Terms)
    frames: int = 41
    sampler: str | None = None
    steps: int | None = None


class Outcome(NamedTuple):
    """What came of an analysis.

    Arguments:
        analysis: The analysis.
        files: The files that were written.
        failure: Why a film is missing; ``None`` if none is.
    """

    analysis: AtomsAnalysis
    files: list[Path]
    failure: FilmError | None

    def check(self) -> None:
        """Raises ``FilmError`` if a film is missing."""
        if self.failure is not None:
            raise self.failure


class Bench(NamedTuple):
    """All that an analysis works on."""

    law: PseudoAtoms
    models: tuple[Model, ...]
    sampler: Sampler


def prepare(request: Request) -> Bench:
    """Opens the runs and holds them against each other.

    Raises:
        ConfigError: If the request contradicts itself.
        RunError: If a run cannot be analysed, two are the same, or two differ in law, process or
            sampler.
        CheckpointError: If a checkpoint cannot be read.
    """
    if not 2 <= request.frames <= _MOST_FRAMES:
        raise ConfigError(
            f"--frames is {request.frames}, it must be an integer from 2 to {_MOST_FRAMES}"
        )
    if not request.runs and not request.exact:
        raise ConfigError("there is nothing to analyse: give runs, or --exact")
    runs = [Run.open(path) for path in request.runs]
    for run in runs:
        _check_atoms(run)
    # Without a run there is the preset, of which nothing is read but what it is about.
    asked = runs or [Run(Path(PRESET), load(PRESET))]
    for other in runs[1:]:
        _check_alike(runs[0], other)
    samplers = [choose_sampler(run, request.sampler, request.steps) for run in asked]
    for run, sampler in zip(asked[1:], samplers[1:], strict=True):
        if sampler != samplers[0]:
            raise RunError(
                f"{asked[0].folder} and {run.folder} have different samplers: give one to all, by "
                "--sampler and --steps"
            )
    law = asked[0].source().truth
    assert isinstance(law, PseudoAtoms)
    models = _grouped(_opened(runs))
    if request.exact:
        models = [Model(EXACT, None, law, {}), *models]
    return Bench(law, tuple(models), samplers[0])


def run(
    request: Request, folder: Path, overwrite: bool = False, stages: Stages | None = None
) -> Outcome:
    """Makes an analysis and writes it. Where films cannot be made, all else is written.

    Arguments:
        request: What is asked for.
        folder: The folder of the results.
        overwrite: Whether it may exist.
        stages: Shows how far the work is.

    Raises:
        ConfigError, RunError, ValueError, OSError: As of :func:`prepare`,
            :func:`~.atoms.analyse` and :func:`~.atoms_files.write`.
    """
    check_free(folder, overwrite)
    bench = prepare(request)
    analysis = analyse(bench.law, bench.models, bench.sampler, request.terms, stages)
    names = [name for name in analysis.names if name != EXACT]
    look = {EXACT: EXACT_LOOK, **looks(names)}
    settings = {"sampler": str(bench.sampler), "frames": request.frames}
    files = contents(analysis, look, settings, stages)
    failed: dict[str, FilmError] = {}
    if drawable(bench.law):
        pages, failed = _films(analysis, look, request.frames, stages)
        files |= pages
    written = write(folder, files, overwrite)
    failure = None
    if failed:
        name, error = next(iter(failed.items()))
        others = "" if len(failed) == 1 else f" and {len(failed) - 1} more"
        failure = FilmError(
            f"{folder / name}{others} could not be made: {error}; all else is there"
        )
    return Outcome(analysis, written, failure)


def _films(
    analysis: AtomsAnalysis, look: Mapping[str, Look], frames: int, stages: Stages | None
) -> tuple[dict[str, bytes], dict[str, FilmError]]:
    """The page and the mp4s, and which of these could not be made."""
    plane = Plane(analysis.law)
    trained = [f.model for f in analysis.found if f.model.name != EXACT]
    fields = {model.label: model.field for model in trained}
    paint = {model.label: look[model.name] for model in trained}
    # One seed of each model, so that all fit side by side, or all seeds of the only model.
    first = list({model.name: model.label for model in reversed(trained)}.values())[::-1]
    beside = first if len(first) > 1 else list(fields)
    film = shoot(plane, fields, frames, _SIDE, stages)
    views: dict[str, list[str]] = {"side by side": beside} if len(beside) > 1 else {}
    views |= {label: [label] for label in fields} | {"the exact field alone": []}
    made = {"film.html": page(film, views, paint).encode()}
    wanted: dict[str, list[str]] = {f"{m.key}/film.mp4": [m.label] for m in trained}
    if any(f.model.name == EXACT for f in analysis.found):
        wanted["exact_field/film.mp4"] = []
    if len(beside) > 1:
        wanted["film.mp4"] = beside
    failed: dict[str, FilmError] = {}
    for done, (name, labels) in enumerate(wanted.items()):
        if stages is not None:
            stages.show("films", done, len(wanted), name)
        try:
            made[name] = mp4(film, {label: paint[label] for label in labels}, _TITLE)
        except FilmError as error:
            failed[name] = error
    if stages is not None:
        stages.show("films", len(wanted), len(wanted))
        stages.say(f"{len(wanted) - len(failed)} of {len(wanted)} films")
    return made, failed


def _check_atoms(run: Run) -> None:
    if not isinstance(run.config.data, AtomsData):
        raise RunError(
            f"{run.folder} is a run on data of kind {run.config.data.kind!r}: analyze atoms takes "
            "runs on data of kind 'atoms'"
        )


def _check_alike(one: Run, other: Run) -> None:
    documents = [
        {key: run.config.document()[key] for key in ("data", "sde")} for run in (one, other)
    ]
    found = differences(*documents)
    if found:
        key, first, second = found[0]
        raise RunError(
            f"{one.folder} and {other.folder} cannot stand side by side: {key} is {first} and "
            f"{second}"
        )


def _opened(runs: Sequence[Run]) -> list[Model]:
    """The fields of runs, under the shortest names that tell their configurations apart."""
    names = _names(runs)
    models: dict[str, Model] = {}
    for run in runs:
        found = run.checkpoint()
        told = {"run": run.config.name, "step": found.step, "weights": "ema"}
        field = run.field("ema", found.step)
        model = Model(names[run.config.name], run.config.seed, field, told)
        if model.label in models:
            raise RunError(f"{run.folder} is {model.label}, of which there is another run already")
        models[model.label] = model
    return list(models.values())


def _names(runs: Sequence[Run]) -> dict[str, str]:
    """Short names by the names of configurations: the preset's, or with what was changed."""
    whole = {run.config.name: run for run in runs}
    for called in (_preset, lambda run: run.model_id):
        short = {name: called(run) for name, run in whole.items()}
        if len(set(short.values())) == len(short):
            return short
    return {name: name.replace("/", "_") for name in whole}


def _preset(run: Run) -> str:
    preset = about(run)["preset"]
    return run.model_id if preset is None else str(preset).partition("/")[2]


def _grouped(models: Sequence[Model]) -> list[Model]:
    """Models in the order of their first runs, and their seeds ascending."""
    order = list(dict.fromkeys(model.name for model in models))
    return sorted(models, key=lambda model: (order.index(model.name), model.seed or 0))

"""The analysis of atoms as a study: runs that fit each other, numbers, figures and films."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from scorefield import plotting
from scorefield.config.data import AtomsData
from scorefield.config.document import differences
from scorefield.config.resolve import load_config
from scorefield.diagnostics.trajectories import State
from scorefield.errors import ConfigError, RunError
from scorefield.estimate import Estimate
from scorefield.evaluation.description import about
from scorefield.evaluation.records import Level
from scorefield.evaluation.sampling import choose_sampler
from scorefield.fields.base import ScoreField
from scorefield.plotting.palette import Look
from scorefield.runs.run import Run
from scorefield.samplers.base import Sampler
from scorefield.studies.atoms import numbers
from scorefield.studies.atoms.compute import (
    EXACT,
    AtomsAnalysis,
    Model,
    ModelResult,
    analyse,
)
from scorefield.studies.atoms.figures import comparison, marginals, radial, scatter
from scorefield.studies.atoms.film import mp4, page
from scorefield.studies.atoms.plane import Plane, drawable, make_film
from scorefield.studies.frame import (
    RECORD,
    Study,
    Table,
    Work,
    csv_bytes,
    fingerprint,
    json_bytes,
    npz_bytes,
)
from scorefield.studies.settings import Atoms
from scorefield.targets.atoms import PseudoAtoms

PRESET = "atoms/no_regularizer"
"""The preset whose data and sampler the exact field has where there is no run."""

_SIDE = 25
_TITLE = "σ times the score of pseudo-atoms"


class AtomsStudy(Study[Atoms, AtomsAnalysis]):
    """Models of pseudo-atoms compared with the exact distribution."""

    kinds = (State, Level, Estimate)

    def __init__(
        self, settings: Atoms, truth: PseudoAtoms, models: Sequence[Model], sampler: Sampler
    ) -> None:
        self.settings = settings
        self.truth = truth
        self.models = tuple(models)
        self.sampler = sampler
        prints = {m.label: fingerprint(m.field) for m in models}
        self.about = {"sampler": str(sampler), "process": str(truth.sde), "fingerprints": prints}

    @classmethod
    def open(cls, settings: Atoms) -> AtomsStudy:
        if not settings.runs and not settings.exact:
            raise ConfigError("there is nothing to analyse: give runs, or --exact")
        runs = [Run.open(path, settings.trust_code) for path in settings.runs]
        for run in runs:
            if not isinstance(run.config.data, AtomsData):
                raise RunError(
                    f"{run.folder} is a run on data of kind {run.config.data.kind!r}: analyze "
                    "atoms takes runs on data of kind 'atoms'"
                )
        # Without a run there is the preset, of which only data, process and sampler are read.
        chosen = runs or [Run(Path(PRESET), load_config(PRESET))]
        for other in runs[1:]:
            _check_alike(runs[0], other)
        samplers = [choose_sampler(run.config, settings.sampler, settings.steps) for run in chosen]
        for run, sampler in zip(chosen[1:], samplers[1:], strict=True):
            if sampler != samplers[0]:
                raise RunError(
                    f"{chosen[0].folder} and {run.folder} have different samplers: give one to "
                    "all, by --sampler and --steps"
                )
        truth = chosen[0].source().truth
        assert isinstance(truth, PseudoAtoms)
        models = _opened(runs)
        if settings.exact:
            models = [Model(EXACT, None, truth, {}), *models]
        return cls(settings, truth, models, samplers[0])

    def evaluated(self) -> Iterable[ScoreField]:
        return (self.truth, *(model.field for model in self.models))

    def compute(self, work: Work) -> AtomsAnalysis:
        return analyse(self.truth, self.models, self.sampler, self.settings, work)

    def files(self, result: AtomsAnalysis, work: Work) -> Mapping[str, Callable[[], bytes]]:
        looks = {EXACT: plotting.EXACT}
        looks |= plotting.looks(name for name in result.names if name != EXACT)
        makers = makers_of(result, looks)
        if drawable(self.truth):
            makers |= self._films(looks, work)
        record = {**numbers.summary(result), "sampler": str(self.sampler)}
        record["files"] = sorted([*makers, "summary.json", RECORD])
        return makers | {"summary.json": lambda: json_bytes(record)}

    def table(self, result: AtomsAnalysis) -> Table:
        return numbers.table(result)

    def _films(self, looks: Mapping[str, Look], work: Work) -> dict[str, Callable[[], bytes]]:
        """The page, and a film of each model, of the exact field and of all models together."""
        trained = [m for m in self.models if m.name != EXACT]
        paint = {m.label: looks[m.name] for m in trained}
        # One seed of each model, so that all fit side by side, or all seeds of the only model.
        first = list({m.name: m.label for m in reversed(trained)}.values())[::-1]
        together = {label: paint[label] for label in (first if len(first) > 1 else paint)}
        fields = {m.label: m.field for m in trained}
        film = make_film(Plane(self.truth), fields, self.settings.frames, _SIDE, work)
        views = {"side by side": together} if len(together) > 1 else {}
        views |= {label: {label: look} for label, look in paint.items()}
        views |= {"the exact field alone": {}}
        films = {f"{m.key}/film.mp4": {m.label: paint[m.label]} for m in trained}
        if self.settings.exact:
            films["exact_field/film.mp4"] = {}
        if len(together) > 1:
            films["film.mp4"] = together
        makers: dict[str, Callable[[], bytes]] = {"film.html": lambda: page(film, views).encode()}
        return makers | {name: partial(mp4, film, shown, _TITLE) for name, shown in films.items()}


STUDY = AtomsStudy


def makers_of(analysis: AtomsAnalysis, looks: Mapping[str, Look]) -> dict[str, Callable[[], bytes]]:
    """What makes each file but the films."""
    plane = Plane(analysis.truth) if drawable(analysis.truth) else None

    def figures(
        folder: str, members: Sequence[ModelResult], groups: Mapping[str, Sequence[ModelResult]]
    ) -> dict[str, Callable[[], bytes]]:
        paint = {label: looks[some[0].model.name] for label, some in groups.items()}
        found: dict[str, Callable[[], bytes]] = {
            f"{folder}marginals.png": partial(marginals, analysis, groups, paint)
        }
        if analysis.radial is not None:
            found[f"{folder}radial.png"] = partial(radial, analysis, groups, paint)
        if plane is not None:
            found[f"{folder}scatter.png"] = partial(scatter, plane, members, looks)
        return found

    groups = {name: analysis.members(name) for name in analysis.names}
    files: dict[str, Callable[[], bytes]] = {
        "numbers.csv": lambda: csv_bytes(numbers.rows(analysis)),
        "comparison.png": partial(comparison, analysis, looks),
        **figures("", analysis.results, groups),
    }
    for found in analysis.results:
        key = f"{found.model.key}/"
        files[f"{key}samples.npz"] = partial(lambda r: npz_bytes(numbers.arrays(r)), found)
        files |= figures(key, [found], {found.model.label: [found]})
    return files


def _check_alike(one: Run, other: Run) -> None:
    sections = [
        {key: run.config.document()[key] for key in ("data", "sde")} for run in (one, other)
    ]
    if found := differences(*sections):
        key, first, second = found[0]
        raise RunError(
            f"{one.folder} and {other.folder} cannot be compared: {key} is {first} and {second}"
        )


def _opened(runs: Sequence[Run]) -> list[Model]:
    """The fields of runs, under the shortest names that distinguish their configurations, in the
    order of their first runs and with ascending seeds.
    """
    names = _names(runs)
    models: dict[str, Model] = {}
    for run in runs:
        found = run.checkpoint()
        record = {"run": run.config.name, "step": found.step, "weights": "ema"}
        field = run.field("ema", found.step)
        model = Model(names[run.config.name], run.config.seed, field, record)
        if model.label in models:
            raise RunError(f"{run.folder} is {model.label}, of which there is another run already")
        models[model.label] = model
    order = list(dict.fromkeys(model.name for model in models.values()))
    return sorted(models.values(), key=lambda model: (order.index(model.name), model.seed or 0))


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

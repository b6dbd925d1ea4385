"""What a check finds in models whose faults are known, how fast, and what it shows of good ones.

For each kind of data (``toy`` in the plane, ``digits`` of 8×8, ``fashion_mnist`` of 28×28 pixels,
as Debian's package dataset-fashion-mnist has it) two small models are trained, M0 and M2, the
gradient of a potential. They and a field in closed form are checked, which must be without a fault;
then M2 with a planted curl, M2 whose noise levels do not agree, and a field that has memorised its
training points. Budgets and times are those of the processor, so that other work on the machine
changes nothing. Run as

    python benchmarks/check.py KIND

for each kind, or with ``--runs runs/KIND`` for models that were trained there by ``scorefield
train`` with as many steps. A model that was measured is not measured again, so that a second call
resumes; ``--again`` begins anew. It writes ``docs/results/check/KIND.json``, and of all of these
the page ``docs/results/check.md`` and the file of the good models' figures,
``src/scorefield/health/typical.json``.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from pages import RESULTS, table

import scorefield as sf
from scorefield.config.build import (
    build_field,
    build_objective,
    build_sde,
    build_source,
    build_training,
)
from scorefield.config.resolve import load_config
from scorefield.fields.planted import PredictedNoise, Turned, right_angle
from scorefield.health import typical
from scorefield.progress import Stages
from scorefield.runs.run import Run

CASES = 6
"""The number of models of a kind: three good ones and three with a fault."""
DOSE, SWING = 0.3, 0.4
"""The size of the planted curl in units of the noise, and by how much noise levels are wrong."""


class Kind(NamedTuple):
    """A kind of data: steps and batch of a training of its presets, the points of a memorised set,
    and the budget of a check in seconds of the processor.
    """

    steps: int
    batch: int
    memorised: int
    budget: float


KINDS = {
    "toy": Kind(1000, 512, 64, 8.0),
    "digits": Kind(1000, 64, 500, 60.0),
    "fashion_mnist": Kind(1500, 64, 500, 150.0),
}


class Processor:
    """A clock of the processor."""

    monotonic = staticmethod(time.process_time)


class Swinging(sf.ScoreField):
    """A field at noise levels that swing about the true ones, which therefore do not agree."""

    def __init__(self, base: sf.ScoreField) -> None:
        super().__init__(base.sde, base.domain)
        self.base = base

    def score(self, x: torch.Tensor, t: Any, classes: Any = None) -> torch.Tensor:
        level = self.sde.noise_level(torch.as_tensor(t, dtype=x.dtype)).reshape(-1).expand(len(x))
        least, most = self.sde.level_range
        other = level * (1 + SWING * torch.sin(6 * level.log()))
        return self.base.score(x, self.sde.time(other.clamp(1.001 * least, 0.999 * most)))


class Case(NamedTuple):
    """A model, its data, and what a check is to find; nothing of a good one."""

    name: str
    field: Callable[[], sf.ScoreField]
    source: sf.DataSource
    fault: str = ""


@cache
def data(name: str) -> sf.DataSource:
    """The data of a kind."""
    return build_source(load_config(f"{name}/m0"))


@cache
def model(name: str, short: str, runs: Path | None) -> sf.ScoreField:
    """A model of a kind, from a folder of runs or trained here."""
    kind, source = KINDS[name], data(name)
    if runs is not None:
        folder = min(runs.glob(f"{short}*/seed0"), default=runs / short)
        config = Run.open(folder).config
        if (config.train.steps, config.train.batch_size) != (kind.steps, kind.batch):
            raise SystemExit(f"{folder} has other steps or another batch than {kind}")
        return sf.load(folder)
    config = load_config(f"{name}/{short}")
    optim, settings = build_training(config)
    field = build_field(config, source)
    objective = build_objective(config, source)
    sf.fit(field, source, objective=objective, optim=optim, steps=kind.steps,
           batch_size=kind.batch, ema_decay=min(settings.ema_decay or 0.99, 0.99),
           quiet=True)  # fmt: skip
    return field


def cases(name: str, runs: Path | None) -> Iterator[Case]:
    """The good models of a kind; then a gradient with a planted curl, at other noise levels, and a
    field that has memorised points.
    """
    source, memorised = data(name), KINDS[name].memorised
    sde = build_sde(load_config(f"{name}/m0").sde)
    m0, m2 = (partial(model, name, short, runs) for short in ("m0", "m2"))
    yield Case("M0", m0, source)
    yield Case("M2", m2, source)
    if source.truth is None:
        law = sf.Empirical(source.reference(memorised, 0, "train"))
        yield Case("ideal score", lambda: law.under(sde), sf.TargetSource(law, name))
    else:
        yield Case("exact score", partial(source.truth.under, sde), source)

    def curl() -> sf.ScoreField:
        return sf.PlantedField(m2(), Turned(PredictedNoise(), right_angle(source.dim)), DOSE)

    yield Case("M2 with a planted curl", curl, source, "gradient")
    yield Case("M2 at swinging noise levels", lambda: Swinging(m2()), source, "levels")
    train = source.reference(memorised, 0, "train")
    test = source.reference(memorised // 2, 0, "test")
    points = sf.ArraySource(train, test, f"{memorised} points")
    yield Case("memorised points", lambda: sf.IdealScore(train, sde), points, "memory")


def measured(case: Case, budget: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The row of a case, and the figures of its numbers."""
    field = case.field()
    begin, wall = time.process_time(), time.monotonic()
    with (
        patch("scorefield.health.plan.time", Processor),
        patch("scorefield.health.limit.time", Processor),
    ):
        found = sf.check(field, case.source, budget, stages=Stages(quiet=True))
    seconds, wall = time.process_time() - begin, time.monotonic() - wall
    faults, notices = (
        {v.about: v.words for v in found.verdicts if v.grade == grade}
        for grade in ("fault", "notice")
    )
    row = {
        "model": case.name,
        "planted": case.fault,
        "faults": faults,
        "notices": notices,
        "processor": seconds,
        "clock": wall,
        "parts": {name: (one.size, round(one.seconds, 1)) for name, one in found.done.items()},
        "left_out": found.about["left_out"],
    }
    std = case.source.std
    figures = [
        {
            "name": n.name,
            "level": None if n.sigma is None else _short(n.sigma / std),
            "n": n.estimate.n,
            "value": _short(n.estimate.value),
        }
        for n in found.numbers
    ]
    print(json.dumps(row, ensure_ascii=False), flush=True)
    return row, figures


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def records(name: str, runs: Path | None, before: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All that is measured on a kind of data, after each model, with what was measured before."""
    kind, source = KINDS[name], data(name)
    rows: list[dict[str, Any]] = []
    models: dict[str, list[dict[str, Any]]] = {}
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": f"scorefield {sf.__version__}, torch {torch.__version__}",
        "clock": "processor",
        "settings": kind._asdict(),
        "shape": list(source.shape),
        "std": source.std,
        "rows": rows,
        "models": models,
    }
    known = {row["model"]: row for row in before.get("rows", [])}
    if before.get("settings") != found["settings"]:
        known = {}
    for case in cases(name, runs):
        if case.name in known:
            row, figures = known[case.name], before["models"].get(case.name)
        else:
            row, figures = measured(case, kind.budget)
        rows.append(row)
        if not case.fault:
            models[case.name] = figures
        yield found


HEADS = ("model", "planted", "found", "other faults", "other notices", "processor", "clock")


def stored(folder: Path) -> dict[str, Any]:
    """The records that there are, by the kind of data."""
    files = {name: folder / "check" / f"{name}.json" for name in KINDS}
    return {name: json.loads(f.read_text()) for name, f in files.items() if f.exists()}


def page_of(folder: Path) -> str:
    """The page, of the numbers that the folder has."""
    records = stored(folder)
    lines = [
        "# What a check finds",
        "",
        "Models that are good, models with a planted fault, and what `check` makes of them.",
        "",
        "```console",
        *(f"$ python benchmarks/check.py {name}" for name in records),
        "```",
    ]
    for name, one in records.items():
        kind = Kind(**one["settings"])
        rows = []
        for row in one["rows"]:
            planted, faults, notices = (row[key] for key in ("planted", "faults", "notices"))
            found = {**notices, **faults}.get(planted, "**no**" if planted else "")
            others, less = (
                [about for about in part if about != planted] for part in (faults, notices)
            )
            cells = (row["model"], planted or "nothing", found, ", ".join(others) or "none",
                     ", ".join(less) or "none", f"{row['processor']:.0f} s",
                     f"{row['clock']:.0f} s")  # fmt: skip
            rows.append(cells)
        left = CASES - len(rows)
        lines += [
            "",
            f"## {name}",
            "",
            f"M0 and M2: the presets `{name}/m0` and `{name}/m2` after {kind.steps} "
            f"steps of {kind.batch} points; at most {kind.budget:.0f} s of {one['clock']} "
            f"time; {kind.memorised} memorised points. {one['date']}, {one['versions']}.",
            "",
            *([f"{left} of the {CASES} models were not measured in this run.", ""] if left else []),
            table(HEADS, rows),
        ]
    return "\n".join(lines) + "\n"


def write() -> None:
    """Writes the page and the figures, of the records that there are."""
    records = stored(RESULTS)
    (RESULTS / "check.md").write_text(page_of(RESULTS))
    dates = " and ".join(sorted({one["date"] for one in records.values()}))
    wanted = ("shape", "std", "models")
    figures = {
        "origin": f"measured by benchmarks/check.py with seed 0, {dates}",
        "data": {
            name: {key: one[key] for key in wanted}
            for name, one in records.items()
            if {"M0", "M2"} <= one["models"].keys()
        },
    }
    place = Path(typical.__file__).with_name(typical.FILE)
    place.write_text(json.dumps(figures) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--runs", type=Path, help="a folder of runs of the presets")
    parser.add_argument("--again", action="store_true", help="measure all models again")
    given = parser.parse_args()
    file = RESULTS / "check" / f"{given.kind}.json"
    file.parent.mkdir(exist_ok=True)
    before = {} if given.again or not file.exists() else json.loads(file.read_text())
    for found in records(given.kind, given.runs, before):
        file.write_text(json.dumps(found, indent=1) + "\n")
    write()


if __name__ == "__main__":
    main()

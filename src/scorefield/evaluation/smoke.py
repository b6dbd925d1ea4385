"""Whether a configuration works, in under a minute: it is trained, sampled and evaluated in small.

What is changed for that is reported. Images and points of files are replaced by random ones of the
same shape and classes; a training has two steps of few points, with every regulariser in each, on
one point; samples take two steps; every metric of the catalogue that applies is measured, on two
points at one noise level and on four samples, and none is written down. The network is the
configuration's own, unless its call takes more multiply-adds, or its training more memory, than
there is time and space for on a CPU: then its widths are halved, and if that is not enough the
sides of the images too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scorefield.config import schema
from scorefield.config.build import build_source
from scorefield.config.config import Config
from scorefield.config.data import ArraysData, ChainsData, ImagesData, LatentsData
from scorefield.engine import Engine
from scorefield.errors import ConfigError, UserError
from scorefield.evaluation.measure import (
    measure_floors,
    measure_levels,
    measure_samples,
    validate,
)
from scorefield.evaluation.protocol import Benchmark, Protocol
from scorefield.metrics.sliced import sliced_wasserstein
from scorefield.runs.classes import always_labelled
from scorefield.runs.cost import Cost, cost_of
from scorefield.runs.run import Run

_STEPS, _COUNT, _SAMPLES = 2, 4, 4
_MOST_CALLS, _MOST_PARAMETERS = 2e8, 10_000_000
_SIGMA, _ROUGH = 0.5, 0.5
_PROTOCOL = Protocol(nfes=(3,), samples=_SAMPLES, pairs=2, points=2, columns=1, draws=1)


@dataclass(frozen=True)
class Smoke:
    """The outcome of a trial.

    Attributes:
        folder: The run.
        changed: What is not as in the configuration, a clause each.
        numbers: What was measured, by name.
    """

    folder: Path
    changed: tuple[str, ...]
    numbers: dict[str, Any]


def smoke(
    config: Config, root: Path, engine: Engine, note: Callable[[str], None] = lambda _: None
) -> Smoke:
    """Trains, samples and evaluates a small version of a configuration, in a run of its own in
    ``root/dataset/model_id_smoke``, which replaces an earlier one.

    Raises:
        ConfigError: If the parts of the configuration do not fit each other.
        TrainingError: If the training fails.
    """
    small, changed = reduced(config)
    for clause in changed:
        note(clause)
    run = Run.create(small, root, overwrite=True)
    fit = run.train(quiet=True, engine=engine)
    field = engine.place(run.field()).requires_grad_(False)
    source = run.source()
    held_out = source.reference(_SAMPLES, 0, "test").to(engine.torch_device)
    classes = None if field.unlabelled else 0
    with engine.running():
        samples = run.sampler().sample(field, _SAMPLES, seed=0, classes=classes)
    distance = sliced_wasserstein(samples, held_out)
    numbers = {
        "seconds a step": f"{fit.seconds / small.train.steps:.2g}",
        "loss at the last step": f"{fit.history[-1]['loss']:.4g}",
        "distance of samples": distance,
    }
    least, most = field.sde.level_range
    protocol = replace(_PROTOCOL, sigmas=(min(max(_SIGMA, least), most),))
    labelled = always_labelled(small, field)
    benchmark = Benchmark(source, protocol, labelled=labelled, precision=_ROUGH)
    floors = measure_floors(benchmark, device=engine.torch_device)
    found = [*measure_samples(field, benchmark, floors, engine=engine)]
    numbers |= {f"{d.metric} by {protocol.sampler}": d.estimate for d in found}
    for level in measure_levels(field, benchmark):
        numbers.setdefault(level.metric, level.estimate)
    return Smoke(run.folder, changed, numbers | {"validation loss": validate(field, benchmark)})


def reduced(config: Config) -> tuple[Config, tuple[str, ...]]:
    """A configuration that is tried out in seconds, and what is changed in it."""
    document = config.document()
    document["name"] = f"{config.name}_smoke"
    changed = []
    if isinstance(config.data, ImagesData | LatentsData | ArraysData):
        source = build_source(config)
        data = {"shape": list(source.shape), "classes": source.classes, "count": _COUNT}
        document["data"] = {"kind": "random", **data}
        shape = "×".join(map(str, source.shape))
        changed.append(f"random data of shape {shape} in place of {source.name}")
    elif isinstance(config.data, ChainsData):
        document["data"] |= {"chains": 4 * _COUNT, "draws": 2, "burn_in": 0}
        changed.append("few short chains in place of the data")
    _shorten(document, config)
    changed.append(
        f"{_STEPS} steps of {document['train']['batch_size']} points, every regulariser in each on "
        "one point; samplers take 2 steps"
    )
    small, widths = _affordable(document, config.name)
    return small, (*changed, widths or "the network is the configuration's own")


def _affordable(document: dict[str, Any], name: str) -> tuple[Config, str]:
    """The largest version of a configuration within the limits, or the smallest that can be built,
    and what is narrower in it, as a clause.
    """

    def built(version: dict[str, Any]) -> tuple[Config, Cost]:
        small = schema.validate(version, name, trust_code=True)
        return small, cost_of(small, build_source(small))

    small, cost = built(document)
    over = _excess(cost)
    if over <= 1:
        return small, ""
    smaller = list(_smaller(document))
    # Costs fall with the square of a width, and counting them takes seconds.
    for factor, version in smaller:
        if factor**2 >= over / 2:
            with suppress(ConfigError, UserError):
                small, cost = built(version)
                if _excess(cost) <= 1:
                    return small, _of_width(version, document, cost)
    for _, version in reversed(smaller):
        with suppress(ConfigError, UserError):
            small, cost = built(version)
            return small, _of_width(version, document, cost)
    return small, ""


def _excess(cost: Cost) -> float:
    """How many times a cost is the largest that there is time and space for."""
    return max(cost.call / _MOST_CALLS, cost.parameters / _MOST_PARAMETERS)


def _shorten(document: dict[str, Any], config: Config) -> None:
    terms = {n: t for n, t in document["objective"].items() if isinstance(t, dict) and "every" in t}
    least = 4 if "cycles" in terms else 2
    train = document["train"]
    train |= {"steps": _STEPS, "log_every": 1, "checkpoint_every": _STEPS, "accumulate": 1}
    train["batch_size"] = max(least, min(least, train["batch_size"]))
    if train["snapshot_every"] is not None:
        train["snapshot_every"] = _STEPS
    for name, term in terms.items():
        term["every"] = 1
        if "rows" in term:
            term["rows"] = 1
        if name == "loops":
            term["radii"] = term["radii"][:1]
        if name == "cycles":
            term |= {"points": least, "neighbours": 2, "cycles": 1, "lengths": [3]}
    if "steps" in document["sampler"]:
        document["sampler"]["steps"] = _STEPS


def _smaller(document: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Versions with ever narrower networks, then with ever smaller images; thirds of widths come
    last, of those that are multiples of three.
    """
    widths = ("channels", "hidden", "fsizes")
    channels = (document["field"].get("network") or {}).get("channels")
    thirds = [n for n in (3, 6, 12) if isinstance(channels, int) and channels % n == 0]
    for side in (1, 2, 4, 8, 16):
        shape = document["data"].get("shape")
        if side > 1 and (shape is None or len(shape) < 3):
            return
        for factor in (2, 4, 8, 16, *thirds):
            smaller = {**document, "field": {**document["field"]}}
            for key in ("network", "low_network"):
                network = smaller["field"].get(key)
                if network is None:
                    continue
                narrow = {k: _divided(v, factor) if k in widths else v for k, v in network.items()}
                if side > 1 and "attention" in narrow:
                    levels = [shape[-1] // side >> k for k in range(len(narrow["multipliers"]))]
                    narrow["attention"] = [a for a in narrow["attention"] if a in levels]
                smaller["field"][key] = narrow
            if side > 1:
                reach = [shape[0], *(n // side for n in shape[1:])]
                smaller["data"] = {**document["data"], "shape": reach}
            yield factor * side, smaller


def _divided(width: Any, factor: int) -> Any:
    if isinstance(width, list):
        return [_divided(each, factor) for each in width]
    return max(1, width // factor)


def _of_width(smaller: dict[str, Any], document: dict[str, Any], cost: Cost) -> str:
    """What is narrower in a version, as a clause."""
    shape, own = smaller["data"].get("shape"), document["data"].get("shape")
    sides = f", images of {'×'.join(map(str, shape))}" if shape != own else ""
    was, now = document["field"]["network"], smaller["field"]["network"]
    key = next(k for k in now if was[k] != now[k] and k != "attention")
    return (
        f"the network has {key} {now[key]} in place of {was[key]}{sides}: "
        f"{cost.parameters:,} parameters, {cost.call / 1e9:.2g} G multiply-adds a call"
    )

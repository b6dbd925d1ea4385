"""The log-densities that ``scorefield likelihood`` left in the folders of runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from scorefield.comparison.groups import Group, Key, over_seeds
from scorefield.comparison.marks import siblings
from scorefield.comparison.paired import Pair, compare
from scorefield.errors import RunError
from scorefield.estimate import Estimate
from scorefield.evaluation.likelihood import SUMMARY, LikelihoodSettings
from scorefield.evaluation.records import Evaluation
from scorefield.files import DOCUMENT, read_file
from scorefield.progress import warn
from scorefield.report.tables import Cell, Column, Row, Table, pair_cell

UNIT = "nats"
_ALIKE = ("data", "n", *(f.name for f in fields(LikelihoodSettings)))
"""What log-densities have in common that are compared: the points, and how they were computed."""


class Likelihoods:
    """The mean log-density by model, of those that were computed alike for all of its seeds, and
    the differences from the first model, of those that were computed as its.
    """

    def __init__(self, members: Sequence[Group]) -> None:
        self.records: dict[str, list[Mapping[str, Any]]] = {}
        self.pairs: dict[str, Pair] = {}
        for g in members:
            found = [r for e in g.members if (r := _read(e.folder)) is not None]
            if len(found) < len(g.members):
                continue
            if any(_alike(r) != _alike(found[0]) for r in found):
                warn(
                    f"log-densities of {g.dataset}/{g.model} are left out: its seeds differ in "
                    "the data, the points or the settings; compute them again in the same way"
                )
                continue
            self.records[g.model] = found
        for g in members[1:]:
            self._compare(g, members[0])

    def _compare(self, g: Group, base: Group) -> None:
        own, others = self.records.get(g.model), self.records.get(base.model)
        if own is None or others is None or _alike(own[0]) != _alike(others[0]):
            return
        for pair in compare(g, base, _negatives(g, own), _negatives(base, others)):
            self.pairs[g.model] = pair

    def __bool__(self) -> bool:
        return bool(self.records)

    def over_seeds(self, g: Group, key: str) -> Estimate | None:
        """The ``nats`` or ``bits_per_dim`` of a model."""
        found = [r.get(key) for r in self.records.get(g.model, ())]
        some = [Estimate(**one) for one in found if one]
        return over_seeds(some) if some and len(some) == len(found) else None

    def negative(self, g: Group) -> Estimate | None:
        """The mean negative log-density, of which less is better."""
        nats = self.over_seeds(g, "nats")
        return None if nats is None else nats.scaled(-1.0)


def compared_with_first(run: Path) -> Pair | None:
    """The difference in negative log-density between the model of a run and the first of those
    that were evaluated alike on the same data; ``None`` where there is none.
    """
    try:
        own = Evaluation.find(run)
        members = [] if own is None else siblings(own)
    except RunError as error:
        warn(f"the log-density is not compared with that of other models: {error}")
        return None
    return None if own is None else Likelihoods(members).pairs.get(own.model)


def _alike(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in _ALIKE)


def _negatives(g: Group, records: Sequence[Mapping[str, Any]]) -> dict[int, dict[Key, Estimate]]:
    """The mean negative log-density by seed."""
    key = Key("negative_log_density")
    nats = (Estimate(**r["nats"]).scaled(-1.0) for r in records)
    return {seed: {key: e} for seed, e in zip(g.seeds, nats, strict=True)}


def _read(folder: Any) -> Mapping[str, Any] | None:
    path = folder / "eval" / SUMMARY
    if not path.is_file():
        return None
    try:
        record: Mapping[str, Any] = json.loads(read_file(path, DOCUMENT))
        Estimate(**record["nats"])
    except (OSError, LookupError, TypeError, ValueError) as error:
        warn(f"{path} is left out: it is no summary of log-densities ({error!r})")
        return None
    return record


def likelihood_table(members: Sequence[Group], found: Likelihoods) -> Table | None:
    """The mean log-densities of the models; ``None`` where there are none."""
    if not found:
        return None
    columns = [
        Column("", "log-density", "the mean over points, in nats"),
        Column("", "bits per dimension", "of integer data, less is better"),
        Column("", "points", "how many, and of which data"),
        Column("", "calls a point", "the mean number of network calls"),
    ]
    base = members[0].label
    note = "The density of the model's own probability flow."
    if found.pairs:
        meaning = "of negative log-densities over common seeds, with the 95 % interval of the mean"
        columns.append(Column("", f"− log-density minus {base}'s", meaning))
        note += (
            f" Less than zero is better than {base}; a difference whose interval excludes zero is "
            "bold, others are not distinguishable from none."
        )
    rows = []
    for g in members:
        records = found.records.get(g.model)
        if records is None:
            rows.append(Row(g.label, [Cell(None) for _ in columns]))
            continue
        one = records[0]
        calls = sum(r["calls_mean"] for r in records) / len(records)
        cells = [
            Cell(found.over_seeds(g, "nats")),
            Cell(found.over_seeds(g, "bits_per_dim")),
            Cell(None, str(one["data"]), text=f"{one['n']:,}"),
            Cell(None, text=f"{calls:.0f}"),
        ]
        if found.pairs:
            cells.append(pair_cell(found.pairs.get(g.model)))
        rows.append(Row(g.label, cells))
    return Table(columns, rows, "", note)

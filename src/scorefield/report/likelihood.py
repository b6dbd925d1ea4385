"""The log-densities that ``scorefield likelihood`` left in the folders of runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from scorefield.comparison.groups import Group, over_seeds
from scorefield.estimate import Estimate
from scorefield.evaluation.likelihood import SUMMARY
from scorefield.files import DOCUMENT, read_file
from scorefield.progress import warn
from scorefield.report.tables import Cell, Column, Row, Table

UNIT = "nats"


class Likelihoods:
    """The mean log-density by model, of those that were computed alike for all of its seeds."""

    def __init__(self, members: Sequence[Group]) -> None:
        self.records: dict[str, list[Mapping[str, Any]]] = {}
        for g in members:
            found = [r for e in g.members if (r := _read(e.folder)) is not None]
            if len(found) == len(g.members):
                self.records[g.model] = found

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
        rows.append(Row(g.label, cells))
    return Table(columns, rows, "", "The density of the model's own probability flow.")

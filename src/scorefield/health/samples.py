"""Samples of a model beside data: how far they are, and whether they are copies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scorefield.estimate import Estimate, share
from scorefield.health.plan import Found, Number
from scorefield.health.subject import Subject
from scorefield.metrics.neighbours import nearest_rows
from scorefield.metrics.sets import noise_floor
from scorefield.metrics.sliced import sliced_wasserstein
from scorefield.samplers.solvers import Heun

CALLS = (10, 20, 40)
"""The numbers of network calls at which samples are compared with the data."""
FIRST = 64
"""The number of samples at the smallest size."""
NEAR = 1 / 3
"""A sample is a copy if its nearest training point is nearer than this share of the distance to the
second nearest."""

_NEIGHBOURS = 16
"""How many samples a page shows beside their nearest training images."""
_PAIRS = 8


def compare_samples(subject: Subject, calls: int, size: int) -> Found:
    """Samples, their distance to held-out points in units of that between two real sets, and how
    many of them are copies of training points.
    """
    n = min(FIRST << size, subject.held_out)
    sampler = Heun.for_nfe(calls)
    with subject.engine.running():
        drawn = sampler.sample(subject.field, n, seed=subject.seed, classes=subject.classes(n))
    drawn = drawn.cpu().to(torch.float64)
    real = subject.points(n)
    distance = sliced_wasserstein(drawn.flatten(1), real.flatten(1))
    title = f"sliced Wasserstein distance of samples, {calls} calls"
    numbers = [Number(f"distance_{calls}", title, replace(distance, settings={}), least=0)]
    kept: dict[str, Any] = {"calls": sampler.nfe, "n": n}
    if n not in subject.floors:
        subject.floors[n] = floor(subject, n)
    least = subject.floors[n]
    if least is not None:
        title = f"sliced Wasserstein distance of two sets of {n} real points"
        numbers.append(Number(f"floor_{calls}", title, replace(least, settings={}), least=0))
    if calls == CALLS[-1]:
        kept["samples"] = drawn[: subject.shown].to(torch.float32)
        if subject.source.size is not None and subject.split == "test":
            copies, neighbours = _copies(subject, drawn, real)
            numbers += copies
            if len(subject.field.domain.shape) == 3:
                kept["neighbours"] = neighbours.to(torch.float32)
    return Found(tuple(numbers), kept)


def _copies(subject: Subject, drawn: Tensor, real: Tensor) -> tuple[list[Number], Tensor]:
    """The share of copies of training points among samples, and among held-out points; and the
    samples that look most like copies, each with its nearest training point.
    """
    assert subject.source.size is not None
    train = subject.source.reference(subject.source.size, subject.seed, "train")
    (nearness, nearest), (of_real, _) = (_nearest(points, train) for points in (drawn, real))
    numbers = []
    for name, title, near in (
        ("copies", "samples that are copies of training points", nearness),
        ("copies_held_out", "held-out points that look like copies", of_real),
    ):
        numbers.append(
            Number(name, title, share(int((near < NEAR).sum()), len(near)), least=0, most=1)
        )
    first = nearness.argsort()[:_NEIGHBOURS]
    pairs = torch.stack((drawn[first], train[nearest[first]].to(drawn.dtype)), dim=1)
    return numbers, pairs


def _nearest(points: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """The distances to the nearest training points in units of those to the second nearest, 0 for
    what is the same as both, and which these are.
    """
    _, two = nearest_rows(points, [train], 2)
    # By differences: products round, and the copy of a point that is there twice is at 0 from both.
    apart = (points.unsqueeze(1) - train[two].to(points.dtype)).flatten(2).norm(dim=2)
    apart, order = apart.sort(dim=1)
    nearest = two.gather(1, order)[:, 0]
    return (apart[:, 0] / apart[:, 1]).nan_to_num(nan=0.0), nearest


def floor(subject: Subject, n: int) -> Estimate | None:
    """The sliced Wasserstein distance between two real sets of a size, where there are enough."""
    if subject.source.truth is None and subject.held_out < 2 * n:
        return None
    law = noise_floor(
        lambda x, y: sliced_wasserstein(x.flatten(1), y.flatten(1)),
        subject.source.truth or _Held(subject),
        n, _PAIRS, seed=-1 - subject.seed,
    )  # fmt: skip
    return law.mean


@dataclass(frozen=True)
class _Held:
    """The points to measure on, as a finite set of real samples."""

    subject: Subject

    @property
    def size(self) -> int:
        return self.subject.held_out

    def reference(self, n: int, seed: int) -> Tensor:
        """So many of them."""
        subject = self.subject
        return subject.source.reference(n, seed, subject.split, torch.float64)

r"""The effective patch size of a network: that of the most similar local score, by noise level.

A local score uses :math:`k \times k` pixels around each pixel. At a noise level, the size at which
it is nearest to a network's score is the network's effective scale of locality. Sizes are functions
of the noise level, in units of the data: a local score of these sizes can be sampled on any grid.

References:
    An analytic theory of creativity in convolutional diffusion models (Kamb and Ganguli, 2025),
    section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scorefield.checks import check_count
from scorefield.diagnostics.trajectories import State
from scorefield.engine import exact
from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean
from scorefield.fields.base import ScoreField, evaluation_mode
from scorefield.fields.classes import classes_at
from scorefield.targets.windows import PatchSizes

Criterion = Literal["cosine", "l2"]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ScaleCalibration:
    r"""The similarity of local scores of several patch sizes to a network, by noise level.

    All three choices of sizes follow from the table of the best sizes :math:`b_{ij}` of sample
    :math:`i` at level :math:`j`, and take the smallest of several that are equally good, so that
    no size is chosen that no sample has:

    * the *median* minimises :math:`\sum_i |b_{ij} - k_j|` at each level;
    * the *mode* is the most frequent;
    * the *monotone* sizes minimise :math:`\sum_{ij} |b_{ij} - k_j|` under :math:`k_1 \le k_2 \le
      \dots` in the order of ascending noise, by isotonic regression.

    Attributes:
        sigmas: The noise levels, rising.
        sizes: The patch sizes that were tried, rising.
        by: The criterion of the best size.
        gap: One minus the cosine between the two scores over all pixels, of shape (samples, levels,
            sizes); NaN where not evaluated.
        distance: The root mean square over pixels of the difference of the scores in units of the
            noise, :math:`\sigma |s - s_k| / \sqrt{D}`; likewise.
    """

    sigmas: tuple[float, ...]
    sizes: tuple[int, ...]
    by: Criterion
    gap: Floats
    distance: Floats

    @property
    def best(self) -> Integers:
        """The best size of each sample at each level."""
        loss = self.gap if self.by == "cosine" else self.distance
        return np.asarray(self.sizes)[np.nanargmin(loss, axis=2)]

    @property
    def evaluations(self) -> int:
        """The number of evaluated sizes, over all samples and levels."""
        return int(np.isfinite(self.gap).sum())

    @property
    def median(self) -> PatchSizes:
        """The median of the best sizes at each level."""
        lower = (self.best.shape[0] - 1) // 2
        return self._sizes(np.sort(self.best, axis=0)[lower])

    @property
    def mode(self) -> PatchSizes:
        """The most frequent of the best sizes at each level."""
        counts = (self.best[:, :, None] == np.asarray(self.sizes)).sum(axis=0)
        return self._sizes(np.asarray(self.sizes)[counts.argmax(axis=1)])

    @property
    def monotone(self) -> PatchSizes:
        """The sizes that are monotone in the noise level and nearest to all best sizes."""
        loss = np.abs(self.best[:, :, None] - np.asarray(self.sizes, dtype=float)).sum(axis=0)
        return self._sizes(np.asarray(self.sizes)[isotonic(loss)])

    def curve(self, level: int) -> dict[int, tuple[Estimate, Estimate]]:
        """Gap and distance by the size at a level: means over samples, where all have been
        evaluated.
        """
        return {
            size: (mean(self.gap[:, level, j]), mean(self.distance[:, level, j]))
            for j, size in enumerate(self.sizes)
            if np.isfinite(self.gap[:, level, j]).all()
        }

    def rows(self) -> list[dict[str, Any]]:
        """One plain record a level and size; means are empty where not all were evaluated."""
        columns = ("cosine", "gap", "gap_se", "distance", "distance_se")
        levels = [
            {
                size: [1 - gap.value, gap.value, gap.standard_error, d.value, d.standard_error]
                for size, (gap, d) in self.curve(level).items()
            }
            for level in range(len(self.sigmas))
        ]
        return [
            {
                "sigma": sigma,
                "size": size,
                "best": int((self.best[:, level] == size).sum()),
                "n": int(np.isfinite(self.gap[:, level, j]).sum()),
                **dict(zip(columns, means.get(size, [""] * len(columns)), strict=True)),
            }
            for level, (sigma, means) in enumerate(zip(self.sigmas, levels, strict=True))
            for j, size in enumerate(self.sizes)
        ]

    def _sizes(self, sizes: Integers) -> PatchSizes:
        return PatchSizes(self.sigmas, tuple(int(size) for size in sizes))


def calibrate_sizes(
    field: ScoreField,
    machine: Callable[[int], ScoreField],
    states: Iterable[State],
    sizes: Sequence[int],
    by: Criterion = "cosine",
    margin: int = 1,
    callback: Callable[[float], object] | None = None,
) -> ScaleCalibration:
    """Find the patch size at which a local score is most similar to a field, by noise level.

    The search begins around the median size of the level below, and goes on until the best size of
    each sample has ``margin`` sizes on both sides that are no better, or the end of the list. If
    the loss falls and then rises with the size, that finds the minimum; a margin as long as the
    list tries all sizes.

    Arguments:
        field: The field, a network's.
        machine: Returns the local score of a patch size, under the same process.
        states: Points at several noise levels, equally many at each, along the field's own
            :func:`~.walk`.
        sizes: The odd sizes to try.
        by: ``"cosine"`` between the scores, or the length of their difference, ``"l2"``.
        margin: The number of sizes on each side of the best one that end the search.
        callback: Called with each noise level that is done.

    Raises:
        ValueError: If a score is zero or not finite.
    """
    states = sorted(states, key=lambda state: state.sigma)
    order = sorted(set(sizes))
    if not states or not order:
        raise UserError("a calibration needs at least one state and one patch size")
    if by not in get_args(Criterion):
        raise UserError(f"scores are compared by {' or '.join(get_args(Criterion))}, not {by!r}")
    check_count("the margin of a search", margin)
    n = len(states[0].x)
    if n < 2:
        raise UserError("a calibration needs at least 2 samples, for an error bar")
    local_score = cache(machine)

    def likeness(state: State, truth: Tensor, rows: Tensor, size: int) -> Floats:
        here = state.x[rows], state.t, classes_at(state.classes, rows)
        values = _likeness(truth[rows], local_score(size).predict_noise(*here))
        if not np.isfinite(values).all():
            raise UserError(
                f"the scores at noise level {state.sigma:g} and of patch size {size} have no "
                f"cosine: one is zero or not finite"
            )
        return values

    tables = np.full((2, n, len(states), len(order)), np.nan)
    start, places = 0, np.arange(len(order))
    with exact(), evaluation_mode(field), torch.no_grad():
        for level, state in enumerate(states):
            truth = field.predict_noise(state.x, state.t, state.classes)
            table = tables[:, :, level]
            loss = table[0 if by == "cosine" else 1]
            best = np.full(n, start)
            while (missing := (abs(places - best[:, None]) <= margin) & np.isnan(loss)).any():
                for j in np.flatnonzero(missing.any(axis=0)):
                    rows = torch.from_numpy(missing[:, j].nonzero()[0]).to(state.x.device)
                    table[:, missing[:, j], j] = likeness(state, truth, rows, order[j])
                best = np.nanargmin(loss, axis=1)
            start = int(np.sort(best)[(n - 1) // 2])
            if callback is not None:
                callback(state.sigma)
    gap, distance = tables
    return ScaleCalibration(tuple(s.sigma for s in states), tuple(order), by, gap, distance)


def isotonic(loss: Floats) -> Integers:
    r"""The non-decreasing indices :math:`j_1 \le j_2 \le \dots` that minimise :math:`\sum_i L_{i
    j_i}`, by dynamic programming; the smallest of several such.

    References:
        Statistical inference under order restrictions (Barlow, Bartholomew, Bremner and Brunk,
        1972), chapter 1.
    """
    total = np.zeros(loss.shape[1])
    before = []
    for row in loss:
        # The first place at which the least total so far is reached.
        least = np.minimum.accumulate(total)
        fresh = np.r_[True, total[1:] < least[:-1]]
        before.append(np.maximum.accumulate(np.where(fresh, np.arange(len(total)), 0)))
        total = least + row
    chosen = [int(total.argmin())]
    for back in before[:0:-1]:
        chosen.append(int(back[chosen[-1]]))
    return np.array(chosen[::-1])


def _likeness(truth: Tensor, found: Tensor) -> Floats:
    """One minus the cosine, without cancellation, and the root mean square difference."""
    u, v = truth.double().flatten(1), found.double().flatten(1)
    unit_u = u / torch.linalg.vector_norm(u, dim=1, keepdim=True)
    unit_v = v / torch.linalg.vector_norm(v, dim=1, keepdim=True)
    gap = (unit_u - unit_v).square().sum(dim=1) / 2
    return torch.stack((gap, (u - v).square().mean(dim=1).sqrt())).cpu().numpy()

"""What a configuration may say about what is minimised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from scorefield.config.section import (
    Count,
    Fraction,
    NonNegative,
    Positive,
    Positives,
    Section,
)
from scorefield.errors import UserError


class LogNormalLaw(Section):
    """:class:`~scorefield.objectives.LogNormal`."""

    kind: Literal["lognormal"]
    mean: float = -1.2
    std: Positive = 1.2


class PlainLaw(Section):
    """:class:`~scorefield.objectives.LogUniform` in the noise level,
    :class:`~scorefield.objectives.UniformTime`, or :class:`~scorefield.objectives.TableLaw` over
    the levels of the table that the field was made for.
    """

    kind: Literal["loguniform", "uniform", "table"]


Law = Annotated[LogNormalLaw | PlainLaw, Field(discriminator="kind")]


Rule = Annotated[str, Field(pattern=r"^(left|midpoint|trapezoid|simpson|gauss-[1-9][0-9]?)$")]


Points = Literal["data", "uniform"]


class AsymmetryTerm(Section):
    """:class:`~scorefield.objectives.Asymmetry`."""

    weight: NonNegative
    variant: Literal["trace", "difference"] = "trace"
    probe: Literal["rademacher", "gaussian"] = "rademacher"
    probes: Count = 1
    rows: Count = 64
    every: Count = 1
    sigma_min: Positive | None = None
    sigma_max: Positive | None = None


class LoopsTerm(Section):
    """:class:`~scorefield.objectives.LoopCirculation`."""

    weight: NonNegative
    radii: Positives = (0.25, 0.5, 1.0)
    sides: Annotated[int, Field(ge=3)] = 4
    quadrature: Rule = "midpoint"
    rows: Count = 16
    every: Count = 1
    sigma_min: Positive | None = None
    sigma_max: Positive | None = None


class Balance(Section):
    """:class:`~scorefield.objectives.BalancedWeight`."""

    ratio: Positive
    max_weight: Positive
    horizon: Positive = 100.0


class CyclesTerm(Section):
    """:class:`~scorefield.objectives.CycleCirculation`; give ``weight``, or ``balance`` for one
    that keeps itself in proportion.
    """

    weight: NonNegative | None = None
    balance: Balance | None = None
    points: Annotated[int, Field(ge=3)] = 128
    cycles: Count = 32
    neighbours: Count = 4
    lengths: Annotated[
        tuple[Annotated[int, Field(ge=3)], ...], Strict(False), Field(min_length=1)
    ] = (3,)
    quadrature: Rule = "gauss-2"
    reach: Positive = 1.0
    every: Count = 1
    sigma_min: Positive | None = None
    sigma_max: Positive | None = None

    @model_validator(mode="after")
    def _consistent(self) -> CyclesTerm:
        if (self.weight is None) == (self.balance is None):
            raise UserError("objective.cycles needs either a weight or a balance, and not both")
        if self.neighbours >= self.points:
            raise UserError(
                f"objective.cycles.neighbours is {self.neighbours}, it must be below "
                f"objective.cycles.points, which is {self.points}"
            )
        return self


class BoundaryTerm(Section):
    """:class:`~scorefield.objectives.BoundaryMatching`; for a hybrid field."""

    weight: NonNegative
    bandwidth: Fraction = 0.1
    rows: Count = 64
    every: Count = 1


class RegressionTerm(Section):
    """:class:`~scorefield.objectives.Regression` to the known law of the data."""

    weight: NonNegative
    weighting: Literal["sigma", "none"] = "sigma"
    points: Points = "data"
    rows: Count = 64
    every: Count = 1
    sigma_min: Positive | None = None
    sigma_max: Positive | None = None


class FokkerPlanckTerm(Section):
    """:class:`~scorefield.objectives.FokkerPlanck`; ``probes: null`` is the exact residual."""

    weight: NonNegative
    form: Literal["gradient", "component"] = "gradient"
    weighting: Literal["sigma", "none"] = "sigma"
    probes: Annotated[int, Field(ge=2, le=1024)] | None = None
    points: Points = "data"
    rows: Count = 64
    every: Count = 1
    sigma_min: Positive | None = None
    sigma_max: Positive | None = None


class ConsistencyTerm(Section):
    """:class:`~scorefield.objectives.Consistency`; with ``guide: oracle`` the known law of the data
    draws the trajectories, and the field itself otherwise.
    """

    weight: NonNegative
    target: Literal["kernel", "martingale"] = "martingale"
    estimator: Literal["single", "pair"] = "pair"
    gradient: Literal["start", "both"] | None = None
    guide: Literal["model", "oracle"] = "model"
    steps: Count = 5
    grid: Annotated[int, Field(ge=2, le=10**6)] = 100
    weighting: Literal["sigma", "none"] = "sigma"
    points: Points = "data"
    rows: Count = 64
    every: Count = 1
    sigma_min: Positive | None = None
    sigma_max: Positive | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ConsistencyTerm:
        if self.grid <= self.steps:
            raise UserError(
                f"objective.consistency.grid is {self.grid}, it must be above "
                f"objective.consistency.steps, which is {self.steps}"
            )
        if self.gradient == "both" and (self.target, self.estimator) != ("martingale", "pair"):
            raise UserError(
                f"objective.consistency.gradient 'both' needs target 'martingale' and estimator "
                f"'pair', they are {self.target!r} and {self.estimator!r}"
            )
        return self


GatedTerm = (
    AsymmetryTerm | LoopsTerm | CyclesTerm | RegressionTerm | FokkerPlanckTerm | ConsistencyTerm
)
"""The regularisers that are evaluated between two noise levels."""
Term = GatedTerm | BoundaryTerm


class ObjectiveSection(Section):
    """Denoising score matching under ``weighting`` and ``law``, and the regularisers given.

    Of a point ``reduction`` takes the mean over coordinates, or half the sum. ``label_dropout`` is
    how often a network that is told classes is not told the class of a point.
    """

    weighting: Literal["edm", "score", "likelihood"] = "edm"
    reduction: Literal["mean", "half_sum"] = "mean"
    label_dropout: Fraction = 0.1
    law: Law = LogNormalLaw(kind="lognormal")
    asymmetry: AsymmetryTerm | None = None
    loops: LoopsTerm | None = None
    cycles: CyclesTerm | None = None
    boundary: BoundaryTerm | None = None
    regression: RegressionTerm | None = None
    fokker_planck: FokkerPlanckTerm | None = None
    consistency: ConsistencyTerm | None = None

    @property
    def terms(self) -> dict[str, Term]:
        """The regularisers given, by their keys."""
        return {name: term for name, term in self if isinstance(term, Term)}

"""What is minimised: denoising score matching, and regularisers."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Strict, model_validator

from scorefield.config.base import (
    Count,
    Fraction,
    NonNegative,
    Positive,
    Positives,
    Section,
    build,
    check_below,
    default_of,
    section,
)
from scorefield.config.custom import Coded, Custom
from scorefield.errors import UserError


class LogNormalLaw(Section):
    """:class:`~.LogNormal`."""

    builds = "scorefield.objectives.denoising:LogNormal"
    kind: Literal["lognormal"]
    mean: float
    std: Positive


class LogUniformLaw(Section):
    """:class:`~.LogUniform`."""

    builds = "scorefield.objectives.denoising:LogUniform"
    kind: Literal["loguniform"]


class UniformLaw(Section):
    """:class:`~.UniformTime`."""

    builds = "scorefield.objectives.denoising:UniformTime"
    kind: Literal["uniform"]


class TableLaw(Section):
    """:class:`~scorefield.objectives.denoising.TableLaw`, over the table of the field."""

    builds = "scorefield.objectives.denoising:TableLaw"
    kind: Literal["table"]


Law = Annotated[LogNormalLaw | LogUniformLaw | UniformLaw | TableLaw, Field(discriminator="kind")]

Rule = Annotated[str, Field(pattern=r"^(left|midpoint|trapezoid|simpson|gauss-[1-9][0-9]?)$")]
Points = Literal["data", "uniform"]


class Term(Section):
    """A regulariser."""

    weight: NonNegative | None


class AsymmetryTerm(Term):
    """:class:`~.Asymmetry`."""

    builds = "scorefield.objectives.curl:Asymmetry"
    weight: NonNegative
    variant: Literal["trace", "difference"]
    probe: Literal["rademacher", "gaussian"]
    probes: Count
    rows: Count
    every: Count
    sigma_min: Positive | None
    sigma_max: Positive | None


class LoopsTerm(Term):
    """:class:`~.LoopCirculation`."""

    builds = "scorefield.objectives.curl:LoopCirculation"
    weight: NonNegative
    radii: Positives
    sides: Annotated[int, Field(ge=3)]
    quadrature: Rule
    rows: Count
    every: Count
    sigma_min: Positive | None
    sigma_max: Positive | None


class Balance(Section):
    """:class:`~.BalancedWeight`."""

    builds = "scorefield.objectives.regularizer:BalancedWeight"
    ratio: Positive
    max_weight: Positive
    horizon: Positive


class CyclesTerm(Term):
    """:class:`~.CycleCirculation`; give ``weight``, or ``balance`` for one
    that keeps itself in proportion.
    """

    builds = "scorefield.objectives.curl:CycleCirculation"
    weight: NonNegative | None = None
    balance: Balance | None = None
    points: Annotated[int, Field(ge=3)]
    cycles: Count
    neighbours: Count
    lengths: Annotated[tuple[Annotated[int, Field(ge=3)], ...], Strict(False), Field(min_length=1)]
    quadrature: Rule
    reach: Positive
    every: Count
    sigma_min: Positive | None
    sigma_max: Positive | None

    @model_validator(mode="after")
    def _consistent(self) -> CyclesTerm:
        if (self.weight is None) == (self.balance is None):
            raise UserError("objective.cycles needs either a weight or a balance, and not both")
        where = "objective.cycles"
        check_below(f"{where}.neighbours", self.neighbours, f"{where}.points", self.points)
        return self

    def settings(self) -> dict[str, Any]:
        from scorefield.objectives.regularizer import BalancedWeight

        found = super().settings()
        balance = found.pop("balance")
        if balance is not None:
            found["weight"] = build(balance, "objective.cycles.balance", BalancedWeight)
        return found


class BoundaryTerm(Term):
    """:class:`~.BoundaryMatching`; for a hybrid field."""

    builds = "scorefield.objectives.regression:BoundaryMatching"
    weight: NonNegative
    bandwidth: Fraction
    rows: Count
    every: Count


class RegressionTerm(Term):
    """:class:`~.Regression` to the exact score of the data."""

    builds = "scorefield.objectives.regression:Regression"
    weight: NonNegative
    weighting: Literal["sigma", "none"]
    points: Points
    rows: Count
    every: Count
    sigma_min: Positive | None
    sigma_max: Positive | None


class FokkerPlanckTerm(Term):
    """:class:`~.FokkerPlanck`; ``probes: null`` is the exact residual."""

    builds = "scorefield.objectives.fokker_planck:FokkerPlanck"
    weight: NonNegative
    form: Literal["gradient", "component"]
    weighting: Literal["sigma", "none"]
    probes: Annotated[int, Field(ge=2, le=1024)] | None
    points: Points
    rows: Count
    every: Count
    sigma_min: Positive | None
    sigma_max: Positive | None


class DualTerm(Term):
    """:class:`~.DualScoreMatching`; for the gradient of a potential."""

    builds = "scorefield.objectives.dual:DualScoreMatching"
    weight: NonNegative
    rows: Count
    every: Count
    sigma_min: Positive | None
    sigma_max: Positive | None


class ConsistencyTerm(Term):
    """:class:`~.Consistency`; with ``guide: oracle`` the exact score of the data
    draws the trajectories, and the field itself otherwise.
    """

    builds = "scorefield.objectives.consistency:Consistency"
    internal = ("guide",)
    weight: NonNegative
    target: Literal["kernel", "martingale"]
    estimator: Literal["single", "pair"]
    gradient: Literal["start", "both"] | None
    guide: Literal["model", "oracle"] = "model"
    steps: Count
    grid: Annotated[int, Field(ge=2, le=10**6)]
    weighting: Literal["sigma", "none"]
    points: Points
    rows: Count
    every: Count
    sigma_min: Positive | None
    sigma_max: Positive | None

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


class AugmentationSection(Section):
    """:class:`~.Augmentation` of training images."""

    builds = "scorefield.objectives.augmentation:Augmentation"
    probability: Annotated[float, Field(ge=0, le=1)]


class TeacherSection(Coded):
    """The field whose score takes the place of the noise as the target: :class:`~.Distillation`.

    ``run`` is the folder of a training. Its newest checkpoint when the configuration is read is the
    ``step`` that is filled in, and ``sha256`` the hash of the averaged weights in it: others are
    refused.
    """

    MISSING: ClassVar[str] = (
        "objective.teacher.run is not given: it is the folder of the run whose field is distilled, "
        "as in objective.teacher.run=runs/toy/m0/seed0"
    )

    run: str | None = None
    step: Count | None = None
    sha256: str | None = None


class ObjectiveSection(Section):
    """:class:`~.DenoisingScoreMatching` under ``weighting`` and ``law``, and
    the regularisers given.

    Of a point ``reduction`` takes the mean over coordinates, or half the sum. ``pairing`` is how
    the noise of a batch is assigned to its points. ``label_dropout`` is the probability that a
    network with classes does not receive the class of a point. ``augmentation`` is for networks
    that receive its labels, those of the kinds ``song`` and ``adm``. With a ``teacher`` the
    field is fitted to another one.
    """

    builds = "scorefield.objectives.denoising:DenoisingScoreMatching"
    weighting: Literal["edm", "score", "likelihood", "velocity"]
    pairing: Literal["independent", "transport"]
    reduction: Literal["mean", "half_sum"]
    label_dropout: Fraction = default_of(
        "scorefield.objectives.objective:Objective", "label_dropout"
    )
    law: Law = section(kind="lognormal")
    augmentation: AugmentationSection | None = None
    teacher: TeacherSection | None = None
    asymmetry: AsymmetryTerm | None = None
    loops: LoopsTerm | None = None
    cycles: CyclesTerm | None = None
    boundary: BoundaryTerm | None = None
    regression: RegressionTerm | None = None
    fokker_planck: FokkerPlanckTerm | None = None
    dual: DualTerm | None = None
    consistency: ConsistencyTerm | None = None
    custom: dict[str, Custom] = Field(default={})

    @property
    def terms(self) -> dict[str, Term | Custom]:
        """The regularisers given, by their keys."""
        own = {name: term for name, term in self if isinstance(term, Term)}
        return own | {f"custom.{name}": term for name, term in self.custom.items()}

"""What is minimised: denoising score matching, and regularisers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, Strict, model_validator

from scorefield.config.base import (
    Count,
    Fraction,
    NonNegative,
    Positive,
    Positives,
    Section,
    build,
    default_of,
    section,
)
from scorefield.config.custom import Custom
from scorefield.config.field import Model, sigma_data, table_length
from scorefield.config.sde import Process, build_sde
from scorefield.errors import ConfigError, UserError, section_of

if TYPE_CHECKING:
    from scorefield.data import DataSource
    from scorefield.fields import ScoreField
    from scorefield.objectives import Objective, Regularizer
    from scorefield.sde import SDE


class LogNormalLaw(Section):
    """:class:`~scorefield.objectives.LogNormal`."""

    builds = "scorefield.objectives.denoising:LogNormal"
    kind: Literal["lognormal"]
    mean: float
    std: Positive


class LogUniformLaw(Section):
    """:class:`~scorefield.objectives.LogUniform`."""

    builds = "scorefield.objectives.denoising:LogUniform"
    kind: Literal["loguniform"]


class UniformLaw(Section):
    """:class:`~scorefield.objectives.UniformTime`."""

    builds = "scorefield.objectives.denoising:UniformTime"
    kind: Literal["uniform"]


class TableLaw(Section):
    """:class:`~scorefield.objectives.TableLaw`, over the table that the field is made for."""

    builds = "scorefield.objectives.denoising:TableLaw"
    kind: Literal["table"]


Law = Annotated[LogNormalLaw | LogUniformLaw | UniformLaw | TableLaw, Field(discriminator="kind")]

Rule = Annotated[str, Field(pattern=r"^(left|midpoint|trapezoid|simpson|gauss-[1-9][0-9]?)$")]
Points = Literal["data", "uniform"]


class Term(Section):
    """A regulariser."""

    weight: NonNegative | None


class AsymmetryTerm(Term):
    """:class:`~scorefield.objectives.Asymmetry`."""

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
    """:class:`~scorefield.objectives.LoopCirculation`."""

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
    """:class:`~scorefield.objectives.BalancedWeight`."""

    builds = "scorefield.objectives.regularizer:BalancedWeight"
    ratio: Positive
    max_weight: Positive
    horizon: Positive


class CyclesTerm(Term):
    """:class:`~scorefield.objectives.CycleCirculation`; give ``weight``, or ``balance`` for one
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
        if self.neighbours >= self.points:
            raise UserError(
                f"objective.cycles.neighbours is {self.neighbours}, it must be below "
                f"objective.cycles.points, which is {self.points}"
            )
        return self

    def settings(self) -> dict[str, Any]:
        from scorefield.objectives import BalancedWeight

        found = super().settings()
        balance = found.pop("balance")
        if balance is not None:
            found["weight"] = build(balance, "objective.cycles.balance", BalancedWeight)
        return found


class BoundaryTerm(Term):
    """:class:`~scorefield.objectives.BoundaryMatching`; for a hybrid field."""

    builds = "scorefield.objectives.regression:BoundaryMatching"
    weight: NonNegative
    bandwidth: Fraction
    rows: Count
    every: Count


class RegressionTerm(Term):
    """:class:`~scorefield.objectives.Regression` to the known law of the data."""

    builds = "scorefield.objectives.regression:Regression"
    weight: NonNegative
    weighting: Literal["sigma", "none"]
    points: Points
    rows: Count
    every: Count
    sigma_min: Positive | None
    sigma_max: Positive | None


class FokkerPlanckTerm(Term):
    """:class:`~scorefield.objectives.FokkerPlanck`; ``probes: null`` is the exact residual."""

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


class ConsistencyTerm(Term):
    """:class:`~scorefield.objectives.Consistency`; with ``guide: oracle`` the known law of the data
    draws the trajectories, and the field itself otherwise.
    """

    builds = "scorefield.objectives.consistency:Consistency"
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

    def settings(self) -> dict[str, Any]:
        return {key: value for key, value in super().settings().items() if key != "guide"}


class CustomTerm(Custom):
    """A :class:`~scorefield.objectives.Regularizer` of the user's own."""

    @property
    def every(self) -> Any:
        """The number of steps from one evaluation to the next."""
        return self.arguments.get("every", 1)


class ObjectiveSection(Section):
    """:class:`~scorefield.objectives.DenoisingScoreMatching` under ``weighting`` and ``law``, and
    the regularisers given.

    Of a point ``reduction`` takes the mean over coordinates, or half the sum. ``label_dropout`` is
    the probability that a network with classes does not receive the class of a point.
    """

    builds = "scorefield.objectives.denoising:DenoisingScoreMatching"
    weighting: Literal["edm", "score", "likelihood"]
    reduction: Literal["mean", "half_sum"]
    label_dropout: Fraction = default_of(
        "scorefield.objectives.objective:Objective", "label_dropout"
    )
    law: Law = section(kind="lognormal")
    asymmetry: AsymmetryTerm | None = None
    loops: LoopsTerm | None = None
    cycles: CyclesTerm | None = None
    boundary: BoundaryTerm | None = None
    regression: RegressionTerm | None = None
    fokker_planck: FokkerPlanckTerm | None = None
    consistency: ConsistencyTerm | None = None
    custom: dict[str, CustomTerm] = Field(default={})

    @property
    def terms(self) -> dict[str, Term | CustomTerm]:
        """The regularisers given, by their keys."""
        own = {name: term for name, term in self if isinstance(term, Term)}
        return own | {f"custom.{name}": term for name, term in self.custom.items()}


def build_objective(
    section: ObjectiveSection, model: Model, process: Process, source: DataSource
) -> Objective:
    """Denoising score matching with the regularisers given.

    Arguments:
        section: Its section.
        model: The section of the field.
        process: The section of the forward process.
        source: The data.

    Raises:
        ConfigError: If a regulariser lies outside the noise levels of the process.
    """
    from scorefield.objectives import DenoisingScoreMatching, NoiseLaw, Objective

    sde = build_sde(process)
    law = build(section.law, "objective.law", NoiseLaw, levels=table_length(model, process))
    # The spread of the data is computed only where it matters: that reads them.
    spread = sigma_data(model, source) if section.weighting == "edm" else None
    with section_of("objective"):
        base = DenoisingScoreMatching(section.weighting, law, spread, section.reduction)
    terms = [_regularizer(f"objective.{name}", t, source, sde) for name, t in section.terms.items()]
    return Objective(base, terms, section.label_dropout)


def _regularizer(where: str, term: Term | CustomTerm, source: DataSource, sde: SDE) -> Regularizer:
    from scorefield.objectives import Regularizer

    low = getattr(term, "sigma_min", None) or sde.sigma_min
    high = getattr(term, "sigma_max", None) or sde.sigma_max
    if not sde.sigma_min <= low < high <= sde.sigma_max:
        raise ConfigError(
            f"{where} is evaluated at noise levels from {low:g} to {high:g}, they must be in order "
            f"and within the process's {sde.sigma_min:g} to {sde.sigma_max:g}"
        )
    known = {}
    if isinstance(term, RegressionTerm):
        known["oracle"] = _oracle(where, source, sde)
    if isinstance(term, ConsistencyTerm) and term.guide == "oracle":
        known["guide"] = _oracle(f"{where}.guide", source, sde)
    return build(term, where, Regularizer, **known)


def _oracle(where: str, source: DataSource, sde: SDE) -> ScoreField:
    """The exact score of the data, where their distribution is known."""
    if source.truth is None:
        raise ConfigError(f"{where} needs data whose law is known, that of {source.name} is not")
    return source.truth.under(sde)

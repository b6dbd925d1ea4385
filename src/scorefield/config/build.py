"""From the sections of a configuration to the objects that they describe."""

from __future__ import annotations

from scorefield.config import config as c
from scorefield.config import model as m
from scorefield.config import objective_section as o
from scorefield.config.build_network import build_network
from scorefield.data import DataSource, TargetSource, digits, image_source
from scorefield.errors import ConfigError, section_of
from scorefield.fields import (
    EDMScaling,
    HybridField,
    IndexLabel,
    Label,
    LogNoiseLabel,
    NoisePrediction,
    Parametrization,
    PotentialField,
    PreconditionedField,
    ScoreField,
    ScorePrediction,
    SigmaLabel,
    TimeLabel,
)
from scorefield.objectives import (
    Asymmetry,
    BalancedWeight,
    BoundaryMatching,
    Consistency,
    CycleCirculation,
    DenoisingScoreMatching,
    FokkerPlanck,
    LogNormal,
    LogUniform,
    LoopCirculation,
    NoiseLaw,
    Objective,
    Regression,
    Regularizer,
    TableLaw,
    UniformTime,
)
from scorefield.sde import EDM, SDE, VE, VP, Cosine, DiscreteVP, SubVP
from scorefield.targets import GaussianMixture, PseudoAtoms

_STEPS = 1000


def build_source(config: c.Config) -> DataSource:
    """The data; a known law lives under the configuration's process."""
    match config.data:
        case m.RingData() as ring:
            sde = build_sde(config.sde)
            with section_of("data"):
                target = GaussianMixture.ring(ring.modes, ring.radius, ring.std, sde)
                return TargetSource(target, "ring")
        case m.AtomsData() as atoms:
            sde = build_sde(config.sde)
            with section_of("data"):
                law = PseudoAtoms(atoms.positions, atoms.std, atoms.period, sde)
                return TargetSource(law, "atoms")
        case m.DigitsData():
            return digits()
        case m.ImagesData() as images:
            with section_of("data"):
                return image_source(**images.model_dump(exclude={"kind"}))


def build_sde(process: m.Process) -> SDE:
    """The forward process."""
    settings = process.model_dump(exclude={"kind"})
    kinds: dict[str, type[SDE]] = {
        "edm": EDM,
        "ve": VE,
        "vp": VP,
        "subvp": SubVP,
        "discrete_vp": DiscreteVP,
        "cosine": Cosine,
    }
    with section_of("sde"):
        return kinds[process.kind](**settings)


def build_field(config: c.Config, source: DataSource) -> ScoreField:
    """The untrained field; its weights are a function of the configuration's seed.

    Raises:
        ConfigError: If the field does not fit the data or the process.
    """
    model, sde = config.field, build_sde(config.sde)
    scaling = _parametrization(config, source)
    domain = None if source.truth is None else source.truth.domain
    match model:
        case m.PreconditionedModel():
            network = build_network(config, "field.network", source, config.seed, None)
            return PreconditionedField(network, sde, parametrization=scaling, domain=domain)
        case m.PotentialModel():
            network = build_network(config, "field.network", source, config.seed, model.head)
            return PotentialField(network, sde, None, scaling, domain, model.head)
        case m.HybridModel():
            _check_boundary(model, sde)
            # The two networks start from unrelated weights.
            seed = -1 - config.seed
            low = build_network(config, "field.low_network", source, seed, model.head)
            high = build_network(config, "field.network", source, config.seed, None)
            return HybridField(
                PotentialField(low, sde, None, scaling, domain, model.head),
                PreconditionedField(high, sde, parametrization=scaling, domain=domain),
                model.sigma_c,
            )


def build_objective(config: c.Config, source: DataSource) -> Objective:
    """Denoising score matching with the regularisers of the configuration.

    Raises:
        ConfigError: If a regulariser lies outside the noise levels of the process.
    """
    section, sde = config.objective, build_sde(config.sde)
    with section_of("objective"):
        # The spread of the data is asked for only where it matters: that reads them.
        spread = sigma_data(config.field, source) if section.weighting == "edm" else None
        law = _law(section.law, config.levels)
        base = DenoisingScoreMatching(section.weighting, law, spread, section.reduction)
    terms = [_regularizer(name, term, source, sde) for name, term in section.terms.items()]
    return Objective(base, terms, section.label_dropout)


def _regularizer(name: str, term: o.Term, source: DataSource, sde: SDE) -> Regularizer:
    if not isinstance(term, o.BoundaryTerm):
        _check_gate(name, term, sde)
    settings = term.model_dump(exclude={"balance", "guide"})
    match term:
        case o.AsymmetryTerm():
            return Asymmetry(**settings)
        case o.LoopsTerm():
            return LoopCirculation(**settings)
        case o.CyclesTerm():
            if term.balance is not None:
                settings["weight"] = BalancedWeight(**term.balance.model_dump())
            return CycleCirculation(**settings)
        case o.BoundaryTerm():
            return BoundaryMatching(**settings)
        case o.RegressionTerm():
            return Regression(oracle=_oracle("objective.regression", source, sde), **settings)
        case o.FokkerPlanckTerm():
            return FokkerPlanck(**settings)
        case o.ConsistencyTerm():
            asked = term.guide == "oracle"
            guide = _oracle("objective.consistency.guide", source, sde) if asked else None
            return Consistency(guide=guide, **settings)


def _oracle(where: str, source: DataSource, sde: SDE) -> ScoreField:
    """The exact score of the data, where their law is known."""
    if source.truth is None:
        raise ConfigError(f"{where} needs data whose law is known, that of {source.name} is not")
    return source.truth.under(sde)


def sigma_data(model: m.Model, source: DataSource) -> float:
    """The standard deviation that a field is scaled by: as configured, or that of the data."""
    return source.std if model.sigma_data is None else model.sigma_data


def _parametrization(config: c.Config, source: DataSource) -> Parametrization:
    model = config.field
    with section_of("field"):
        label = _label(config)
        match model.parametrization:
            case "edm":
                return EDMScaling(sigma_data(model, source), label)
            case "noise":
                return NoisePrediction(label)
            case "score":
                return ScorePrediction(label)


def _label(config: c.Config) -> Label:
    match config.field.label:
        case "lognoise":
            return LogNoiseLabel()
        case "sigma":
            return SigmaLabel()
        case "time":
            steps = config.sde.levels if isinstance(config.sde, m.TableProcess) else _STEPS
            return TimeLabel(float(steps - 1))
        case "unit_time":
            return TimeLabel(1.0)
        case "index":
            assert config.field.levels is not None
            return IndexLabel(config.field.levels)


def _law(law: o.Law, levels: int | None) -> NoiseLaw:
    match law:
        case o.LogNormalLaw():
            return LogNormal(law.mean, law.std)
        case o.PlainLaw(kind="loguniform"):
            return LogUniform()
        case o.PlainLaw(kind="table"):
            assert levels is not None
            return TableLaw(levels)
        case _:
            return UniformTime()


def _check_boundary(model: m.HybridModel, sde: SDE) -> None:
    if not sde.sigma_min < model.sigma_c < sde.sigma_max:
        raise ConfigError(
            f"field.sigma_c is {model.sigma_c:g}, it must lie between the noise levels "
            f"{sde.sigma_min:g} and {sde.sigma_max:g} of the process"
        )


def _check_gate(name: str, term: o.GatedTerm, sde: SDE) -> None:
    low = sde.sigma_min if term.sigma_min is None else term.sigma_min
    high = sde.sigma_max if term.sigma_max is None else term.sigma_max
    if not sde.sigma_min <= low < high <= sde.sigma_max:
        raise ConfigError(
            f"objective.{name} is evaluated at noise levels from {low:g} to {high:g}, they must "
            f"be in order and within the process's {sde.sigma_min:g} to {sde.sigma_max:g}"
        )

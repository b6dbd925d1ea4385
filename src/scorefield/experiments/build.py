"""From the sections of a configuration to the objects that they describe."""

from __future__ import annotations

from scorefield.data import DataSource, TargetSource, digits, image_source
from scorefield.experiments import config as c
from scorefield.experiments import model as m
from scorefield.experiments.build_network import build_network
from scorefield.experiments.errors import ConfigError, section_of
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
    CycleCirculation,
    DenoisingScoreMatching,
    LogNormal,
    LogUniform,
    LoopCirculation,
    NoiseLaw,
    Objective,
    Regularizer,
    TableLaw,
    UniformTime,
)
from scorefield.sde import EDM, SDE, VE, VP, Cosine, DiscreteVP, SubVP
from scorefield.targets import GaussianMixture

_STEPS = 1000


def build_source(config: c.Config) -> DataSource:
    """The data; a known law lives under the configuration's process."""
    match config.data:
        case m.RingData() as ring:
            sde = build_sde(config.sde)
            with section_of("data"):
                target = GaussianMixture.ring(ring.modes, ring.radius, ring.std, sde)
                return TargetSource(target, "ring")
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
    plain = PreconditionedField
    match model:
        case m.PreconditionedModel():
            network = build_network(config, "field.network", source, config.seed, None)
            return plain(network, sde, parametrization=scaling)
        case m.PotentialModel():
            network = build_network(config, "field.network", source, config.seed, model.head)
            return PotentialField(network, sde, parametrization=scaling, head=model.head)
        case m.HybridModel():
            _check_boundary(model, sde)
            # The two networks start from unrelated weights.
            seed = -1 - config.seed
            low = build_network(config, "field.low_network", source, seed, model.head)
            high = build_network(config, "field.network", source, config.seed, None)
            return HybridField(
                PotentialField(low, sde, parametrization=scaling, head=model.head),
                plain(high, sde, parametrization=scaling),
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
    terms: list[Regularizer] = []
    if (asymmetry := section.asymmetry) is not None:
        _check_gate("asymmetry", asymmetry, sde)
        terms.append(Asymmetry(**asymmetry.model_dump()))
    if (loops := section.loops) is not None:
        _check_gate("loops", loops, sde)
        terms.append(LoopCirculation(**loops.model_dump()))
    if (cycles := section.cycles) is not None:
        _check_gate("cycles", cycles, sde)
        settings = cycles.model_dump(exclude={"balance"})
        if cycles.balance is not None:
            settings["weight"] = BalancedWeight(**cycles.balance.model_dump())
        terms.append(CycleCirculation(**settings))
    if (boundary := section.boundary) is not None:
        terms.append(BoundaryMatching(**boundary.model_dump()))
    return Objective(base, terms, section.label_dropout)


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


def _law(law: c.Law, levels: int | None) -> NoiseLaw:
    match law:
        case c.LogNormalLaw():
            return LogNormal(law.mean, law.std)
        case c.PlainLaw(kind="loguniform"):
            return LogUniform()
        case c.PlainLaw(kind="table"):
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


def _check_gate(name: str, term: c.AsymmetryTerm | c.LoopsTerm | c.CyclesTerm, sde: SDE) -> None:
    low = sde.sigma_min if term.sigma_min is None else term.sigma_min
    high = sde.sigma_max if term.sigma_max is None else term.sigma_max
    if not sde.sigma_min <= low < high <= sde.sigma_max:
        raise ConfigError(
            f"objective.{name} is evaluated at noise levels from {low:g} to {high:g}, they must "
            f"be in order and within the process's {sde.sigma_min:g} to {sde.sigma_max:g}"
        )

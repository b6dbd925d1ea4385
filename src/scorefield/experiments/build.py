"""From the sections of a configuration to the objects that they describe."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from scorefield.data import DataSource, TargetSource, digits
from scorefield.experiments import config as c
from scorefield.experiments import model as m
from scorefield.experiments.errors import ConfigError
from scorefield.fields import (
    EDMScaling,
    HybridField,
    NoisePrediction,
    Parametrization,
    PotentialField,
    PreconditionedField,
    ScoreField,
    ScorePrediction,
)
from scorefield.networks import MLP, UNet
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
    UniformTime,
)
from scorefield.samplers import Euler, Heun, Sampler
from scorefield.sde import EDM, SDE, VE, VP, Cosine, SubVP
from scorefield.targets import GaussianMixture


def build_source(config: c.Config) -> DataSource:
    """The data; a known law lives under the configuration's process."""
    match config.data:
        case m.RingData() as ring:
            sde = build_sde(config.sde)
            with _section("data"):
                target = GaussianMixture.ring(ring.modes, ring.radius, ring.std, sde)
                return TargetSource(target, "ring")
        case m.DigitsData():
            return digits()


def build_sde(process: m.Process) -> SDE:
    """The forward process."""
    settings = process.model_dump(exclude={"kind"})
    kinds: dict[str, type[SDE]] = {
        "edm": EDM,
        "ve": VE,
        "vp": VP,
        "subvp": SubVP,
        "cosine": Cosine,
    }
    with _section("sde"):
        return kinds[process.kind](**settings)


def build_field(config: c.Config, source: DataSource) -> ScoreField:
    """The untrained field; its weights are a function of the configuration's seed.

    Raises:
        ConfigError: If the field does not fit the data or the process.
    """
    model, sde = config.field, build_sde(config.sde)
    scaling = _parametrization(model, source)
    plain = PreconditionedField
    match model:
        case m.PreconditionedModel():
            network = _network("field.network", model.network, source, config.seed, None)
            return plain(network, sde, parametrization=scaling)
        case m.PotentialModel():
            network = _network("field.network", model.network, source, config.seed, model.head)
            return PotentialField(network, sde, parametrization=scaling, head=model.head)
        case m.HybridModel():
            _check_boundary(model, sde)
            # The two networks start from unrelated weights.
            seed = -1 - config.seed
            low = _network("field.low_network", model.low_network, source, seed, model.head)
            high = _network("field.network", model.network, source, config.seed, None)
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
    with _section("objective"):
        base = DenoisingScoreMatching(
            section.weighting, _law(section.law), sigma_data(config.field, source)
        )
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
    return Objective(base, terms)


def build_sampler(section: c.SamplerSection) -> Sampler:
    """The sampler."""
    settings = section.model_dump(exclude={"kind"})
    if settings["churn_max"] is None:
        settings["churn_max"] = math.inf
    kinds: dict[str, type[Sampler]] = {"euler": Euler, "heun": Heun}
    with _section("sampler"):
        return kinds[section.kind](**settings)


def sigma_data(model: m.Model, source: DataSource) -> float:
    """The standard deviation that a field is scaled by: as configured, or that of the data."""
    return source.std if model.sigma_data is None else model.sigma_data


def _parametrization(model: m.Model, source: DataSource) -> Parametrization:
    with _section("field"):
        match model.parametrization:
            case "edm":
                return EDMScaling(sigma_data(model, source))
            case "noise":
                return NoisePrediction()
            case "score":
                return ScorePrediction()


def _network(
    where: str, network: m.Network, source: DataSource, seed: int, head: str | None
) -> nn.Module:
    """A backbone; ``head`` is that of the potential it is for, if it is for one."""
    with _section(where):
        match network:
            case m.MLPNetwork():
                # A sum over several outputs is no more than one output.
                outputs = 1 if head == "sum" else None
                settings = network.model_dump(exclude={"kind"})
                return MLP(math.prod(source.shape), **settings, outputs=outputs, seed=seed)
            case m.UNetNetwork():
                return UNet(source.shape, **network.model_dump(exclude={"kind"}), seed=seed)


def _law(law: c.Law) -> NoiseLaw:
    match law:
        case c.LogNormalLaw():
            return LogNormal(law.mean, law.std)
        case c.PlainLaw(kind="loguniform"):
            return LogUniform()
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


@contextmanager
def _section(where: str) -> Iterator[None]:
    """Says of an argument that a class refuses where the configuration has it."""
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, ArithmeticError) as error:
        raise ConfigError(f"{where}: {error}") from error

"""From a configuration to the objects that it describes."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from scorefield.config.base import build
from scorefield.config.config import Config
from scorefield.config.custom import Custom
from scorefield.config.field import (
    HybridModel,
    Network,
    PreconditionedModel,
    ResidualNetwork,
)
from scorefield.config.objective import (
    ConsistencyTerm,
    DualTerm,
    ObjectiveSection,
    RegressionTerm,
    TeacherSection,
    Term,
)
from scorefield.config.sampler import SamplerSection
from scorefield.config.sde import Process, TableProcess, VEProcess
from scorefield.config.teacher import load as load_teacher
from scorefield.data.images import ImageSource
from scorefield.data.source import DataSource, TargetSource
from scorefield.domain import Domain, Euclidean
from scorefield.engine import Engine
from scorefield.errors import ConfigError, section_of
from scorefield.fields.base import ScoreField
from scorefield.fields.composed import HybridField
from scorefield.fields.labels import IndexLabel, Label, LogNoiseLabel, SigmaLabel, TimeLabel
from scorefield.fields.parametrization import (
    DenoiserPrediction,
    EDMScaling,
    EnergyScaling,
    NoisePrediction,
    Parametrization,
    ScorePrediction,
    VelocityPrediction,
    VPrediction,
)
from scorefield.fields.potential import PotentialField
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.objectives.augmentation import Augmentation
from scorefield.objectives.denoising import DenoisingScoreMatching, NoiseLaw
from scorefield.objectives.distillation import Distillation
from scorefield.objectives.objective import Objective
from scorefield.objectives.regularizer import Regularizer
from scorefield.samplers.base import Sampler
from scorefield.samplers.predictor_corrector import PredictorCorrector
from scorefield.sde.base import SDE
from scorefield.targets.base import Target
from scorefield.training.settings import Optim, TrainSettings

_STEPS = 1000


def build_sde(process: Process) -> SDE:
    """The forward process."""
    return build(process, "sde", SDE)


def build_source(config: Config) -> DataSource:
    """The data; a known distribution is diffused by the configuration's process."""
    data = config.data
    match build(data, "data", object, sde=build_sde(config.sde)):
        case DataSource() as source:
            return source
        case Target() as target:
            return TargetSource(target, data.target if isinstance(data, Custom) else data.kind)
        case other:
            raise ConfigError(
                f"data makes a {type(other).__name__}, it must make a DataSource or a Target"
            )


def build_field(config: Config, source: DataSource, device: str | None = None) -> ScoreField:
    """The untrained field; its weights are a function of the configuration's seed. On the device
    ``meta`` it has none, and takes no memory.

    Raises:
        ConfigError: If the field does not fit the data or the process.
    """
    model, sde = config.field, build_sde(config.sde)
    scaling = _parametrization(config, source)
    domain = _domain(source)
    known = {"centered": config.centered, "device": device, **_table(config)}
    known["augmented"] = config.objective.augmentation is not None
    if hasattr(config.data, "period"):
        known["period"] = config.data.period

    def plain(seed: int) -> PreconditionedField:
        network = _network(model.network, "field.network", source, seed=seed, **known)
        return PreconditionedField(network, sde, parametrization=scaling, domain=domain)

    def potential(key: str, network: Network, head: Any, seed: int) -> PotentialField:
        # A sum over several outputs is no more than one output.
        outputs = 1 if head == "sum" else None
        backbone = _network(network, key, source, seed=seed, outputs=outputs, **known)
        return PotentialField(backbone, sde, None, scaling, domain, head)

    if isinstance(model, PreconditionedModel):
        return plain(config.seed)
    if not isinstance(model, HybridModel):
        return potential("field.network", model.network, model.head, config.seed)
    least, most = sde.level_range
    if not least < model.sigma_c < most:
        raise ConfigError(
            f"field.sigma_c is {model.sigma_c:g}, it must lie between the noise levels "
            f"{least:g} and {most:g} of the process"
        )
    # The two networks start from unrelated weights.
    low = potential("field.low_network", model.low, model.head, -1 - config.seed)
    return HybridField(low, plain(config.seed), model.sigma_c)


def base_loss(section: ObjectiveSection) -> type[DenoisingScoreMatching]:
    """The class of the base loss, whose name is that of its column in the metrics."""
    return DenoisingScoreMatching if section.teacher is None else Distillation


def build_objective(config: Config, source: DataSource) -> Objective:
    """Denoising score matching, or the distillation of a teacher, with the regularisers of the
    configuration.

    Raises:
        ConfigError: If a regulariser lies outside the noise levels of the process, or the teacher
            cannot be read or is a field of something else.
    """
    section = config.objective
    law = build(section.law, "objective.law", NoiseLaw, levels=config.levels)
    # The spread of the data is computed only where it matters: that reads them.
    spread = _sigma_data(config, source) if section.weighting == "edm" else None
    with section_of("objective"):
        known: dict[str, Any] = {"pairing": section.pairing}
        if section.teacher is not None:
            known = {"teacher": _teacher(section.teacher, config, source)}
        base = base_loss(section)(section.weighting, law, spread, section.reduction, **known)
    terms = [
        _regularizer(f"objective.{name}", t, config, source) for name, t in section.terms.items()
    ]
    augmentation = None
    if section.augmentation is not None:
        augmentation = build(section.augmentation, "objective.augmentation", Augmentation)
    return Objective(base, terms, section.label_dropout, augmentation)


def build_engine(config: Config, **chosen: Any) -> Engine:
    """The engine, but for the values ``chosen`` in place of the configuration's.

    Raises:
        UserError: If a value is wrong; whether this machine has the device is not checked.
    """
    return replace(build(config.engine, "engine", Engine), **chosen)


def build_training(config: Config) -> tuple[Optim, TrainSettings]:
    """The optimiser, and the length of the training with what it leaves behind."""
    optim = build(config.optim, "optim", Optim)
    return optim, build(config.train, "train", TrainSettings)


def build_sampler(section: SamplerSection) -> Sampler:
    """The sampler.

    Raises:
        ConfigError: If it refuses a value.
    """
    return build(section, "sampler", Sampler)


def check_sampler(section: SamplerSection, sde: SDE) -> None:
    """Builds the sampler and compares it with a process.

    Raises:
        ConfigError: If it refuses a value, or does not fit the process.
    """
    sampler = build_sampler(section)
    end = getattr(section, "t_end", None)
    if end is not None and not sde.t_min <= end < sde.t_max:
        raise ConfigError(
            f"sampler.t_end is {end:g}, it must lie in [{sde.t_min:g}, {sde.t_max:g}), the times "
            f"of the process"
        )
    if not isinstance(sampler, PredictorCorrector):
        return
    t = torch.tensor([sde.t_max], dtype=torch.float64)
    with section_of("sampler"):
        forward = sampler.discretization.step(sde, t, None)
        if sampler.predictor is not None:
            sampler.predictor.reverse(sde, t, None, sampler.discretization)
        if sampler.corrector is not None:
            sampler.corrector.scale(sde, t, forward)


def _network(
    network: Network, where: str, source: DataSource, *, device: str | None, **known: Any
) -> nn.Module:
    known |= {"shape": source.shape, "dim": math.prod(source.shape)}
    if getattr(network, "classes", False):
        if source.classes is None:
            notes = source.notes if isinstance(source, ImageSource) else ()
            told = "; ".join((f"{source.name} has none", *notes))
            raise ConfigError(f"{where}.classes needs data with classes, {told}")
        known["classes"] = source.classes
    if isinstance(network, ResidualNetwork):
        _check_attention(network, where, source.shape[-1])
    if not isinstance(network, Custom):
        with nullcontext() if device is None else torch.device(device):
            return build(network, where, nn.Module, **known)
    with torch.random.fork_rng(devices=[]):
        # Most networks draw their weights from torch's own generator.
        torch.default_generator.manual_seed(known["seed"])
        return build(network, where, nn.Module, **known)


def _check_attention(network: ResidualNetwork, where: str, width: int) -> None:
    widths = [width // 2**k for k in range(len(network.multipliers))]
    missing = sorted(set(network.attention) - set(widths))
    if missing:
        raise ConfigError(
            f"{where}.attention has {missing[0]}, but the images in the network are "
            f"{', '.join(map(str, widths))} pixels wide"
        )


def _table(config: Config) -> dict[str, Any]:
    """The noise levels that a network has a table of, where it is given their places."""
    if config.field.label != "index":
        return {}
    assert isinstance(config.sde, VEProcess)
    ends = {"sigma_min": config.sde.sigma_min, "sigma_max": config.sde.sigma_max}
    return {**ends, "levels": config.field.levels}


def _sigma_data(config: Config, source: DataSource) -> float:
    given = config.field.sigma_data
    return source.std if given is None else given


def _parametrization(config: Config, source: DataSource) -> Parametrization:
    with section_of("field"):
        label = _label(config)
        match config.field.parametrization:
            case "edm":
                return EDMScaling(_sigma_data(config, source), label)
            case "energy":
                return EnergyScaling(_sigma_data(config, source), label)
            case "noise":
                return NoisePrediction(label)
            case "denoiser":
                return DenoiserPrediction(label)
            case "v":
                return VPrediction(label)
            case "velocity":
                return VelocityPrediction(label)
            case "score":
                return ScorePrediction(label)


def _label(config: Config) -> Label:
    steps = config.sde.levels if isinstance(config.sde, TableProcess) else _STEPS
    match config.field.label:
        case "lognoise":
            return LogNoiseLabel()
        case "sigma":
            return SigmaLabel()
        case "index":
            assert config.field.levels is not None
            return IndexLabel(config.field.levels)
        case label:
            return TimeLabel(1.0 if label == "unit_time" else float(steps - 1))


def _regularizer(
    where: str, term: Term | Custom, config: Config, source: DataSource
) -> Regularizer:
    sde = build_sde(config.sde)
    least, most = sde.level_range
    low = getattr(term, "sigma_min", None) or least
    high = getattr(term, "sigma_max", None) or most
    if not least <= low < high <= most:
        raise ConfigError(
            f"{where} is evaluated at noise levels from {low:g} to {high:g}, they must be in order "
            f"and within the process's {least:g} to {most:g}"
        )
    known: dict[str, Any] = {}
    if isinstance(term, DualTerm):
        known["sigma_data"] = _sigma_data(config, source)
    if isinstance(term, RegressionTerm):
        known["oracle"] = _oracle(where, source, sde)
    if isinstance(term, ConsistencyTerm) and term.guide == "oracle":
        known["guide"] = _oracle(f"{where}.guide", source, sde)
    return build(term, where, Regularizer, **known)


def _teacher(section: TeacherSection, config: Config, source: DataSource) -> ScoreField:
    """The field that is distilled: one of the process, the domain and the classes of the data."""
    teacher = load_teacher(section)
    known = any(getattr(network, "classes", False) for network in config.networks.values())
    wanted = build_sde(config.sde), _domain(source), source.classes if known else None
    given = teacher.sde, teacher.domain, teacher.classes
    facts = zip(("process", "domain", "number of classes"), given, wanted, strict=True)
    for what, there, here in facts:
        if there != here:
            raise ConfigError(
                f"objective.teacher.run is {section.run!r}, whose field has the {what} {there}, "
                f"and that of the configuration is {here}"
            )
    return teacher


def _domain(source: DataSource) -> Domain:
    return Euclidean(source.shape) if source.truth is None else source.truth.domain


def _oracle(where: str, source: DataSource, sde: SDE) -> ScoreField:
    """The exact score of the data, where their distribution is known."""
    if source.truth is None:
        raise ConfigError(
            f"{where} needs data whose distribution is known, that of {source.name} is not"
        )
    return source.truth.under(sde)

"""From the section ``sampler`` of a configuration to the sampler."""

from __future__ import annotations

import math

import torch

from scorefield.config import sampler_section as s
from scorefield.errors import ConfigError, section_of
from scorefield.samplers import (
    DDIM,
    Ancestral,
    AnnealedLangevin,
    Corrector,
    DPMSolverPlusPlus2M,
    Euler,
    EulerMaruyama,
    Heun,
    Langevin,
    Predictor,
    PredictorCorrector,
    ReverseDiffusion,
    Sampler,
)
from scorefield.samplers.ode import ProbabilityFlow
from scorefield.sde import SDE, DDPMSteps, Discretization, EulerForward, Exact, SMLDSteps


def build_sampler(section: s.SamplerSection) -> Sampler:
    """The sampler.

    Raises:
        ConfigError: If it refuses a value.
    """
    settings = section.model_dump(exclude={"kind"})
    with section_of("sampler"):
        match section:
            case s.KarrasMethod():
                if settings["churn_max"] is None:
                    settings["churn_max"] = math.inf
                return (Euler if section.kind == "euler" else Heun)(**settings)
            case s.PredictorCorrectorMethod():
                return PredictorCorrector(
                    steps=section.steps,
                    predictor=_predictor(section),
                    corrector=_corrector(section),
                    discretization=_discretization(section),
                    first=section.first,
                    spacing=section.spacing,
                    t_end=section.t_end,
                    denoise=section.denoise,
                )
            case s.ODEMethod():
                return ProbabilityFlow(**settings)
            case s.DDIMMethod():
                return DDIM(**settings)
            case s.DPMSolverMethod():
                return DPMSolverPlusPlus2M(**settings)


def check_sampler(section: s.SamplerSection, sde: SDE) -> None:
    """Builds the sampler and holds it against a process.

    Raises:
        ConfigError: If it refuses a value, or does not fit the process.
    """
    build_sampler(section)
    end = getattr(section, "t_end", None)
    if end is not None and not sde.t_min <= end < sde.t_max:
        raise ConfigError(
            f"sampler.t_end is {end:g}, it must lie in [{sde.t_min:g}, {sde.t_max:g}), the times "
            f"of the process"
        )
    if not isinstance(section, s.PredictorCorrectorMethod):
        return
    predictor, corrector = _predictor(section), _corrector(section)
    discretization, t = _discretization(section), torch.tensor([sde.t_max], dtype=torch.float64)
    with section_of("sampler"):
        forward = discretization.step(sde, t, None)
        if predictor is not None:
            predictor.reverse(sde, t, None, discretization)
        if corrector is not None:
            corrector.scale(sde, t, forward)


def _predictor(section: s.PredictorCorrectorMethod) -> Predictor | None:
    match section.predictor:
        case "reverse_diffusion":
            return ReverseDiffusion(section.probability_flow)
        case "euler_maruyama":
            return EulerMaruyama(section.probability_flow)
        case "ancestral":
            return Ancestral()
        case "none":
            return None


def _corrector(section: s.PredictorCorrectorMethod) -> Corrector | None:
    match section.corrector:
        case "langevin":
            return Langevin(section.snr, section.corrector_steps, section.norm)
        case "annealed":
            return AnnealedLangevin(section.snr, section.corrector_steps)
        case "none":
            return None


def _discretization(section: s.PredictorCorrectorMethod) -> Discretization:
    match section.discretization:
        case "exact":
            return Exact()
        case "smld":
            return SMLDSteps(section.steps)
        case "ddpm":
            return DDPMSteps(section.steps)
        case "euler":
            return EulerForward(section.steps)

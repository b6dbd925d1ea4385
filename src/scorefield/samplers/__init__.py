"""Methods that turn a score field into samples."""

from scorefield.samplers.base import GridSampler, Sampler
from scorefield.samplers.correctors import AnnealedLangevin, Corrector, Langevin
from scorefield.samplers.grid import grid_times, karras_levels
from scorefield.samplers.latent import decode, encode, interpolate, round_trip, temper
from scorefield.samplers.measurements import (
    Colorization,
    Inpainting,
    LinearMeasurement,
    Measurement,
)
from scorefield.samplers.ode import ProbabilityFlow
from scorefield.samplers.predictor_corrector import PredictorCorrector
from scorefield.samplers.predictors import Ancestral, EulerMaruyama, Predictor, ReverseDiffusion
from scorefield.samplers.solvers import DDIM, DPMSolverPlusPlus2M, Euler, Heun
from scorefield.samplers.step import PLAIN, Callback, SamplerState, StepContext, Stepped, level

__all__ = [
    "Sampler",
    "GridSampler",
    "StepContext",
    "PLAIN",
    "Stepped",
    "level",
    "SamplerState",
    "Callback",
    "Euler",
    "Heun",
    "DDIM",
    "DPMSolverPlusPlus2M",
    "ProbabilityFlow",
    "PredictorCorrector",
    "Predictor",
    "EulerMaruyama",
    "ReverseDiffusion",
    "Ancestral",
    "Corrector",
    "Langevin",
    "AnnealedLangevin",
    "Measurement",
    "Inpainting",
    "Colorization",
    "LinearMeasurement",
    "encode",
    "decode",
    "round_trip",
    "interpolate",
    "temper",
    "karras_levels",
    "grid_times",
]

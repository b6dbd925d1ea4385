"""Methods that turn a score field into samples."""

from scorefield.samplers.base import GridSampler as GridSampler
from scorefield.samplers.base import Sampler as Sampler
from scorefield.samplers.block import Callback as Callback
from scorefield.samplers.block import SamplerState as SamplerState
from scorefield.samplers.correctors import AnnealedLangevin as AnnealedLangevin
from scorefield.samplers.correctors import Corrector as Corrector
from scorefield.samplers.correctors import Langevin as Langevin
from scorefield.samplers.ddim import DDIM as DDIM
from scorefield.samplers.dpm_solver import DPMSolverPlusPlus2M as DPMSolverPlusPlus2M
from scorefield.samplers.grid import grid_times as grid_times
from scorefield.samplers.grid import karras_levels as karras_levels
from scorefield.samplers.karras import Euler as Euler
from scorefield.samplers.karras import Heun as Heun
from scorefield.samplers.latent import decode as decode
from scorefield.samplers.latent import encode as encode
from scorefield.samplers.latent import interpolate as interpolate
from scorefield.samplers.latent import round_trip as round_trip
from scorefield.samplers.latent import temper as temper
from scorefield.samplers.measurements import Colorization as Colorization
from scorefield.samplers.measurements import Inpainting as Inpainting
from scorefield.samplers.measurements import LinearMeasurement as LinearMeasurement
from scorefield.samplers.measurements import Measurement as Measurement
from scorefield.samplers.ode import ProbabilityFlow as ProbabilityFlow
from scorefield.samplers.predictor_corrector import PredictorCorrector as PredictorCorrector
from scorefield.samplers.predictors import Ancestral as Ancestral
from scorefield.samplers.predictors import EulerMaruyama as EulerMaruyama
from scorefield.samplers.predictors import Predictor as Predictor
from scorefield.samplers.predictors import ReverseDiffusion as ReverseDiffusion
from scorefield.samplers.step import PLAIN as PLAIN
from scorefield.samplers.step import StepContext as StepContext
from scorefield.samplers.step import Stepped as Stepped
from scorefield.samplers.step import level as level

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

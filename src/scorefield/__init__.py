r"""Score models as vector fields.

A score model is a vector field :math:`s(x, t) \approx \nabla_x \log p_t(x)`. This package trains
such fields, samples with them, and tells, with error bars, how far they are from what they claim
to be: a gradient, the score of the data.

Names are imported when they are first used, so that ``import scorefield`` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from scorefield.calculus import differentiable as differentiable
    from scorefield.calculus import jacobian as jacobian
    from scorefield.calculus import jvp as jvp
    from scorefield.calculus import vjp as vjp
    from scorefield.data import ArraySource as ArraySource
    from scorefield.data import DataSource as DataSource
    from scorefield.data import TargetSource as TargetSource
    from scorefield.data import digits as digits
    from scorefield.diagnostics import Profile as Profile
    from scorefield.diagnostics import Protocol as Protocol
    from scorefield.diagnostics import asymmetries as asymmetries
    from scorefield.diagnostics import asymmetry_at as asymmetry_at
    from scorefield.diagnostics import calibrate_sizes as calibrate_sizes
    from scorefield.diagnostics import circulation_growth as circulation_growth
    from scorefield.diagnostics import consistency_error as consistency_error
    from scorefield.diagnostics import cycle_circulation as cycle_circulation
    from scorefield.diagnostics import denoising_loss as denoising_loss
    from scorefield.diagnostics import distance_to_ideal as distance_to_ideal
    from scorefield.diagnostics import exterior_derivative as exterior_derivative
    from scorefield.diagnostics import field_agreement as field_agreement
    from scorefield.diagnostics import fokker_planck_error as fokker_planck_error
    from scorefield.diagnostics import fokker_planck_errors as fokker_planck_errors
    from scorefield.diagnostics import fokker_planck_gap as fokker_planck_gap
    from scorefield.diagnostics import harmonic_part as harmonic_part
    from scorefield.diagnostics import hodge_split as hodge_split
    from scorefield.diagnostics import image_agreement as image_agreement
    from scorefield.diagnostics import loop_circulation as loop_circulation
    from scorefield.diagnostics import path_gap as path_gap
    from scorefield.diagnostics import potential_gap as potential_gap
    from scorefield.diagnostics import relative_asymmetry as relative_asymmetry
    from scorefield.diagnostics import score_error as score_error
    from scorefield.diagnostics import validation_loss as validation_loss
    from scorefield.diagnostics import walk as walk
    from scorefield.diagnostics import winding as winding
    from scorefield.domain import Euclidean as Euclidean
    from scorefield.domain import Torus as Torus
    from scorefield.estimate import Estimate as Estimate
    from scorefield.fields import ClassifierFreeGuidance as ClassifierFreeGuidance
    from scorefield.fields import ClassifierGuidance as ClassifierGuidance
    from scorefield.fields import EDMScaling as EDMScaling
    from scorefield.fields import HybridField as HybridField
    from scorefield.fields import IndexLabel as IndexLabel
    from scorefield.fields import LogProb as LogProb
    from scorefield.fields import NoisePrediction as NoisePrediction
    from scorefield.fields import PlantedField as PlantedField
    from scorefield.fields import PotentialField as PotentialField
    from scorefield.fields import PreconditionedField as PreconditionedField
    from scorefield.fields import ScoreField as ScoreField
    from scorefield.fields import ScorePrediction as ScorePrediction
    from scorefield.fields import SigmaLabel as SigmaLabel
    from scorefield.fields import TimeLabel as TimeLabel
    from scorefield.fields import convert as convert
    from scorefield.fields import evaluation as evaluation
    from scorefield.likelihood import log_prob as log_prob
    from scorefield.metrics import frechet_distance as frechet_distance
    from scorefield.metrics import ks_test as ks_test
    from scorefield.metrics import marginal_ks as marginal_ks
    from scorefield.metrics import mmd as mmd
    from scorefield.metrics import mode_coverage as mode_coverage
    from scorefield.metrics import mode_weight_tv as mode_weight_tv
    from scorefield.metrics import nearest_patches as nearest_patches
    from scorefield.metrics import noise_floor as noise_floor
    from scorefield.metrics import radial_distances as radial_distances
    from scorefield.metrics import radial_ks as radial_ks
    from scorefield.metrics import radial_power_spectrum as radial_power_spectrum
    from scorefield.metrics import sliced_wasserstein as sliced_wasserstein
    from scorefield.metrics import total_variation as total_variation
    from scorefield.networks import DDPM as DDPM
    from scorefield.networks import MLP as MLP
    from scorefield.networks import NCSN as NCSN
    from scorefield.networks import EquivariantMLP as EquivariantMLP
    from scorefield.networks import MinimalResNet as MinimalResNet
    from scorefield.networks import MinimalUNet as MinimalUNet
    from scorefield.networks import NCSNpp as NCSNpp
    from scorefield.networks import NCSNv2 as NCSNv2
    from scorefield.networks import SymmetrizedMLP as SymmetrizedMLP
    from scorefield.networks import UNet as UNet
    from scorefield.noise import Noise as Noise
    from scorefield.objectives import Asymmetry as Asymmetry
    from scorefield.objectives import BalancedWeight as BalancedWeight
    from scorefield.objectives import BoundaryMatching as BoundaryMatching
    from scorefield.objectives import Consistency as Consistency
    from scorefield.objectives import CycleCirculation as CycleCirculation
    from scorefield.objectives import DenoisingScoreMatching as DenoisingScoreMatching
    from scorefield.objectives import FokkerPlanck as FokkerPlanck
    from scorefield.objectives import LogNormal as LogNormal
    from scorefield.objectives import LogUniform as LogUniform
    from scorefield.objectives import LoopCirculation as LoopCirculation
    from scorefield.objectives import Objective as Objective
    from scorefield.objectives import Regression as Regression
    from scorefield.objectives import UniformTime as UniformTime
    from scorefield.samplers import DDIM as DDIM
    from scorefield.samplers import Ancestral as Ancestral
    from scorefield.samplers import AnnealedLangevin as AnnealedLangevin
    from scorefield.samplers import Colorization as Colorization
    from scorefield.samplers import DPMSolverPlusPlus2M as DPMSolverPlusPlus2M
    from scorefield.samplers import Euler as Euler
    from scorefield.samplers import EulerMaruyama as EulerMaruyama
    from scorefield.samplers import Heun as Heun
    from scorefield.samplers import Inpainting as Inpainting
    from scorefield.samplers import Langevin as Langevin
    from scorefield.samplers import LinearMeasurement as LinearMeasurement
    from scorefield.samplers import PredictorCorrector as PredictorCorrector
    from scorefield.samplers import ProbabilityFlow as ProbabilityFlow
    from scorefield.samplers import ReverseDiffusion as ReverseDiffusion
    from scorefield.samplers import Sampler as Sampler
    from scorefield.samplers import decode as decode
    from scorefield.samplers import encode as encode
    from scorefield.samplers import interpolate as interpolate
    from scorefield.samplers import round_trip as round_trip
    from scorefield.samplers import temper as temper
    from scorefield.sde import EDM as EDM
    from scorefield.sde import SDE as SDE
    from scorefield.sde import VE as VE
    from scorefield.sde import VP as VP
    from scorefield.sde import Cosine as Cosine
    from scorefield.sde import DiscreteVP as DiscreteVP
    from scorefield.sde import SubVP as SubVP
    from scorefield.targets import Empirical as Empirical
    from scorefield.targets import EquivariantLocalScore as EquivariantLocalScore
    from scorefield.targets import EquivariantScore as EquivariantScore
    from scorefield.targets import Gaussian as Gaussian
    from scorefield.targets import GaussianMixture as GaussianMixture
    from scorefield.targets import IdealScore as IdealScore
    from scorefield.targets import LocalScore as LocalScore
    from scorefield.targets import PatchSizes as PatchSizes
    from scorefield.targets import PseudoAtoms as PseudoAtoms
    from scorefield.targets import Target as Target
    from scorefield.training import Fit as Fit
    from scorefield.training import Optim as Optim
    from scorefield.training import fit as fit

_HOMES = {
    "calculus": (
        "differentiable",
        "jacobian",
        "jvp",
        "vjp",
    ),
    "data": (
        "ArraySource",
        "DataSource",
        "TargetSource",
        "digits",
    ),
    "diagnostics": (
        "Profile",
        "Protocol",
        "asymmetries",
        "asymmetry_at",
        "calibrate_sizes",
        "circulation_growth",
        "consistency_error",
        "cycle_circulation",
        "denoising_loss",
        "distance_to_ideal",
        "exterior_derivative",
        "field_agreement",
        "fokker_planck_error",
        "fokker_planck_errors",
        "fokker_planck_gap",
        "harmonic_part",
        "hodge_split",
        "image_agreement",
        "loop_circulation",
        "path_gap",
        "potential_gap",
        "relative_asymmetry",
        "score_error",
        "validation_loss",
        "walk",
        "winding",
    ),
    "domain": ("Euclidean", "Torus"),
    "estimate": ("Estimate",),
    "fields": (
        "EDMScaling",
        "HybridField",
        "NoisePrediction",
        "PlantedField",
        "PotentialField",
        "PreconditionedField",
        "ScoreField",
        "ScorePrediction",
        "convert",
        "evaluation",
        "ClassifierFreeGuidance",
        "ClassifierGuidance",
        "LogProb",
        "SigmaLabel",
        "TimeLabel",
        "IndexLabel",
    ),
    "likelihood": ("log_prob",),
    "metrics": (
        "frechet_distance",
        "mmd",
        "mode_coverage",
        "mode_weight_tv",
        "nearest_patches",
        "noise_floor",
        "radial_power_spectrum",
        "sliced_wasserstein",
        "ks_test",
        "marginal_ks",
        "radial_distances",
        "radial_ks",
        "total_variation",
    ),
    "networks": (
        "MLP",
        "SymmetrizedMLP",
        "EquivariantMLP",
        "MinimalUNet",
        "MinimalResNet",
        "UNet",
        "NCSN",
        "NCSNv2",
        "NCSNpp",
        "DDPM",
    ),
    "noise": ("Noise",),
    "objectives": (
        "Asymmetry",
        "BalancedWeight",
        "BoundaryMatching",
        "Consistency",
        "CycleCirculation",
        "DenoisingScoreMatching",
        "FokkerPlanck",
        "LogNormal",
        "LogUniform",
        "LoopCirculation",
        "Objective",
        "Regression",
        "UniformTime",
    ),
    "samplers": (
        "Euler",
        "Heun",
        "Sampler",
        "PredictorCorrector",
        "ReverseDiffusion",
        "EulerMaruyama",
        "Ancestral",
        "Langevin",
        "AnnealedLangevin",
        "DDIM",
        "DPMSolverPlusPlus2M",
        "ProbabilityFlow",
        "Inpainting",
        "Colorization",
        "LinearMeasurement",
        "encode",
        "decode",
        "interpolate",
        "temper",
        "round_trip",
    ),
    "sde": (
        "EDM",
        "SDE",
        "VE",
        "VP",
        "Cosine",
        "SubVP",
        "DiscreteVP",
    ),
    "targets": (
        "Empirical",
        "EquivariantLocalScore",
        "EquivariantScore",
        "IdealScore",
        "LocalScore",
        "PatchSizes",
        "PseudoAtoms",
        "Gaussian",
        "GaussianMixture",
        "Target",
    ),
    "training": (
        "Fit",
        "Optim",
        "fit",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

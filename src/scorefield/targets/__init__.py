"""Targets: distributions with exact fields at every noise level."""

from scorefield.targets.atoms import PseudoAtoms
from scorefield.targets.base import Target
from scorefield.targets.empirical import Empirical, EquivariantScore, IdealScore
from scorefield.targets.gaussian import Gaussian
from scorefield.targets.mixture import GaussianMixture
from scorefield.targets.patches import EquivariantLocalScore, LocalScore
from scorefield.targets.windows import PatchSizes

__all__ = [
    "Target",
    "Gaussian",
    "GaussianMixture",
    "Empirical",
    "IdealScore",
    "EquivariantScore",
    "LocalScore",
    "EquivariantLocalScore",
    "PatchSizes",
    "PseudoAtoms",
]

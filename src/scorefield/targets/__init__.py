"""Targets: distributions with exact fields at every noise level."""

from scorefield.targets.atoms import PseudoAtoms as PseudoAtoms
from scorefield.targets.base import Target as Target
from scorefield.targets.empirical import Empirical as Empirical
from scorefield.targets.empirical import IdealScore as IdealScore
from scorefield.targets.equivariant import EquivariantScore as EquivariantScore
from scorefield.targets.gaussian import Gaussian as Gaussian
from scorefield.targets.mixture import GaussianMixture as GaussianMixture
from scorefield.targets.patches import EquivariantLocalScore as EquivariantLocalScore
from scorefield.targets.patches import LocalScore as LocalScore
from scorefield.targets.sizes import PatchSizes as PatchSizes

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

"""Fields known in closed form at every noise level."""

from scorefield.targets.base import Target as Target
from scorefield.targets.empirical import Empirical as Empirical
from scorefield.targets.gaussian import Gaussian as Gaussian
from scorefield.targets.mixture import GaussianMixture as GaussianMixture

__all__ = ["Target", "Gaussian", "GaussianMixture", "Empirical"]

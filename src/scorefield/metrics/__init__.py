"""Distances between samples and a reference, and their noise floors.

The reference of a distance is another set or an exact distribution; ``n`` of its estimate is the
number of samples, of two sets that of the smaller one. Sets have the shape ``(n, *event)``, points
on a torus wrapped or not; ``t`` is the time of the samples in the process of the distribution,
clean by default; ``confidence`` the coverage of an interval. Sets that do not fit or are too small,
an argument out of its range and a value that is not finite are a ``ValueError``.
"""

from scorefield.metrics.exact_law import KolmogorovSmirnov as KolmogorovSmirnov
from scorefield.metrics.exact_law import ks_test as ks_test
from scorefield.metrics.exact_law import marginal_ks as marginal_ks
from scorefield.metrics.exact_law import total_variation as total_variation
from scorefield.metrics.frechet import frechet_distance as frechet_distance
from scorefield.metrics.kernel import kernel_bandwidths as kernel_bandwidths
from scorefield.metrics.kernel import median_distance as median_distance
from scorefield.metrics.kernel import mmd as mmd
from scorefield.metrics.modes import mode_coverage as mode_coverage
from scorefield.metrics.modes import mode_weight_tv as mode_weight_tv
from scorefield.metrics.patch_statistics import ExtremeFit as ExtremeFit
from scorefield.metrics.patch_statistics import NearestPatches as NearestPatches
from scorefield.metrics.patch_statistics import Spectrum as Spectrum
from scorefield.metrics.patch_statistics import fit_extremes as fit_extremes
from scorefield.metrics.patch_statistics import nearest_patches as nearest_patches
from scorefield.metrics.patch_statistics import radial_power_spectrum as radial_power_spectrum
from scorefield.metrics.radial import RadialLaw as RadialLaw
from scorefield.metrics.radial import radial_distances as radial_distances
from scorefield.metrics.radial import radial_ks as radial_ks
from scorefield.metrics.radial import radial_law as radial_law
from scorefield.metrics.sets import NoiseFloor as NoiseFloor
from scorefield.metrics.sets import Reference as Reference
from scorefield.metrics.sets import noise_floor as noise_floor
from scorefield.metrics.sliced import sliced_wasserstein as sliced_wasserstein

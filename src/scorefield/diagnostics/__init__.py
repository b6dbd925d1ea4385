"""Diagnostics: measured properties of a field, with error bars.

Each takes the ``field``, the ``data`` that the points come from (a target or clean points), the
``protocol`` with noise levels and points, and the ``classes`` of the points as in
:meth:`.Protocol.points`, and returns a :class:`.Profile`: one estimate a noise level. An argument
out of its range, and a value that is not finite, is a ``ValueError`` that names the diagnostic and
the noise level. ``rule`` is a :func:`~scorefield.calculus.quadrature`; ``quantity`` the
parametrisation of the field.
"""

from scorefield.diagnostics.asymmetry import Norms as Norms
from scorefield.diagnostics.asymmetry import Probing as Probing
from scorefield.diagnostics.asymmetry import asymmetry_at as asymmetry_at
from scorefield.diagnostics.circulation import circulation_growth as circulation_growth
from scorefield.diagnostics.circulation import cycle_circulation as cycle_circulation
from scorefield.diagnostics.circulation import loop_circulation as loop_circulation
from scorefield.diagnostics.consistency import consistency_error as consistency_error
from scorefield.diagnostics.exterior import Asymmetries as Asymmetries
from scorefield.diagnostics.exterior import asymmetries as asymmetries
from scorefield.diagnostics.exterior import exterior_derivative as exterior_derivative
from scorefield.diagnostics.exterior import relative_asymmetry as relative_asymmetry
from scorefield.diagnostics.fokker_planck import FokkerPlanckErrors as FokkerPlanckErrors
from scorefield.diagnostics.fokker_planck import fokker_planck_error as fokker_planck_error
from scorefield.diagnostics.fokker_planck import fokker_planck_errors as fokker_planck_errors
from scorefield.diagnostics.fokker_planck import fokker_planck_gap as fokker_planck_gap
from scorefield.diagnostics.hodge import HodgeSplit as HodgeSplit
from scorefield.diagnostics.hodge import hodge_split as hodge_split
from scorefield.diagnostics.line_integrals import harmonic_part as harmonic_part
from scorefield.diagnostics.line_integrals import path_gap as path_gap
from scorefield.diagnostics.line_integrals import potential_gap as potential_gap
from scorefield.diagnostics.line_integrals import winding as winding
from scorefield.diagnostics.protocol import Points as Points
from scorefield.diagnostics.protocol import Profile as Profile
from scorefield.diagnostics.protocol import Protocol as Protocol
from scorefield.diagnostics.published import (
    finite_difference_asymmetry as finite_difference_asymmetry,
)
from scorefield.diagnostics.published import left_cycle_circulation as left_cycle_circulation
from scorefield.diagnostics.published import path_variance as path_variance
from scorefield.diagnostics.scales import ScaleCalibration as ScaleCalibration
from scorefield.diagnostics.scales import calibrate_sizes as calibrate_sizes
from scorefield.diagnostics.score_error import denoising_loss as denoising_loss
from scorefield.diagnostics.score_error import distance_to_ideal as distance_to_ideal
from scorefield.diagnostics.score_error import score_error as score_error
from scorefield.diagnostics.score_error import validation_loss as validation_loss
from scorefield.diagnostics.trajectories import Agreement as Agreement
from scorefield.diagnostics.trajectories import State as State
from scorefield.diagnostics.trajectories import Walk as Walk
from scorefield.diagnostics.trajectories import field_agreement as field_agreement
from scorefield.diagnostics.trajectories import image_agreement as image_agreement
from scorefield.diagnostics.trajectories import walk as walk

"""Vector calculus on fields: derivatives, asymmetry, circulation.

Throughout, ``fn`` is a field in one of its forms (``field.score``, ``field.denoise``, …): it maps
points ``x`` of shape :math:`(batch, *event)`, times ``t`` of shape :math:`(batch)` and, where they
are given, the ``classes`` of the points to vectors of the shape of the points, each row on its own.
``epsilon`` is a relative precision, ``domain`` where the points are. An argument out of its range
is a ``ValueError``.
"""

from scorefield.calculus.asymmetry import exact_asymmetry as exact_asymmetry
from scorefield.calculus.asymmetry import per_coordinate as per_coordinate
from scorefield.calculus.asymmetry import probed_asymmetry as probed_asymmetry
from scorefield.calculus.circulation import Quadrature as Quadrature
from scorefield.calculus.circulation import circulation as circulation
from scorefield.calculus.circulation import circulation_and_error as circulation_and_error
from scorefield.calculus.circulation import find_cycles as find_cycles
from scorefield.calculus.circulation import in_blocks as in_blocks
from scorefield.calculus.circulation import nearest_neighbours as nearest_neighbours
from scorefield.calculus.circulation import planes as planes
from scorefield.calculus.circulation import propose_cycles as propose_cycles
from scorefield.calculus.circulation import quadrature as quadrature
from scorefield.calculus.circulation import regular_polygons as regular_polygons
from scorefield.calculus.circulation import squared_area as squared_area
from scorefield.calculus.circulation import squared_curl as squared_curl
from scorefield.calculus.consistency import kernel_target as kernel_target
from scorefield.calculus.consistency import martingale_target as martingale_target
from scorefield.calculus.consistency import reverse_trajectory as reverse_trajectory
from scorefield.calculus.derivatives import VectorField as VectorField
from scorefield.calculus.derivatives import jacobian as jacobian
from scorefield.calculus.derivatives import jvp as jvp
from scorefield.calculus.derivatives import jvp_vjp as jvp_vjp
from scorefield.calculus.derivatives import vjp as vjp
from scorefield.calculus.fokker_planck import FokkerPlanckForm as FokkerPlanckForm
from scorefield.calculus.fokker_planck import FokkerPlanckTerms as FokkerPlanckTerms
from scorefield.calculus.fokker_planck import fokker_planck_difference as fokker_planck_difference
from scorefield.calculus.fokker_planck import fokker_planck_residual as fokker_planck_residual
from scorefield.calculus.fokker_planck import fokker_planck_terms as fokker_planck_terms
from scorefield.calculus.fokker_planck import per_log_noise as per_log_noise
from scorefield.calculus.fokker_planck import unbiased_square as unbiased_square
from scorefield.calculus.paths import LineIntegrals as LineIntegrals
from scorefield.calculus.paths import Paths as Paths
from scorefield.calculus.paths import detours as detours
from scorefield.calculus.paths import line_integrals as line_integrals
from scorefield.calculus.winding import straight_loops as straight_loops
from scorefield.fields.gradient import differentiable as differentiable

"""Vector calculus on fields: derivatives, asymmetry, circulation."""

from scorefield.calculus.asymmetry import exact_asymmetry as exact_asymmetry
from scorefield.calculus.asymmetry import per_coordinate as per_coordinate
from scorefield.calculus.asymmetry import probed_asymmetry as probed_asymmetry
from scorefield.calculus.circulation import Quadrature as Quadrature
from scorefield.calculus.circulation import circulation as circulation
from scorefield.calculus.circulation import circulation_and_error as circulation_and_error
from scorefield.calculus.circulation import in_blocks as in_blocks
from scorefield.calculus.circulation import planes as planes
from scorefield.calculus.circulation import quadrature as quadrature
from scorefield.calculus.circulation import regular_polygons as regular_polygons
from scorefield.calculus.circulation import squared_area as squared_area
from scorefield.calculus.circulation import squared_curl as squared_curl
from scorefield.calculus.derivatives import VectorField as VectorField
from scorefield.calculus.derivatives import differentiable as differentiable
from scorefield.calculus.derivatives import jacobian as jacobian
from scorefield.calculus.derivatives import jvp as jvp
from scorefield.calculus.derivatives import jvp_vjp as jvp_vjp
from scorefield.calculus.derivatives import vjp as vjp
from scorefield.calculus.graph import find_cycles as find_cycles
from scorefield.calculus.graph import nearest_neighbours as nearest_neighbours
from scorefield.calculus.graph import propose_cycles as propose_cycles
from scorefield.calculus.paths import LineIntegrals as LineIntegrals
from scorefield.calculus.paths import Paths as Paths
from scorefield.calculus.paths import detours as detours
from scorefield.calculus.paths import line_integrals as line_integrals

import math

import pytest

from scorefield import Protocol, exterior_derivative, relative_asymmetry
from scorefield.studies.calibrate.fields import SIGMA, conservative, planted


@pytest.mark.parametrize("law", ["gaussian", "mixture"])
@pytest.mark.parametrize(("dim", "shape"), [(2, "plane"), (64, "plane"), (64, "spread")])
@pytest.mark.parametrize("size", [0.01, 0.2])
def test_a_planted_curl_is_what_it_is_called(law, dim, shape, size):
    """Exact Jacobians find the curl to rounding, and the relative asymmetry within its error."""
    known = planted(law, dim, shape, size)
    protocol = Protocol((SIGMA,), n=2000 if dim == 2 else 64)
    (curl,) = exterior_derivative(known.field, known.data, protocol, quantity="score").estimates
    assert curl.value == pytest.approx(known.answers["exterior derivative"], rel=1e-9)
    (relative,) = relative_asymmetry(known.field, known.data, protocol).estimates
    assert abs(relative.value - size) < 6 * relative.standard_error + 0.02 * size


@pytest.mark.parametrize("law", ["gaussian", "mixture", "empirical", "potential"])
@pytest.mark.parametrize("dim", [2, 64])
def test_what_is_called_conservative_has_symmetric_jacobians(law, dim):
    known = conservative(law, dim)
    profile = exterior_derivative(known.field, known.data, Protocol((SIGMA,), n=8))
    assert profile.estimates[0].value < 1e-12


def test_a_curl_in_one_plane_has_rank_two_and_one_that_is_spread_has_full_rank():
    for shape, rank in (("plane", 2), ("spread", 64)):
        field = planted("gaussian", 64, shape, 0.1).field
        matrix = field.perturbation.matrix
        found = int((matrix.svd().S > 1e-10).sum())
        assert found == rank
        assert math.isclose(float(matrix.norm()), 1.0, rel_tol=1e-12)

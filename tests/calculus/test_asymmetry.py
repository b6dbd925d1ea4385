import itertools

import pytest
import torch

from scorefield.calculus.asymmetry import exact_asymmetry, per_coordinate, probed_asymmetry
from tests.planted import Affine, skew


def all_signs(dim):
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=dim)), dtype=torch.float64)


@pytest.mark.parametrize("variant", ["difference", "trace"])
def test_averaged_over_all_signs_a_probe_gives_the_frobenius_norms(variant):
    torch.manual_seed(0)
    matrix = torch.randn(5, 5, dtype=torch.float64)
    v = all_signs(5)
    x, t = torch.zeros_like(v), torch.ones(len(v), dtype=torch.float64)
    square, norm = probed_asymmetry(Affine(matrix).score, x, t, v, variant)
    expected = exact_asymmetry(matrix.unsqueeze(0))
    torch.testing.assert_close(square.mean(), expected[0][0], rtol=1e-12, atol=0)
    torch.testing.assert_close(norm.mean(), expected[1][0], rtol=1e-12, atol=0)
    assert variant == "trace" or bool((square >= 0).all())


@pytest.mark.parametrize("dim", [2, 3, 6])
def test_a_probe_sees_at_most_the_asymmetry_of_a_rotation(dim):
    """|Jv - J^T v|^2 <= 2 (|Jv|^2 + |J^T v|^2), with equality for a skew matrix."""
    torch.manual_seed(0)
    v = all_signs(dim)
    x, t = torch.zeros_like(v), torch.ones(len(v), dtype=torch.float64)
    square, norm = probed_asymmetry(Affine(torch.randn(dim, dim).double()).score, x, t, v)
    assert bool((square <= 4 * norm * (1 + 1e-12)).all())
    square, norm = probed_asymmetry(Affine(skew(dim)).score, x, t, v)
    torch.testing.assert_close(square, 4 * norm)


def test_asymmetry_per_coordinate_has_no_unit():
    """Stretching space by a factor scales a score's Jacobian by its inverse square."""
    matrix, factor = skew(3), 7.0
    square = exact_asymmetry(matrix.unsqueeze(0))[0]
    stretched = exact_asymmetry((matrix / factor**2).unsqueeze(0))[0]
    sigma = torch.tensor([0.3], dtype=torch.float64)
    torch.testing.assert_close(
        per_coordinate(square, sigma, 3), per_coordinate(stretched, factor * sigma, 3)
    )


def test_an_unknown_variant_is_named(unchecked):
    x = torch.zeros(1, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="'exact'"):
        probed_asymmetry(Affine(skew(2)).score, x, torch.ones(1), x, "exact")

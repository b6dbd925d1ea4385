import itertools

import pytest
import torch

from scorefield.calculus import exact_asymmetry, per_coordinate, probed_asymmetry, relative
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


def test_relative_asymmetry_is_one_for_a_rotation_and_zero_for_a_gradient():
    rotation = exact_asymmetry(skew(4).unsqueeze(0))
    torch.testing.assert_close(relative(*rotation), torch.ones(1, dtype=torch.float64))
    symmetric = skew(4) @ skew(4)
    assert float(relative(*exact_asymmetry(symmetric.unsqueeze(0)))) < 1e-15


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

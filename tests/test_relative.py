"""Coordinates without the centre of mass."""

import pytest
import torch

from scorefield import particle_positions, relative_coordinates
from scorefield.errors import UserError
from scorefield.relative import helmert

X = torch.linspace(-1, 2, 5 * 4 * 3, dtype=torch.float64).sin().reshape(5, 4, 3)


@pytest.mark.parametrize("n", [2, 3, 13])
def test_the_coordinates_are_orthonormal_and_do_not_see_the_centre(n):
    h = helmert(n, X)
    torch.testing.assert_close(h @ h.T, torch.eye(n - 1, dtype=torch.float64), rtol=0, atol=1e-14)
    assert h.sum(dim=1).abs().max() < 1e-14


def test_positions_come_back_without_their_centre_and_distances_are_kept():
    y = relative_coordinates(X + 7)
    assert y.shape == (5, 3, 3)
    back = particle_positions(y)
    torch.testing.assert_close(back, X - X.mean(dim=1, keepdim=True), rtol=0, atol=1e-13)
    torch.testing.assert_close(torch.cdist(back, back), torch.cdist(X, X), rtol=0, atol=1e-7)
    # The first of Jacobi's coordinates, as they are written by hand.
    torch.testing.assert_close(y[:, 0], (X[:, 0] - X[:, 1]) / 2**0.5)
    torch.testing.assert_close(y[:, 1], (X[:, 0] + X[:, 1] - 2 * X[:, 2]) / 6**0.5)


@pytest.mark.parametrize("function", [relative_coordinates, particle_positions])
def test_what_are_no_particles_is_refused(function):
    with pytest.raises(UserError, match="must have a shape"):
        function(torch.zeros(3))
    with pytest.raises(UserError, match="must be floating-point numbers"):
        function(torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(UserError, match="at least two particles"):
        relative_coordinates(torch.zeros(1, 2))

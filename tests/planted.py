"""Fields whose curl or drift is planted, hence known."""

import math

import torch
from torch import Tensor

from scorefield.domain import Euclidean
from scorefield.fields import ScoreField
from scorefield.sde import EDM, SDE


class Affine(ScoreField):
    """The field s(x, t) = M (x - mu), whose Jacobian is M everywhere."""

    def __init__(self, matrix: Tensor, mu: float = 0.0, sde: SDE | None = None) -> None:
        super().__init__(EDM() if sde is None else sde, Euclidean((matrix.shape[0],)))
        self.register_buffer("matrix", matrix)
        self.mu = mu

    def score(self, x, t, classes=None):
        return (x - self.mu) @ self.matrix.to(x.dtype).T


class Planted(ScoreField):
    """A field plus eps R (x - mu), with R skew."""

    def __init__(self, base: ScoreField, matrix: Tensor, eps: float, mu: float = 0.0) -> None:
        super().__init__(base.sde, base.domain)
        self.base = base
        self.rotation = Affine(matrix, mu, base.sde)
        self.eps = eps

    def score(self, x, t, classes=None):
        return self.base.score(x, t) + self.eps * self.rotation.score(x, t)


class Drifting(ScoreField):
    """A field plus a constant vector over the noise level."""

    def __init__(self, base, vector):
        super().__init__(base.sde, base.domain)
        self.base = base
        self.register_buffer("vector", torch.as_tensor(vector, dtype=torch.float64))

    def score(self, x, t, classes=None):
        sigma = self.sde.sigma(torch.as_tensor(t, dtype=x.dtype)).reshape(-1, 1, 1)
        return self.base.score(x, t) + self.vector.to(x) / sigma


class Shear(ScoreField):
    """A field of two coordinates plus sin(2 pi x_2) along x_1, which has curl and no mean."""

    def __init__(self, base, size):
        super().__init__(base.sde, base.domain)
        self.base, self.size = base, size

    def score(self, x, t, classes=None):
        push = self.size * torch.sin(2 * math.pi * x[:, 1])
        return self.base.score(x, t) + torch.stack((push, torch.zeros_like(push)), dim=1)


def skew(dim: int, seed: int = 0) -> Tensor:
    """A skew matrix; in two dimensions the rotation by a right angle."""
    if dim == 2:
        return torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    m = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return m - m.T

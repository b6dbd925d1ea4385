"""Fields whose curl is planted, hence known."""

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

    def score(self, x, t):
        return (x - self.mu) @ self.matrix.to(x.dtype).T


class Planted(ScoreField):
    """A field plus eps R (x - mu), with R skew."""

    def __init__(self, base: ScoreField, matrix: Tensor, eps: float, mu: float = 0.0) -> None:
        super().__init__(base.sde, base.domain)
        self.base = base
        self.rotation = Affine(matrix, mu, base.sde)
        self.eps = eps

    def score(self, x, t):
        return self.base.score(x, t) + self.eps * self.rotation.score(x, t)


def skew(dim: int, seed: int = 0) -> Tensor:
    """A skew matrix; in two dimensions the rotation by a right angle."""
    if dim == 2:
        return torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    m = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return m - m.T

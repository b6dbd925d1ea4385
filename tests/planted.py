"""Fields of known truth: of a function, of a matrix, and others with a planted error."""

import math

import torch
from torch import Tensor

from scorefield import EDM, SDE, ScoreField
from scorefield.domain import Euclidean
from scorefield.fields.forms import times


class Function(ScoreField):
    """The field of a score s(x, t) that is given as a function."""

    def __init__(self, function, shape=(2,), sde: SDE | None = None, domain=None) -> None:
        super().__init__(sde or EDM(), domain or Euclidean(shape))
        self.function = function

    def score(self, x, t, classes=None):
        return self.function(x, t)


class Affine(ScoreField):
    """The field s(x, t) = M (x - mu), whose Jacobian is M everywhere."""

    def __init__(self, matrix: Tensor, mu: float = 0.0, sde: SDE | None = None) -> None:
        super().__init__(sde or EDM(), Euclidean((matrix.shape[0],)))
        self.register_buffer("matrix", matrix)
        self.mu = mu

    def score(self, x, t, classes=None):
        return (x - self.mu) @ self.matrix.to(x.dtype).T


class Plus(ScoreField):
    """A field plus a function of x and t."""

    def __init__(self, base: ScoreField, error) -> None:
        super().__init__(base.sde, base.domain)
        self.base, self.error = base, error

    def score(self, x, t, classes=None):
        return self.base.score(x, t, classes) + self.error(x, t)


class Planted(Plus):
    """A field plus eps R (x - mu), with R skew."""

    def __init__(self, base: ScoreField, matrix: Tensor, eps: float, mu: float = 0.0) -> None:
        super().__init__(base, Affine(eps * matrix, mu, base.sde))


class Turned(Plus):
    """A field in the plane with the denoiser x + sigma^2 s turned by a rate: its curl is known."""

    def __init__(self, base: ScoreField, rate: float) -> None:
        super().__init__(base, self.turn)
        self.rate = rate

    def turn(self, x, t):
        return self.rate * x @ skew(2).to(x.dtype).T / self.sde.sigma(times(x, t)) ** 2


class Drifting(Plus):
    """A field plus a constant, or a vector, over the noise level."""

    def __init__(self, base: ScoreField, by) -> None:
        super().__init__(base, self.drift)
        self.by = torch.as_tensor(by, dtype=torch.float64)

    def drift(self, x, t):
        return self.by.to(x) / self.sde.sigma(times(x, t))


class Shear(Plus):
    """A field of two coordinates plus sin(2 pi x_2) along x_1, which has curl and no mean."""

    def __init__(self, base: ScoreField, size: float) -> None:
        super().__init__(base, self.push)
        self.size = size

    def push(self, x, t):
        push = self.size * torch.sin(2 * math.pi * x[:, 1])
        return torch.stack((push, torch.zeros_like(push)), dim=1)


class Watched(ScoreField):
    """A field of which nothing is known but its values, and which keeps where it was evaluated.

    Attributes:
        points: The points of each evaluation.
        times: Their times.
    """

    def __init__(self, field: ScoreField) -> None:
        super().__init__(field.sde, field.domain)
        self.field = field
        self.points: list[Tensor] = []
        self.times: list[Tensor] = []

    def score(self, x, t, classes=None):
        return self.predict(x, t, "score", classes)

    def predict(self, x, t, quantity, classes=None):
        self.points.append(x.detach().clone())
        self.times.append(torch.as_tensor(t))
        return self.field.predict(x, t, quantity, classes)


def skew(dim: int, seed: int = 0) -> Tensor:
    """A skew matrix; in two dimensions the rotation by a right angle."""
    if dim == 2:
        return torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    m = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return m - m.T

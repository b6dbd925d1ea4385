r"""Fits of a gradient to a vector field, for estimates that correct for the error of the fit.

A learner is given the offsets :math:`u` of points from their centre, the values :math:`r` of a
field there and the gradient :math:`\nabla\psi_P` of its own potential, and returns a function that
evaluates its fit :math:`\nabla\hat\psi \approx r` at other points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.checks import check_count, check_positive
from scorefield.diagnostics.potentials import centred, nearest_form, random_waves
from scorefield.domain import Domain, Euclidean
from scorefield.errors import UserError
from scorefield.noise import Noise

_UNSEEN = 1e-10
"""The share of a column's energy below which what forms leave of it is rounding."""
_WAVE_RIDGE = 0.1
"""The ridge of waves of unit energy. Sums of waves that nearly cancel at the points of a fit are
large beyond them; with less of a ridge they are most of the estimate's error."""
_OWN_RIDGE = 1e-9
"""That of the other columns, which may be nearly equal: less than any error of an estimate."""


class Values(NamedTuple):
    """Points, in float64 and flat, with a field and the gradient of its own potential."""

    offsets: Float[Tensor, "batch dim"]
    own: Float[Tensor, "batch dim"]
    field: Float[Tensor, "batch dim"]

    def rows(self, rows: Tensor) -> Values:
        """Some of the points."""
        return Values(*(part[rows] for part in self))


Gradient = Callable[[Values], Tensor]
"""A fit: its values at points, which may depend on the field's own potential there."""


@runtime_checkable
class Learner(Protocol):
    """A family of potentials, and how one of them is fitted."""

    def at(
        self,
        offsets: Float[Tensor, "batch dim"],
        domain: Domain,
        sigma: float,
        noise: Noise,
        parts: int,
    ) -> Callable[[Values], Gradient]:
        """The fit at a noise level whose points are given; each fit sees one of ``parts`` parts."""

    def describe(self) -> str:
        """The family in words."""


def _check_flat(learner: Learner, domain: Domain) -> None:
    if not isinstance(domain, Euclidean):
        raise UserError(
            f"{type(learner).__name__} is a family of potentials in flat space, not on {domain}: "
            "take PeriodicWaves"
        )


@dataclass(frozen=True)
class RandomFeatures:
    r"""Least squares on linear functions, quadratic forms, the field's own potential and random
    waves.

    The forms are those of the :math:`q` leading principal directions :math:`V` of the points, with
    :math:`q` at most a quarter of the points of a fit. That whose gradient is nearest to a field
    :math:`y` is :math:`\frac12 w^\top A w` with :math:`w = V^\top u` and

    .. math:: A \Lambda + \Lambda A = M + M^\top, \qquad
        \Lambda = \mathbb{E}\,w w^\top, \quad M = \mathbb{E}\,V^\top y\,w^\top;

    the other functions are fitted to what forms leave of the field, by what forms leave of their
    gradients, which is the joint least-squares fit. Waves, at most one for sixteen numbers, have a
    ridge.

    Arguments:
        waves: The number of random waves.

    References:
        Partial time regressions as compared with individual trends (Frisch and Waugh, 1933).

        Random features for large-scale kernel machines (Rahimi and Recht, 2007), section 3.
    """

    waves: int = 256

    def __post_init__(self) -> None:
        if self.waves < 0:
            raise UserError(f"the number of waves is not negative, got {self.waves}")

    def describe(self) -> str:
        return f"at most {self.waves} random waves"

    def at(
        self,
        offsets: Float[Tensor, "batch dim"],
        domain: Domain,
        sigma: float,
        noise: Noise,
        parts: int,
    ) -> Callable[[Values], Gradient]:
        _check_flat(self, domain)
        n, dim = offsets.shape
        waves = min(self.waves, n // parts * dim // 16)
        frequencies, phases = random_waves(offsets, sigma, waves, noise)
        rank = min(dim, max(1, n // (4 * parts)))
        directions = torch.linalg.svd(centred(offsets), full_matrices=False)[2][:rank].T

        def fit(given: Values) -> Gradient:
            return _LeastSquares(given, frequencies, phases, directions)

        return fit


class _LeastSquares:
    """A fit of :class:`RandomFeatures`; columns are the waves, then the dense ones."""

    def __init__(
        self, given: Values, frequencies: Tensor, phases: Tensor, directions: Tensor
    ) -> None:
        self._frequencies, self._phases, self._directions = frequencies, phases, directions
        self._mean_offset, self._mean = given.offsets.mean(dim=0), given.field.mean(dim=0)
        waves, dense = self._columns(given)
        self._mean_waves, self._mean_dense = waves.mean(dim=0), dense.mean(dim=1, keepdim=True)
        waves = waves - self._mean_waves
        # The field comes last, as one more column.
        dense = torch.cat((dense - self._mean_dense, (given.field - self._mean).unsqueeze(0)))
        w = (given.offsets - self._mean_offset) @ directions
        forms = _forms(_moments(waves, frequencies, dense, w, directions), w.T @ w)
        products = _products(waves, frequencies, dense)
        left = products - (forms @ (w.T @ w)).flatten(1) @ forms.flatten(1).T
        ridges = left.new_full((len(left) - 1,), _OWN_RIDGE)
        ridges[: waves.shape[1]] = _WAVE_RIDGE
        self._weights = _solve(left, ridges, left.diagonal() > _UNSEEN * products.diagonal())
        self._form = forms[-1] - torch.einsum("k,kpq->pq", self._weights, forms[:-1])

    def __call__(self, at: Values) -> Tensor:
        waves, dense = self._columns(at)
        of_waves, of_dense = self._weights.split((waves.shape[1], len(dense)))
        w = (at.offsets - self._mean_offset) @ self._directions
        return (
            self._mean
            + ((waves - self._mean_waves) * of_waves) @ self._frequencies
            + torch.einsum("k,kbd->bd", of_dense, dense - self._mean_dense)
            + w @ self._form @ self._directions.T
        )

    def _columns(self, at: Values) -> tuple[Tensor, Tensor]:
        """The factors of the waves' frequencies, and the other gradients."""
        phase = at.offsets @ self._frequencies.T + self._phases
        return -phase.sin(), torch.stack((at.own, at.offsets))


def _moments(
    waves: Tensor, frequencies: Tensor, dense: Tensor, w: Tensor, directions: Tensor
) -> Float[Tensor, "columns rank rank"]:
    """The sums of each column, in the principal directions, times w."""
    of_waves = torch.einsum("kp,kq->kpq", frequencies @ directions, waves.T @ w)
    return torch.cat((of_waves, (dense @ directions).mT @ w))


def _forms(
    moments: Float[Tensor, "columns rank rank"], gram: Float[Tensor, "rank rank"]
) -> Float[Tensor, "columns rank rank"]:
    """The symmetric matrices A of the forms nearest to each column."""
    variances, axes = torch.linalg.eigh(gram)
    variances = variances.clamp(min=torch.finfo(gram.dtype).eps * float(variances[-1]))
    return axes @ nearest_form(axes.T @ moments @ axes, variances) @ axes.T


def _products(
    waves: Float[Tensor, "batch waves"], frequencies: Tensor, dense: Tensor
) -> Float[Tensor, "columns columns"]:
    """The inner products of all columns."""
    among = (waves.T @ waves) * (frequencies @ frequencies.T)
    across = (waves * (dense @ frequencies.T)).sum(dim=1).T
    rows = dense.flatten(1)
    return torch.cat(
        (torch.cat((among, across), dim=1), torch.cat((across.T, rows @ rows.T), dim=1))
    )


def _solve(
    left: Float[Tensor, "columns columns"], ridges: Float[Tensor, " weights"], seen: Tensor
) -> Float[Tensor, " weights"]:
    """The coefficients of the columns but the last one, which is fitted by those that are seen."""
    weights, columns = torch.zeros_like(ridges), seen[:-1].nonzero().flatten()
    scale = left.diagonal()[columns].sqrt()
    gram = left[columns][:, columns] / scale / scale.unsqueeze(1) + ridges[columns].diag()
    weights[columns] = torch.linalg.solve(gram, left[columns, -1] / scale) / scale
    return weights


@dataclass(frozen=True)
class SmallNetwork:
    r"""A network of two hidden layers, as a potential, fitted to what :class:`RandomFeatures`
    without waves leave of the field.

    Arguments:
        width: The width of its layers.
        steps: The steps of Adam on all points of a fit at once.
        lr: The first learning rate, which falls to zero along a cosine.
    """

    width: int = 64
    steps: int = 400
    lr: float = 1e-2

    def __post_init__(self) -> None:
        check_count("the width of a network", self.width)
        check_count("the steps of a fit", self.steps)
        check_positive("a learning rate", self.lr)

    def describe(self) -> str:
        return f"a network of width {self.width}, {self.steps} steps"

    def at(
        self,
        offsets: Float[Tensor, "batch dim"],
        domain: Domain,
        sigma: float,
        noise: Noise,
        parts: int,
    ) -> Callable[[Values], Gradient]:
        _check_flat(self, domain)
        common = RandomFeatures(0).at(offsets, domain, sigma, noise, parts)
        unit = float(offsets.square().mean().sqrt())

        def fit(given: Values) -> Gradient:
            base = common(given)
            rest = given.field - base(given)
            size = float(rest.square().mean().sqrt())
            network = self._start(offsets, noise)
            if size > 0:
                self._train(network, given.offsets / unit, rest / size)
            return lambda at: base(at) + size * _slope(network, at.offsets / unit).detach()

        return fit

    def _start(self, offsets: Tensor, noise: Noise) -> nn.Sequential:
        sizes = (offsets.shape[1], self.width, self.width, 1)
        layers: list[nn.Module] = []
        for k, (inputs, outputs) in enumerate(pairwise(sizes)):
            layer = nn.Linear(inputs, outputs, dtype=offsets.dtype, device=offsets.device)
            index = torch.arange(outputs, device=offsets.device)
            drawn = noise.normal(f"diagnostics/layer {k}", (inputs,), index, dtype=offsets.dtype)
            layer.weight.data.copy_(drawn / math.sqrt(inputs))
            layer.bias.data.zero_()
            layers += [layer, nn.SiLU()]
        return nn.Sequential(*layers[:-1])

    def _train(self, network: nn.Sequential, u: Tensor, rest: Tensor) -> None:
        # The last bias has no gradient.
        weights = list(network.parameters())[:-1]
        adam = torch.optim.Adam(weights, lr=self.lr)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, self.steps)
        with torch.enable_grad():
            for _ in range(self.steps):
                loss = (_slope(network, u) - rest).square().mean()
                grads = torch.autograd.grad(loss, weights)
                for weight, grad in zip(weights, grads, strict=True):
                    weight.grad = grad
                adam.step()
                decay.step()


def _slope(network: nn.Module, u: Tensor) -> Tensor:
    """The gradient of a network's output in its input."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        (slope,) = torch.autograd.grad(network(u).sum(), u, create_graph=True)
    return slope

r"""Exact posteriors of normal distributions and their mixtures under linear measurements.

Conditioned on :math:`y = A x_0 + \tau n`, the mixture :math:`\sum_k w_k N(m_k, \Sigma_k)` is
again a mixture, with :math:`S_k = A \Sigma_k A^T + \tau^2 I` and :math:`G_k = \Sigma_k A^T
S_k^{-1}`:

.. math:: w_k' \propto w_k\, N(y; A m_k, S_k), \qquad m_k' = m_k + G_k (y - A m_k), \qquad
    \Sigma_k' = \Sigma_k - G_k A \Sigma_k .

References:
    Pattern recognition and machine learning (Bishop, 2006), equations 2.113 to 2.117.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from scorefield.checks import check_kind, check_positive, kind_of
from scorefield.domain import Euclidean
from scorefield.errors import UnsupportedError, UserError
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import Classes
from scorefield.fields.forms import Batch, Quantity, Times
from scorefield.fields.observation import Observation
from scorefield.noise import Noise
from scorefield.sde.base import SDE
from scorefield.targets.base import Target
from scorefield.targets.gaussian import Gaussian, Normals
from scorefield.targets.mixture import GaussianMixture


def exact_posterior(prior: Gaussian | GaussianMixture, observation: Observation) -> GaussianMixture:
    """The distribution of the data given one linear measurement, a target under the process of the
    prior; :class:`ExactPosteriors` is the field of many.

    Raises:
        TypeError: If the prior is of another kind.
        ValueError: If the points of the prior are no vectors; if the observation is not by a
            matrix, has no noise, does not measure such points or has many measurements.

    Example:
        >>> truth = exact_posterior(prior, observation)
        >>> score_error(MMPS(prior, observation), truth, protocol)
    """
    found = _condition(prior, observation)
    if observation.count is not None:
        raise UserError(
            f"an exact posterior is of one measurement, not {observation.count}: the field of all "
            "is sf.ExactPosteriors(prior, observation)"
        )
    return GaussianMixture(
        found.means[0], covariances=found.covariances, weights=found.weights[0], sde=prior.sde
    )


class ExactPosteriors(ScoreField):
    """The exact posterior field of many linear measurements, which are its classes.

    Arguments:
        prior: The distribution of the data.
        observation: The measurements, by a matrix and with noise.

    Raises:
        TypeError: If the prior is of another kind.
        ValueError: If the points of the prior are no vectors; if the observation is not by a
            matrix, has no noise, does not measure such points or has no number of measurements.
    """

    means: Tensor
    weights: Tensor

    def __init__(self, prior: Gaussian | GaussianMixture, observation: Observation) -> None:
        found = _condition(prior, observation)
        if observation.count is None:
            raise UserError(
                "one measurement has one posterior, the target sf.exact_posterior(prior, "
                "observation)"
            )
        super().__init__(prior.sde, prior.domain)
        self.observation = observation
        self.components = Normals(found.means[0], covariances=found.covariances)
        self.register_buffer("means", found.means)
        self.register_buffer("weights", found.weights)

    @property
    def classes(self) -> int | None:
        return len(self.means)

    @property
    def unlabelled(self) -> bool:
        return False

    def sample(
        self,
        n: int,
        seed: int,
        classes: Int[Tensor, " n"] | int,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "n d"]:
        """The samples 0 … n - 1 of a seed, clean, each of the posterior of its class."""
        noise, index = Noise(seed), torch.arange(n, device=self.means.device)
        rows = self.class_rows(classes, index)
        u = noise.uniform("data component", (1,), index, dtype=torch.float64)
        k = (u >= self.weights[rows].cumsum(dim=1)[:, :-1]).sum(dim=1)
        z = noise.normal("data", self.domain.shape, index, dtype=torch.float64)
        return (self.means[rows, k] + self.components.deviate(z, k)).to(dtype)

    def predict(self, x: Batch, t: Times, quantity: Quantity, classes: Classes = None) -> Batch:
        return self._at(x, classes).predict(x, t, quantity)

    @property
    def has_jacobian(self) -> bool:
        return True

    def jacobian(
        self, x: Batch, t: Times, classes: Classes = None
    ) -> Float[Tensor, "batch dim dim"]:
        return self._at(x, classes).jacobian(x, t)

    @property
    def has_potential(self) -> bool:
        return True

    def potential(self, x: Batch, t: Times, classes: Classes = None) -> Float[Tensor, " batch"]:
        return self._at(x, classes).potential(x, t)

    def _at(self, x: Tensor, classes: Classes) -> _OfRows:
        rows = self.class_rows(classes, x)
        return _OfRows(self.means[rows], self.components, self.weights[rows], self.sde)


class _Moved(Normals):
    """Normal distributions with the covariances of others, and means of their own at each point."""

    def __init__(self, means: Float[Tensor, "b k d"], normals: Normals) -> None:
        nn.Module.__init__(self)
        self.register_buffer("means", means)
        self.register_buffer("variances", normals.variances)
        self.register_buffer("axes", normals.axes)


class _OfRows(GaussianMixture):
    """A mixture with means and weights of its own at each point."""

    def __init__(
        self,
        means: Float[Tensor, "b k d"],
        normals: Normals,
        weights: Float[Tensor, "b k"],
        sde: SDE,
    ) -> None:
        Target.__init__(self, Euclidean((means.shape[2],)), sde)
        self.components = _Moved(means, normals)
        self.register_buffer("weights", weights)


class _Conditional(NamedTuple):
    """The mixtures of all measurements, of which there is one without a number."""

    means: Float[Tensor, "n k d"]
    covariances: Float[Tensor, "k d d"]
    weights: Float[Tensor, "n k"]


def _condition(prior: Gaussian | GaussianMixture, observation: Observation) -> _Conditional:
    if not isinstance(prior, Gaussian | GaussianMixture):
        raise UnsupportedError(
            "an exact posterior is that of a Gaussian or a GaussianMixture, not of "
            f"{kind_of(prior)}"
        )
    check_kind("the observation of a posterior", observation, Observation)
    if len(prior.domain.shape) != 1:
        raise UserError(
            f"an exact posterior is of vectors, and the prior has points of shape "
            f"{prior.domain.shape}"
        )
    observation.check(prior.domain.shape)
    if observation.matrix is None:
        raise UserError("an exact posterior is known for an observation by a matrix only")
    check_positive("the noise of an observation with an exact posterior", observation.noise)
    a, y = observation.matrix, torch.atleast_2d(observation.y)
    if isinstance(prior, Gaussian):
        means, covariances = prior.mean.unsqueeze(0), prior.covariance.unsqueeze(0)
        weights = torch.ones_like(means[:, 0])
    else:
        means, covariances, weights = prior.means, prior.covariances, prior.weights
    noise = observation.noise**2 * torch.eye(len(a), dtype=a.dtype, device=a.device)
    data = torch.distributions.MultivariateNormal(means @ a.T, a @ covariances @ a.T + noise)
    logs = weights.log() + data.log_prob(y.unsqueeze(1))
    gain = torch.linalg.solve(data.covariance_matrix, a @ covariances).mT
    moved = means + torch.einsum("kdm,nkm->nkd", gain, y.unsqueeze(1) - means @ a.T)
    # Joseph's form, symmetric and positive under rounding.
    kept = torch.eye(means.shape[1], dtype=a.dtype, device=a.device) - gain @ a
    found = kept @ covariances @ kept.mT + observation.noise**2 * gain @ gain.mT
    weights = logs.softmax(dim=1).clamp(min=torch.finfo(logs.dtype).tiny)
    return _Conditional(moved, 0.5 * (found + found.mT), weights)

r"""Importance weights: samples of a model as samples of a density that is known up to a constant.

Of points :math:`x_i` with the density :math:`q` of a model, and a density
:math:`p = e^{\ell} / Z` of which :math:`\ell` is known, the weights are

.. math:: w_i = e^{\ell(x_i)} / q(x_i), \qquad \mathbb{E}_q[w] = Z, \qquad
    \mathbb{E}_p[f] = \mathbb{E}_q[w f] / \mathbb{E}_q[w],

whatever the model, as long as its density is not zero where the other is not. How good it is, is
the share of effective samples,

.. math:: \frac{\mathbb{E}_q[w]^2}{\mathbb{E}_q[w^2]} = \frac{1}{1 + \chi^2(p \,\|\, q)} ,

which is 1 for :math:`q = p`. It is measured at samples of the model: what the model leaves out
altogether is not seen, neither in the share nor in its interval, and the share of heavy-tailed
weights is too large until their heaviest has been drawn.

References:
    Monte Carlo theory, methods and examples (Owen, 2013), sections 9.1 to 9.3.

    Boltzmann generators: sampling equilibrium states of many-body systems with deep learning (Noé,
    Olsson, Köhler and Wu, 2019), for weights of a model against an energy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.checks import check_count, check_kind, check_rows, kind_of
from scorefield.engine import device_of, exact
from scorefield.errors import UnsupportedError, UserError
from scorefield.estimate import Estimate, ratio
from scorefield.fields.base import ScoreField, check_field
from scorefield.fields.classes import Classes
from scorefield.likelihood.compute import log_prob
from scorefield.likelihood.density import LogProb
from scorefield.noise import Noise
from scorefield.samplers.latent import check_points, decode
from scorefield.samplers.weights import effective_share, log_mean
from scorefield.targets.base import Target
from scorefield.targets.energy import Energy


class FlowSamples(NamedTuple):
    """Samples of the probability flow of a field, and their log-densities."""

    x: Float[Tensor, "n *event"]
    log_prob: LogProb


def flow_samples(
    field: ScoreField,
    n: int,
    seed: int = 0,
    rtol: float = 1e-4,
    atol: float = 1e-4,
    classes: Classes = None,
) -> FlowSamples:
    r"""Sample the probability flow of a field, with the log-density of each sample.

    The samples are the scaled states at the least noise level, without removal of its noise: those
    whose density :func:`~.log_prob` is. Both are computed in float64, with exact traces up to the
    dimension :data:`~scorefield.likelihood.compute.EXACT_UP_TO`.

    Arguments:
        field: The field.
        n: The number of samples.
        seed: The seed of the codes, with addresses of purpose ``"prior"``, and of probes.
        rtol: The relative tolerance of both integrations.
        atol: The absolute tolerance.
        classes: The class of each sample, or of all.

    Raises:
        ValueError: If ``n`` is not positive, a tolerance is out of its range, or the classes do not
            fit.
        StalledError: If a sample does not arrive.
    """
    check_field(field)
    check_count("n", n)
    index = torch.arange(n, device=device_of(field))
    z = field.sde.prior(field.domain).sample(Noise(seed), index, torch.float64)
    with exact():
        x = decode(field, z, rtol, atol, classes=classes).x
    return FlowSamples(x, log_prob(field, x, rtol=rtol, atol=atol, seed=seed, classes=classes))


@dataclass(frozen=True, eq=False)
class Importance:
    r"""Weighted samples of a density that is known up to a constant.

    Attributes:
        x: The samples.
        log_weights: The logarithms of their weights, in nats.
        share: The share :math:`(\sum w)^2 / (n \sum w^2)` of effective samples, with its error by
            the jackknife and what the solver may have added.
        log_constant: The logarithm of the mean weight, an estimate of :math:`\log Z`.
    """

    x: Tensor
    log_weights: Float[Tensor, " n"]
    share: Estimate
    log_constant: Estimate

    @property
    def weights(self) -> Float[Tensor, " n"]:
        """The weights, of sum 1."""
        return self.log_weights.softmax(dim=0)

    @property
    def effective(self) -> float:
        """The effective number of samples."""
        return len(self.x) * self.share.value

    def mean(self, values: Float[Tensor, " n"]) -> Estimate:
        r"""The mean of a function under the known density, by its values at the samples: the
        self-normalised estimate, with its error by the delta method.

        Raises:
            ValueError: If there is not one value for each sample.
        """
        if values.shape != self.log_weights.shape:
            raise UserError(
                f"there are {len(self.x)} samples, and values of shape {tuple(values.shape)}"
            )
        w = (self.log_weights - self.log_weights.max()).exp()
        return ratio((w * values).cpu().numpy(), w.cpu().numpy())

    def __repr__(self) -> str:
        return (
            f"Importance({len(self.x)} samples, effective share {self.share}, log Z "
            f"{self.log_constant})"
        )


def importance(
    target: Energy | Target,
    x: Float[Tensor, "n *event"],
    log_q: LogProb | Float[Tensor, " n"],
) -> Importance:
    r"""Weight samples of a model by a density that is known up to a constant.

    Arguments:
        target: An energy, or a target, whose density is that of its data.
        x: Independent samples of the model, at least two.
        log_q: The log-densities of the model at its samples, in nats: those of
            :func:`flow_samples`, or of :meth:`~.NormalizedField.log_prob` where the samples are
            those of the potential. By probes they are estimates, and the weights are biased by the
            exponential of their variance.

    Raises:
        TypeError: If the target is neither.
        ValueError: If the samples do not fit it, there are not as many log-densities, or a weight
            is not a number.

    Example:
        >>> drawn = flow_samples(field, n=1024)
        >>> found = importance(DoubleWell(), drawn.x, drawn.log_prob)
        >>> found.share, found.log_constant
    """
    if not isinstance(target, Energy | Target):
        raise UnsupportedError(
            f"a target is an Energy or a Target, with a log-density, got {kind_of(target)}"
        )
    check_points(target, x)
    check_rows("x", x, 2)
    values, errors = log_q, None
    if isinstance(log_q, LogProb):
        values, errors = log_q.value, log_q.solver_error.double()
    check_kind("log_q", values, Tensor)
    assert isinstance(values, Tensor)
    if values.shape != x.shape[:1]:
        raise UserError(
            f"log_q has the shape {tuple(values.shape)}, and there are {len(x)} samples"
        )
    with torch.no_grad():
        logs = target.log_density(x.double(), 0.0) - values.double()
    bad = int(logs.isnan().sum() + logs.isposinf().sum())
    if bad or not bool(logs.isfinite().any()):
        raise UserError(
            f"{bad or len(x)} of {len(x)} samples have a weight that is not a positive number"
        )
    return Importance(x, logs, effective_share(logs, errors), log_mean(logs, errors))

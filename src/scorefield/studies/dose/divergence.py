r"""The Kullback–Leibler divergence from log-densities at points of the true distribution.

With :math:`u = \log q(x) - \log p(x)` and :math:`x \sim p`, the terms of the plain mean of
:math:`-u` have a standard deviation of :math:`\sqrt{2\,\mathrm{KL}}`, far more than KL where it is
small. Since :math:`q` is normalised, :math:`\mathbb{E}_p (e^u - 1) = 0`, and

.. math:: \mathrm{KL}(p\,\|\,q) = \mathbb{E}_p\big[-u + \beta\,(e^u - 1)\big]

for every :math:`\beta`. For small :math:`u` the best is :math:`\beta = 1`, with terms
:math:`u^2 / 2 + O(u^3)`; for large :math:`u`, where :math:`e^u` has heavy tails, it is smaller.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean
from scorefield.likelihood import LogProb


class Divergence(NamedTuple):
    r"""Terms whose mean is :math:`\mathrm{KL}(p\,\|\,q)`, a row a point, in nats.

    Attributes:
        terms: The terms.
        errors: What the integration of each log-density may have added to its term.
    """

    terms: Float[Tensor, " n"]
    errors: Float[Tensor, " n"]

    def estimate(self) -> Estimate:
        """Their mean."""
        found = mean(self.terms.cpu().numpy(), "nats")
        return Estimate(
            found.value, found.standard_error, found.n, "nats", {}, float(self.errors.mean())
        )

    def excess(self, base: Divergence) -> Divergence:
        """The terms less those of another model at the same points, whose noise they share."""
        return Divergence(self.terms - base.terms, self.errors + base.errors)


def divergence(log_p: Float[Tensor, " n"], log_q: LogProb) -> Divergence:
    r"""The terms of :math:`\mathrm{KL}(p\,\|\,q)`.

    The coefficient :math:`\beta` of each half of the points is that which makes the variance of the
    other half least, so that it depends on none of the points that it is used for.

    Arguments:
        log_p: The true log-densities at points of the true distribution, in nats.
        log_q: The model's log-densities there.

    Raises:
        ValueError: For fewer than four points.
    """
    if len(log_p) < 4:
        raise UserError(f"a divergence takes at least 4 points, got {len(log_p)}")
    u = log_q.value - log_p
    control = u.expm1()
    beta = torch.empty_like(u)
    beta[::2], beta[1::2] = _best(u[1::2], control[1::2]), _best(u[::2], control[::2])
    # Of a change e of u, to second order.
    e = log_q.solver_error
    errors = (beta * u.exp() - 1).abs() * e + 0.5 * beta.abs() * u.exp() * e.square()
    return Divergence(beta * control - u, errors)


def _best(u: Tensor, control: Tensor) -> Tensor:
    centred = control - control.mean()
    variance = centred.square().sum()
    return (u * centred).sum() / variance if variance > 0 else torch.ones_like(variance)

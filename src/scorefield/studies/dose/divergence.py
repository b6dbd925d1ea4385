r"""The divergence of a model's distribution from the data's, by log-densities at common points."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean
from scorefield.likelihood.density import LogProb


class Divergence(NamedTuple):
    r"""Terms whose mean is :math:`\mathrm{KL}(p\,\|\,q)`, a row a point, in nats."""

    terms: Float[Tensor, " n"]
    errors: Float[Tensor, " n"]

    def estimate(self) -> Estimate:
        """Their mean."""
        found = mean(self.terms.cpu().numpy(), "nats")
        return replace(found, numerical_error=float(self.errors.mean()))

    def excess(self, base: Divergence) -> Divergence:
        """The terms less those of another model at the same points, whose noise they share."""
        return Divergence(self.terms - base.terms, self.errors + base.errors)


def divergence(log_p: Float[Tensor, " n"], log_q: LogProb) -> Divergence:
    r"""The terms of :math:`\mathrm{KL}(p\,\|\,q)`.

    The coefficient :math:`\beta` of each half of the points is that which makes the variance of the
    other half least, so that it depends on none of the points that it is used for.
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


def likelihood_error(log_p: Float[Tensor, " n"], log_q: LogProb) -> Estimate:
    r"""The mean error of the log-density in size :math:`\mathbb{E}\,|\log q - \log p|`, in nats."""
    found = mean((log_q.value - log_p).abs().cpu().numpy(), "nats")
    return replace(found, numerical_error=float(log_q.solver_error.mean()))


def _best(u: Tensor, control: Tensor) -> Tensor:
    centred = control - control.mean()
    variance = centred.square().sum()
    return (u * centred).sum() / variance if variance > 0 else torch.ones_like(variance)

r"""The forms of a field, and the conversions between them.

All forms are combinations of the posterior means of the data and of the noise,
:math:`D = \mathbb{E}[x_0 \mid x_t]` and :math:`E = \mathbb{E}[\varepsilon \mid x_t]`, which
:math:`x_t = \alpha D + \sigma E` connects:

.. math::
    \text{score} = -\frac{E}{\sigma}, \qquad
    \text{velocity} = \dot\alpha\,D + \dot\sigma\,E, \qquad
    \text{drift} = \dot\alpha\,D + (2\dot\sigma - f\sigma)\,E .

A form is therefore converted by way of the two, and what is singular is what has to be: with
:math:`w = \alpha\dot\sigma - \sigma\dot\alpha`, the velocity :math:`u` gives
:math:`D = (\dot\sigma x - \sigma u) / w` and :math:`E = (\alpha u - \dot\alpha x) / w`, also where
:math:`\alpha = 0` and no score or noise determines :math:`D`.

References:
    Score-based generative modeling through stochastic differential equations (Song et al., 2021),
    equations 6 and 13.

    Progressive distillation for fast sampling of diffusion models (Salimans and Ho, 2022),
    appendix D.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.checks import check_floating
from scorefield.errors import UserError
from scorefield.fields.inputs import check_number
from scorefield.sde.base import SDE

Quantity = Literal["score", "denoiser", "noise", "velocity", "drift"]

Batch = Float[Tensor, "batch *event"]
"""Points, or a vector at each of them."""

Times = float | Tensor
"""The time of each point, of shape ``(batch,)``, or one time for all."""


class Pair(NamedTuple):
    """The coefficients of ``of_x`` times the points plus ``of_value`` times a value at them."""

    of_x: Tensor
    of_value: Tensor


class Means(NamedTuple):
    r"""The posterior means of the data and of the noise as combinations of the points and a value
    at them, elementwise in time.
    """

    denoiser: Pair
    noise: Pair

    def form(self, quantity: Quantity, t: Tensor, sde: SDE) -> Pair:
        """A form of the field as a combination of the same two.

        Raises:
            ValueError: If it is none of the five.
        """
        match quantity:
            case "denoiser":
                return self.denoiser
            case "noise":
                return self.noise
            case "score":
                sigma = sde.sigma(t)
                return Pair(*(-c / sigma for c in self.noise))
            case "velocity":
                pairs = zip(self.denoiser, self.noise, strict=True)
                return Pair(*(sde.alpha_dot(t) * d + sde.sigma_dot(t) * e for d, e in pairs))
            case "drift":
                of_noise = 2 * sde.sigma_dot(t) - sde.drift(t) * sde.sigma(t)
                pairs = zip(self.denoiser, self.noise, strict=True)
                return Pair(*(sde.alpha_dot(t) * d + of_noise * e for d, e in pairs))
        raise _unknown(quantity)


def means(quantity: Quantity, t: Tensor, sde: SDE) -> Means:
    """The posterior means as combinations of the points and the values of a form.

    Raises:
        ValueError: If it is none of the five.
    """
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    match quantity:
        case "denoiser":
            return Means(Pair(zero, one), Pair(1 / sigma, -alpha / sigma))
        case "noise":
            return Means(Pair(1 / alpha, -sigma / alpha), Pair(zero, one))
        case "score":
            return Means(Pair(1 / alpha, sigma**2 / alpha), Pair(zero, -sigma))
    alpha_dot, sigma_dot = sde.alpha_dot(t), sde.sigma_dot(t)
    w = alpha * sigma_dot - sigma * alpha_dot
    if quantity == "velocity":
        return Means(Pair(sigma_dot / w, -sigma / w), Pair(-alpha_dot / w, alpha / w))
    if quantity == "drift":
        of_noise = 2 * sigma_dot - sde.drift(t) * sigma
        return Means(
            Pair(of_noise / (2 * w), -sigma / (2 * w)), Pair(-alpha_dot / (2 * w), alpha / (2 * w))
        )
    raise _unknown(quantity)


def affine(x: Tensor, t: Times, sde: SDE, quantity: Quantity) -> Pair:
    """The coefficients :math:`a, b` of ``quantity`` :math:`= a x + b s`, which broadcast against
    ``x``; raises ``ValueError`` if the quantity is not one of the five.
    """
    clock = times(x, t)
    if quantity == "score":
        return Pair(torch.zeros_like(clock), torch.ones_like(clock))
    return means("score", clock, sde).form(quantity, clock, sde)


def convert(
    value: Batch, x: Batch, t: Times, sde: SDE, source: Quantity, target: Quantity
) -> Batch:
    r"""Convert the values of a field at noisy points ``x`` from the form ``source`` to the form
    ``target``.

    Raises:
        ValueError: If a form is not one of the five, or the points are not floating-point numbers.
    """
    check_floating("x", x)
    if source == target:
        return value
    clock = times(x, t)
    a, b = means(source, clock, sde).form(target, clock, sde)
    return a * x + b * value


def times(x: Tensor, t: Times) -> Tensor:
    """Times in the dtype and on the device of ``x``, shaped to broadcast against it; raises
    ``ValueError`` unless there is one, or one for each point.
    """
    check_number(t, x.shape[0])
    # A number is filled in: a copy of it would be waited for.
    t = t.to(x) if isinstance(t, Tensor) else x.new_full((), t)
    return t.reshape(-1, *(1,) * (x.dim() - 1))


def _unknown(quantity: str) -> UserError:
    names = ", ".join(get_args(Quantity))
    return UserError(f"the parametrisations of a field are {names}, not {quantity!r}")

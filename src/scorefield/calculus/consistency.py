r"""Consistency of a field between noise levels: reverse trajectories and their targets.

For the exact field, two averages over the reverse process from :math:`x_s` at a time :math:`s` to
:math:`x_e` at an earlier time :math:`e` are known: with the denoiser
:math:`h(x, t) = \mathbb{E}[x_0 \mid x_t = x]`,

.. math::
    \nabla \log p_s(x_s) = \mathbb{E}\big[\nabla_{x_s} \log p(x_s \mid x_e) \,\big|\, x_s\big],
    \qquad h(x_s, s) = \mathbb{E}\big[h(x_e, e) \,\big|\, x_s\big].

By the first, the score is the mean of those of the transition kernels; by the second, the
denoiser is a martingale. From the end of one trajectory each gives a *target* :math:`y` for the
score in units of the noise, :math:`\mathbb{E}[y \mid x_s] = \sigma_s \nabla \log p_s(x_s)`. A field
under evaluation draws the trajectory itself, or a guide does. On a torus trajectories are in
the covering space, where denoiser and displacement are continuous.

References:
    Consistent diffusion models: mitigating sampling drift by learning to be consistent (Daras,
    Dagan, Dimakis and Daskalakis, 2023), for the martingale.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.checks import inspect
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import Classes
from scorefield.sde.discrete import Exact


def reverse_trajectory(
    field: ScoreField,
    x: Float[Tensor, "batch *event"],
    times: Float[Tensor, "points batch"],
    normals: Float[Tensor, "steps batch *event"],
    first: Float[Tensor, "batch *event"] | None = None,
    classes: Classes = None,
) -> Float[Tensor, "steps batch *event"]:
    r"""The states of the reverse process after each of :math:`K` steps; no gradient.

    With the transition :math:`x_t = f x_u + \delta z` of the process, a step from :math:`t` back to
    :math:`u` is

    .. math:: x \leftarrow (2 - f)\,x + \delta^2 s(x, t) + \delta z,

    of weak order 1. On a torus states are not wrapped, and the field is evaluated at wrapped
    points. The cost is one evaluation of the field per step.

    Arguments:
        times: The :math:`K + 1` times of each point, descending; their precision is that of the
            steps.
        normals: The standard normals of the steps.
        first: The score at ``x``, where it is known; the first step then costs nothing.
    """
    if len(normals) != len(times) - 1:
        raise UserError(f"{len(times)} times are {len(times) - 1} steps, not {len(normals)}")
    inspect(times, _check_descending)
    forward = Exact().step(field.sde, times[:-1], times[1:])
    shape = (*times[1:].shape, *(1,) * (x.dim() - 1))
    factor, std = (c.to(x.dtype).reshape(shape) for c in (forward.factor, forward.std))
    keep, gain = 2 - factor, std**2
    states = []
    with torch.no_grad():
        for k, t in enumerate(times[:-1].to(x.dtype)):
            score = first if k == 0 else None
            if score is None:
                score = field.score(field.domain.wrap(x), t, classes)
            x = keep[k] * x + gain[k] * score + std[k] * normals[k]
            states.append(x)
    return torch.stack(states)


def kernel_target(
    field: ScoreField,
    x_s: Float[Tensor, "batch *event"],
    s: Float[Tensor, " batch"],
    x_e: Float[Tensor, "batch *event"],
    e: Float[Tensor, " batch"],
) -> Float[Tensor, "batch *event"]:
    r"""The target :math:`\sigma_s \nabla_{x_s} \log p(x_s \mid x_e)` of the transition kernel.

    .. math:: p(x_s \mid x_e) = N\big(f x_e,\; (\sigma_s^2 - f^2 \sigma_e^2) I\big),
        \qquad f = \alpha_s / \alpha_e,

    wrapped on a torus. Its variance grows without bound as :math:`e` comes near :math:`s`. The
    field provides the process and the domain, and is not evaluated.
    """
    factor, std = field.sde.transition(e, s)
    delta = field.domain.displacement(_column(factor, x_e) * x_e, x_s)
    sigma = field.sde.sigma(s).to(x_s.dtype)
    return _column(sigma, x_s) * field.domain.kernel_score(delta, std.to(x_s.dtype))


def martingale_target(
    field: ScoreField,
    x_s: Float[Tensor, "batch *event"],
    s: Float[Tensor, " batch"],
    x_e: Float[Tensor, "batch *event"],
    e: Float[Tensor, " batch"],
    classes: Classes = None,
) -> Float[Tensor, "batch *event"]:
    r"""The target :math:`(h(x_e, e) - x_s / \alpha_s) / \lambda_s` of the denoiser :math:`h`; on a
    torus :math:`x_e` is not wrapped.

    Less the field's own :math:`\sigma_s s(x_s, s) = (h(x_s, s) - x_s / \alpha_s) / \lambda_s` it
    is the residual :math:`h(x_e, e) - h(x_s, s)` of the martingale in units of the noise. The cost
    is one evaluation of the field; differentiable in what the field depends on.
    """
    sde = field.sde
    noise = field.predict_noise(field.domain.wrap(x_e), e.to(x_e.dtype), classes)
    end = (x_e - _column(sde.sigma(e), x_e) * noise) / _column(sde.alpha(e), x_e)
    start = x_s / _column(sde.alpha(s), x_s)
    return (end - start) / _column(sde.noise_level(s), x_s)


def _column(value: Tensor, like: Tensor) -> Tensor:
    """One value per point, in the dtype of points and shaped to broadcast against them."""
    return value.to(like.dtype).reshape(-1, *(1,) * (like.dim() - 1))


def _check_descending(times: Tensor) -> None:
    if bool((times[1:] > times[:-1]).any()):
        raise UserError("the times of a reverse trajectory must descend")

r"""How a log-density grows with the noise.

In units of the data, :math:`\hat x = x_t / \alpha`, every process is :math:`\hat x = x_0 +
\lambda\varepsilon`, and its density is
:math:`\hat p_\lambda(\hat x) = \alpha^D p_t(\alpha \hat x)`. At a point :math:`\hat x` that is kept

.. math:: \frac{\partial \ln \hat p_\lambda}{\partial \ln\lambda}
    = \mathbb{E}\big[\, |\varepsilon|^2 - D \,\big|\, \hat x \big]
    = \lambda^2 \big( \Delta \ln \hat p_\lambda + |\nabla \ln \hat p_\lambda|^2 \big),

the mean over the data of the same derivative of the kernel :math:`N(x_0, \lambda^2 I)`. In time it
is, for any process with :math:`f = \dot\alpha / \alpha`,

.. math:: \partial_t \ln p_t(x) = \frac{g^2}{2\sigma^2}\,
    \frac{\partial \ln \hat p_\lambda}{\partial \ln\lambda}
    - f\,\big( \langle x, \nabla \ln p_t(x) \rangle + D \big), \qquad
    \frac{\mathrm{d} \ln\lambda}{\mathrm{d} t} = \frac{g^2}{2\sigma^2} ,

since the point :math:`x = \alpha \hat x` moves with :math:`\alpha`. With :math:`\alpha = 1` and the
variance :math:`\sigma^2` as time, this is :math:`\partial_t U` of dual score matching, for
:math:`U = -\ln p`.

References:
    Learning normalized image densities via dual score matching (Guth, Kadkhodaie and Simoncelli,
    2025, arXiv 2506.05310), for the derivative in time as a posterior mean.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.fields.base import ScoreField
from scorefield.fields.gradient import differentiable, outside_inference


@outside_inference
def growth(
    field: ScoreField, x: Float[Tensor, "batch *event"], t: Float[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    r"""The derivative of a potential :math:`\phi` in :math:`\ln\lambda`, per nat, at points
    :math:`\hat x` in units of the data that are kept.

    .. math:: \frac{2\sigma^2}{g^2}\, \frac{\mathrm{d}}{\mathrm{d}t}
        \big[ \phi(\alpha(t)\,\hat x, t) + D \ln \alpha(t) \big]

    It takes one evaluation of the potential and one pass back to the times, and is differentiable
    in the parameters of the field where gradients are enabled.

    Raises:
        TypeError: If the field has no potential.
    """
    sde, keep = field.sde, torch.is_grad_enabled()
    with differentiable(), torch.enable_grad():
        clock = t.detach().clone().requires_grad_()
        alpha = sde.alpha(clock)
        points = x if sde.keeps_mean else alpha.reshape(-1, *(1,) * (x.dim() - 1)) * x
        energy = field.potential(points, clock) + field.domain.dim * alpha.log()
        # A potential that does not depend on the time has no way back to it.
        (rate,) = torch.autograd.grad(
            energy.sum(), clock, create_graph=keep, materialize_grads=True
        )
    return rate * (2 * sde.sigma(t) ** 2 / sde.diffusion_squared(t))

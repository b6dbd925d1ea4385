"""Dual score matching: a potential that grows with the noise as a log-density does."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.calculus.growth import growth
from scorefield.checks import check_positive
from scorefield.errors import UnsupportedError
from scorefield.fields.base import ScoreField
from scorefield.noise import Noise
from scorefield.objectives.denoising import NoiseLaw
from scorefield.objectives.regularizer import PointLaw, PointRegularizer

_GROUP = 16
"""The number of rows of a group of neighbouring noise levels."""


class DualScoreMatching(PointRegularizer):
    r"""The regression of a potential's derivative in the noise level.

    .. math:: \mathbb{E}\; \frac{1}{2 D\,\rho^2 (2 - \rho^2)} \Big(
        \frac{\partial \hat\phi}{\partial \ln\lambda} - \big( |\varepsilon|^2 - D \big) \Big)^2,
        \qquad \hat\phi(\hat x, \lambda) = \phi(\alpha \hat x, t) + D \ln\alpha, \qquad
        \rho^2 = \frac{\sigma_d^2}{\sigma_d^2 + \lambda^2},

    at noised points of the batch, :math:`\hat x = x_0 + \lambda\varepsilon`. Denoising score
    matching leaves a constant at each noise level undetermined; this one, whose target has the mean
    :math:`\partial \ln\hat p_\lambda / \partial \ln\lambda` at a given point, leaves a single
    constant. At the greatest noise level the density is known: :func:`~.normalized.normalized`
    finds the constant there, and the potential is a log-density, in one call of the network.

    The noise level is the coordinate in which all processes have one target. In time it is,
    at a given :math:`x_t` and with :math:`f = \dot\alpha / \alpha`,

    .. math:: \partial_t \ln p(x_t \mid x_0) =
        \frac{\dot\sigma}{\sigma} \big( |\varepsilon|^2 - D \big)
        + \frac{\dot\alpha}{\sigma} \langle x_0, \varepsilon \rangle :

    * VE and EDM, :math:`\alpha = 1`: :math:`(\dot\sigma / \sigma)(|\varepsilon|^2 - D)`, which with
      the variance :math:`\tau = \sigma^2` as time is
      :math:`|\hat x - x_0|^2 / 2\tau^2 - D / 2\tau`;
    * VP, cosine and discrete VP, :math:`\alpha^2 + \sigma^2 = 1`, with the rate
      :math:`\beta = -2\dot\alpha / \alpha`: :math:`\frac{\beta\alpha}{2\sigma^2} \big(
      \alpha (|\varepsilon|^2 - D) - \sigma \langle x_0, \varepsilon \rangle \big)`;
    * sub-VP, :math:`\sigma = 1 - \alpha^2`: :math:`\frac{\beta\alpha}{2\sigma} \big(
      2\alpha (|\varepsilon|^2 - D) - \langle x_0, \varepsilon \rangle \big)`;
    * rectified flow, :math:`\alpha = 1 - t`, :math:`\sigma = t`:
      :math:`\frac1t \big( |\varepsilon|^2 - D - \langle x_0, \varepsilon \rangle \big)`.

    Each is :math:`\frac{\dot\lambda}{\lambda} (|\varepsilon|^2 - D) - f (\langle x_t,
    -\varepsilon / \sigma \rangle + D)`; the second term is the move of :math:`x_t = \alpha \hat x`
    in the conditional score, which denoising score matching regresses on already. On a torus
    :math:`|\varepsilon|^2 - D` is the same derivative of the wrapped kernel.

    The target at a given point has the variance :math:`2 D \rho^2 (2 - \rho^2)` on average, if the
    data are normal; the weight makes it 1 at every noise level. Without it, errors at high noise
    hide in the scatter at low noise, and as errors are summed over :math:`\ln\lambda` from the
    greatest noise down, all log-densities have them. :class:`~.LogUniform` gives each
    :math:`\ln\lambda` the same attention.

    Most of what the scatter does is to move the constants of the noise levels, which all points of
    a level have in common. At every noise level :math:`|\varepsilon|^2 - D` has the mean zero, and
    of its variance :math:`2D` the part :math:`r = \rho^2 (2 - \rho^2)` is scatter at a given point.
    From each target :math:`r` times the mean of the 15 others in its group of neighbouring levels
    is taken; rows that are left over, those of the highest levels, stay as they are. That mean has
    the expectation zero and is independent of the row's own point and noise, so that the target's
    mean at a given point stays what it is. At given points, the variance of what the rows of a
    group have in common falls by the factor :math:`1 - r`, and that of a target rises by
    :math:`r / 15` of itself.

    The rest of the scatter goes into the gradient, times the sensitivity of the potential to the
    network's label, and can keep a network from resolving the data. A small weight avoids that, and
    :class:`~.EnergyScaling`, whose potential is not multiplied by :math:`1 / \lambda`. The cost is
    one evaluation of the potential, with a pass back to the time.

    Fields that know classes are refused: a regulariser sees no classes, and each class would keep
    its own constant at each noise level. Train a field of one class.

    Arguments:
        weight: The weight relative to the base loss.
        rows: The number of points, at most the batch.
        sigma_data: The standard deviation :math:`\sigma_d` of the data.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: In use, if the field has no potential, or knows classes.

    References:
        Learning normalized image densities via dual score matching (Guth, Kadkhodaie and
        Simoncelli, 2025, arXiv 2506.05310).
    """

    name = "dual"

    sigma_data: float
    points: PointLaw = dataclasses.field(init=False, default="data")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("dual: sigma_data", self.sigma_data)

    def draw(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, rows: int, step: Tensor
    ) -> tuple[Tensor, ...]:
        if not field.has_potential:
            raise UnsupportedError(
                f"dual score matching needs a potential, and {type(field).__name__} has none: "
                "train a PotentialField"
            )
        if field.classes is not None:
            raise UnsupportedError(
                f"dual score matching does not see classes, and {type(field).__name__} has "
                f"{field.classes}, each with constants of its own: train a field without classes"
            )
        t, z = super().draw(field, law, noise, rows, step)
        level = field.sde.noise_level(t)
        target = field.domain.kernel_growth(z.flatten(0, 1), level.flatten()).reshape(t.shape)
        # Here, where all rows are: each of several processes evaluates some of them.
        return t, z, target - self._scatter(level) * _others(target, level)

    def evaluate(self, field: ScoreField, x: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        t, z, target = draws
        level = field.sde.noise_level(t).reshape(-1, *(1,) * (x.dim() - 1))
        return self.energy(field, field.domain.wrap(x[: len(t)] + level * z), t, target)

    def energy(self, field: ScoreField, x: Tensor, t: Tensor, *directions: Tensor) -> Tensor:
        (target,) = directions
        scatter = 2 * field.domain.dim * self._scatter(field.sde.noise_level(t))
        return ((growth(field, x, t) - target).square() / scatter).mean()

    def _scatter(self, level: Tensor) -> Tensor:
        """The part of the target's variance 2 D that it has at a given point."""
        share = self.sigma_data**2 / (self.sigma_data**2 + level**2)
        return share * (2 - share)


def _others(
    target: Float[Tensor, "steps rows"], level: Float[Tensor, "steps rows"]
) -> Float[Tensor, "steps rows"]:
    """The mean of the other targets of each one's group; zero for rows of no group, those of the
    highest levels.
    """
    order = level.argsort(dim=1, stable=True)
    grouped = order[:, : order.shape[1] // _GROUP * _GROUP]
    groups = target.gather(1, grouped).unflatten(1, (-1, _GROUP))
    means = (groups.sum(dim=2, keepdim=True) - groups) / (_GROUP - 1)
    return torch.zeros_like(target).scatter(1, grouped, means.flatten(1))

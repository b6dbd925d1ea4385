"""A regulariser on the asymmetry of the Jacobian."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from scorefield.calculus import per_coordinate, probed_asymmetry
from scorefield.calculus.asymmetry import Variant
from scorefield.fields import ScoreField
from scorefield.noise import Noise
from scorefield.objectives.regularizer import PointRegularizer

Probe = Literal["rademacher", "gaussian"]


class Asymmetry(PointRegularizer):
    r"""The mean squared asymmetry :math:`\sigma^4 \|J - J^\top\|_F^2 / D` of the score's Jacobian.

    Estimated at noisy points by ``probes`` random probes :math:`v` each, with one pass of forward
    mode (:math:`Jv`) and one of reverse mode (:math:`J^\top v`); unbiased.

    Arguments:
        variant: ``difference`` for :math:`\|Jv - J^\top v\|^2`; ``trace`` for
            :math:`2(\|J^\top v\|^2 - \langle Jv, J^\top v\rangle)`, of the same mean.
        probe: ``rademacher`` or ``gaussian``.
        probes: The number of probes a point.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Quasi-conservative score-based generative models (Chao et al., 2023), equations 9 and 12.
    """

    name = "asymmetry"

    variant: Variant = "trace"
    probe: Probe = "rademacher"
    probes: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("variant", Variant)
        self._check_choice("probe", Probe)
        self._check_positive("probes")

    def directions(
        self, field: ScoreField, noise: Noise, index: Tensor, step: Tensor
    ) -> tuple[Tensor, ...]:
        draw = noise.signs if self.probe == "rademacher" else noise.normal
        return (draw("asymmetry/probe", (self.probes, *field.domain.shape), index, step),)

    def energy(self, field: ScoreField, x: Tensor, t: Tensor, *directions: Tensor) -> Tensor:
        (v,) = directions
        x, t = x.repeat_interleave(self.probes, 0), t.repeat_interleave(self.probes, 0)
        skew, _ = probed_asymmetry(field.score, x, t, v.flatten(0, 1), self.variant)
        return per_coordinate(skew, field.sde.sigma(t), field.domain.dim).mean()

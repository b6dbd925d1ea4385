r"""Euler's method on Karras' grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from scorefield.fields.base import ScoreField
from scorefield.samplers.base import check_budget
from scorefield.samplers.grid import Levels
from scorefield.samplers.karras import KarrasSampler


@dataclass(frozen=True)
class Euler(KarrasSampler):
    r"""The first-order method: one slope a step.

    .. math:: \hat x_{i+1} = \hat x_i + (\lambda_{i+1} - \lambda_i)\,
        \mathbb{E}[\varepsilon \mid \hat x_i, \lambda_i].

    It takes :math:`N` network calls. Without churn it is DDIM in the coordinates
    :math:`(\hat x, \lambda)`. Arguments and errors are those of
    :class:`~scorefield.samplers.karras.KarrasSampler`.

    Example:
        >>> x = Euler(steps=64).sample(field, n=4096, seed=0)

    References:
        Denoising diffusion implicit models (Song, Meng and Ermon, 2021), equation 13.

        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        algorithm 2 without lines 9 to 11.
    """

    order: ClassVar[int] = 1

    @property
    def nfe(self) -> int:
        return self.steps

    @classmethod
    def for_nfe(cls, budget: int, **settings: Any) -> Euler:
        check_budget(budget)
        return cls(steps=budget, **settings)

    def _step(
        self,
        field: ScoreField,
        x: Tensor,
        slope: Tensor,
        step: int,
        start: float,
        grid: Levels,
        classes: Tensor | None,
    ) -> tuple[Tensor, int]:
        end = grid.sigma[step + 1] if step + 1 < self.steps else 0.0
        return x.add(slope, alpha=end - start), 0

r"""What every regulariser has in common, and the weight that keeps one in proportion.

A regulariser is a number that is small for the fields one wants. A subclass declares its settings
as the fields of a dataclass, all of them keywords of its constructor, and defines what is measured:

.. code-block:: python

    class SmallScore(PointRegularizer):
        name = "small_score"
        power: float = 2.0

        def energy(self, field, x, t):
            return field.predict_noise(x, t).abs().pow(self.power).mean()

    fit(field, data, regularizers=[SmallScore(weight=1e-3, power=4.0)])
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from functools import partial
from typing import Any, ClassVar, Literal, dataclass_transform, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.checks import check_count, check_not_negative, check_positive
from scorefield.domain import Torus
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField, evaluation_mode
from scorefield.noise import Lookahead, Noise
from scorefield.objectives.denoising import NoiseLaw
from scorefield.world import ALONE, World

PointLaw = Literal["data", "uniform"]
"""``data`` for noised points of the batch, ``uniform`` for uniform points on the torus, most of
which are where the data never come at little noise."""

# A module is compared by identity and shows its parts, which a dataclass would replace.
_settings = partial(dataclasses.dataclass, kw_only=True, eq=False, repr=False)


class BalancedWeight(nn.Module):
    r"""The weight :math:`\min(w_{max},\; r\,\bar L / \bar R)`.

    :math:`\bar L` and :math:`\bar R` are exponential moving averages, corrected for their start,
    of the base loss and of the regulariser over the steps at which the latter is evaluated. The
    weighted regulariser is then about :math:`r` times the base loss, and the weight is bounded
    where the regulariser vanishes. The averages are buffers: they are saved with the objective.

    Arguments:
        ratio: The proportion :math:`r`.
        max_weight: The bound :math:`w_{max}`.
        horizon: The time constant of the averages, in evaluations.

    Raises:
        ValueError: If an argument is not positive.
    """

    average: Tensor
    count: Tensor

    def __init__(self, ratio: float, max_weight: float, horizon: float = 100.0) -> None:
        super().__init__()
        for name, value in (("ratio", ratio), ("max_weight", max_weight), ("horizon", horizon)):
            check_positive(f"balance: {name}", value)
        self.ratio = ratio
        self.max_weight = max_weight
        self.horizon = horizon
        self.register_buffer("average", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def extra_repr(self) -> str:
        return f"ratio={self.ratio}, max_weight={self.max_weight}, horizon={self.horizon}"

    def forward(self, denoising: Tensor, energy: Tensor) -> Tensor:
        """Takes in the two losses of a step and returns the weight; detached."""
        with torch.no_grad():
            keep = torch.clamp(self.count / (self.count + 1), max=1 - 1 / self.horizon)
            current = torch.stack((denoising, energy)).to(self.average.dtype)
            self.average.mul_(keep).add_((1 - keep) * current)
            self.count.add_(1)
            # An energy of zero divides to infinity, which the bound then cuts.
            wanted = self.ratio * self.average[0] / self.average[1].abs()
            return wanted.clamp(max=self.max_weight).to(energy.dtype)


@dataclass_transform(kw_only_default=True, eq_default=False)
class _Settings:
    """A base of dataclasses that are not decorated. To a type checker its subclasses have settings,
    and it has none.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _settings(cls)


class Regularizer(_Settings, nn.Module, ABC):
    """A property that the field should have, as a number to be made small.

    Its random numbers are drawn for many steps at once. Subclasses are dataclasses without being
    decorated; they set ``name``, by which the term is known in metrics.

    Arguments:
        weight: The weight :math:`w`, averaged over steps; 0 switches the regulariser off. Or a
            controller that chooses it.
        every: The regulariser is evaluated at every ``every``-th step.
        sigma_min: The least noise level at which it is evaluated; the process's by default.
        sigma_max: The largest; the process's by default.

    Raises:
        ValueError: If ``weight`` is negative, ``every`` is not positive, or the noise levels are
            not positive or not in order.
    """

    name: ClassVar[str]

    weight: float | BalancedWeight
    every: int = 1
    sigma_min: float | None = None
    sigma_max: float | None = None

    def __new__(cls, **settings: Any) -> Regularizer:
        # Before the settings are set, some of which are modules.
        module = super().__new__(cls)
        nn.Module.__init__(module)
        return module

    def __post_init__(self) -> None:
        weight = self.weight
        if not isinstance(weight, BalancedWeight):
            check_not_negative(f"{self.name}: weight", weight)
        self._check_least(1, "every")
        low = self.sigma_min or 0.0
        high = math.inf if self.sigma_max is None else self.sigma_max
        if not 0 <= low < high:
            raise UserError(
                f"{self.name}: 0 < sigma_min < sigma_max must hold, got {self.sigma_min} and "
                f"{self.sigma_max}"
            )
        self._drawn_for: tuple[object, ...] | None = None
        self._lookahead: Lookahead | None = None

    @abstractmethod
    def draw(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, rows: int, step: Tensor
    ) -> tuple[Tensor, ...]:
        """The random numbers of the steps, of shape ``(steps, 1)``, for ``rows`` points; on the
        device of the steps.
        """

    @abstractmethod
    def evaluate(self, field: ScoreField, x: Tensor, draws: tuple[Tensor, ...]) -> Tensor | None:
        """The number to be made small, given the clean points of the batch and the draws.

        ``None`` where the draws leave nothing to measure.
        """

    def share(
        self, field: ScoreField, x: Tensor, draws: tuple[Tensor, ...], world: World
    ) -> Tensor | None:
        """This process's summand of :meth:`evaluate`; ``None`` in all processes or in none.

        By default each process evaluates all of it, and has an equal part.
        """
        energy = self.evaluate(field, x, draws)
        return energy if energy is None or world.size == 1 else energy / world.size

    def span(self, field: ScoreField) -> int:
        """The number of steps that are drawn at once, on which nothing drawn depends."""
        return 64

    def times(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, index: Tensor, step: Tensor
    ) -> Tensor:
        """Times of the training law between the noise levels of the regulariser."""
        purpose = f"{self.name}/time"
        return law.times(field.sde, noise, index, step, purpose, self.sigma_min, self.sigma_max)

    def forward(
        self,
        field: ScoreField,
        law: NoiseLaw,
        x: Tensor,
        noise: Noise,
        step: int,
        world: World = ALONE,
    ) -> Tensor | None:
        """The energy at a training step, or this process's summand of it; ``x`` are the clean
        points of the whole batch.
        """
        key = (id(field), law, noise, x.shape[0], x.device)
        if self._lookahead is None or key != self._drawn_for:
            draw = partial(self.draw, field, law, noise, x.shape[0])
            self._lookahead = Lookahead(draw, self.span(field), x.device)
            self._drawn_for = key
        draws = tuple(d.to(x.dtype) if d.is_floating_point() else d for d in self._lookahead(step))
        with evaluation_mode(field):
            return self.share(field, x, draws, world)

    def extra_repr(self) -> str:
        settings = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        return ", ".join(f"{k}={v}" for k, v in settings.items() if k != "training")

    def _check_least(self, least: int, *names: str) -> None:
        for name in names:
            check_count(f"{self.name}: {name}", getattr(self, name), least)

    def _check_choice(self, name: str, choices: Any) -> None:
        if getattr(self, name) not in get_args(choices):
            names = " or ".join(get_args(choices))
            raise UserError(f"{self.name}: {name} is {names}, not {getattr(self, name)!r}")


class PointRegularizer(Regularizer):
    """A regulariser that is evaluated at independent noisy points.

    Subclasses define :meth:`energy`, and :meth:`directions` where it needs more random numbers
    than those of the points.

    Arguments:
        rows: The number of points, at most the batch.
        points: ``data`` for noised points of the batch, ``uniform`` for points anywhere on a torus.

    Raises:
        ValueError: If there is no point or the kind of points is unknown; in use, if uniform points
            are requested in flat space.
    """

    purpose: ClassVar[str] = "perturbation"
    """The address of the random numbers that make the points."""

    rows: int = 64
    points: PointLaw = "data"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_least(1, "rows")
        self._check_choice("points", PointLaw)

    @abstractmethod
    def energy(
        self,
        field: ScoreField,
        x: Float[Tensor, "rows *event"],
        t: Float[Tensor, " rows"],
        *directions: Tensor,
    ) -> Float[Tensor, ""]:
        """The number to be made small, at noisy points ``x`` of times ``t``: a mean over them, of
        which each of several processes computes that of its own points.
        """

    def directions(
        self, field: ScoreField, noise: Noise, index: Tensor, step: Tensor
    ) -> tuple[Tensor, ...]:
        """What is drawn beside the points, of shape ``(steps, rows, ...)``."""
        return ()

    def draw(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, rows: int, step: Tensor
    ) -> tuple[Tensor, ...]:
        index = torch.arange(min(rows, self.rows), device=step.device)
        t = self.times(field, law, noise, index, step)
        purpose = f"{self.name}/{self.purpose}"
        if self.points == "data":
            drawn = noise.normal(purpose, field.domain.shape, index, step)
        elif isinstance(field.domain, Torus):
            drawn = field.domain.uniform(noise, purpose, index, step)
        else:
            raise UserError(
                f"{purpose}: uniform points need a torus, the field is on {field.domain}"
            )
        return t, drawn, *self.directions(field, noise, index, step)

    def share(
        self, field: ScoreField, x: Tensor, draws: tuple[Tensor, ...], world: World
    ) -> Tensor:
        if world.size == 1:
            return self.evaluate(field, x, draws)
        n = len(draws[0])
        rows = world.rows(n)
        count = rows.stop - rows.start
        if not count:
            return x.new_zeros(())
        return self.evaluate(field, x[rows], tuple(d[rows] for d in draws)) * (count / n)

    def evaluate(self, field: ScoreField, x: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        t, points, *directions = draws
        if self.points == "data":
            points = field.sde.perturb(x[: len(t)], t, points, field.domain)
        return self.energy(field, points, t, *directions)

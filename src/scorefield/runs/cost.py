r"""What a configuration costs: parameters, multiply-adds, memory, counted without computing.

The field is built on the device ``meta``, where tensors have shapes and no values, and PyTorch's
counter adds up the products of matrices and convolutions of one point. All else, normalisations
and nonlinearities, is not counted. A step of denoising score matching is the forward pass and its
gradient in the weights; where a field is the gradient of a potential, the forward pass contains a
backward one. Of a hybrid field each branch has the share of the points at its noise levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from scorefield.config import presets
from scorefield.config.build import build_field, build_objective, build_sde, build_source
from scorefield.config.config import Config
from scorefield.config.resolve import load_config
from scorefield.data.source import DataSource
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.fields.composed import HybridField
from scorefield.noise import Noise

_DRAWS = 1 << 16
# Weights, their gradient, two moments and an average, in single precision; and two more averages.
_PER_WEIGHT, _PER_SNAPSHOT = 20, 8


@dataclass(frozen=True)
class Cost:
    """The cost of a configuration.

    Attributes:
        parameters: The number of parameters.
        call: The multiply-adds of one evaluation of the field at one point.
        step: Those of a training step without regularisers, for each point of the batch.
        memory: The bytes of weights, gradient, moments and averages in training.
    """

    parameters: int
    call: float
    step: float
    memory: int


COLUMNS = ("preset", "parameters", "evaluation", "step, a point", "step", "memory", "published")
"""The columns of a table of costs; of evaluations and steps in multiply-adds."""


def row_of(name: str) -> tuple[str, ...]:
    """The row of a preset in a table of costs; without numbers where it takes data of one's own.

    Raises:
        ConfigError: If there is none of that name.
    """
    presets.path(name)
    try:
        config = load_config(name)
        cost = cost_of(config, build_source(config))
    except UserError as error:
        return (name, *("",) * 5, f"needs data: {error}")
    batch = config.train.batch_size
    return (
        name,
        f"{cost.parameters:,}",
        _short(cost.call),
        _short(cost.step),
        _short(cost.step * batch),
        f"{_short(cost.memory)}B",
        config.published,
    )


def _short(number: float) -> str:
    """A number to three digits, with a prefix of thousands."""
    power = min(4, max(0, math.floor(math.log10(max(number, 1)) / 3)))
    return f"{number / 1000**power:.3g} {' kMGT'[power].strip()}"


def cost_of(config: Config, source: DataSource) -> Cost:
    """The cost of a configuration; of the data the shape and the classes are used alone.

    Raises:
        ConfigError: If the field does not fit the data or the process.
    """
    given = {"sigma_data": config.field.sigma_data or 0.5}
    plain = config.model_copy(update={"field": config.field.model_copy(update=given)})
    field = build_field(plain, source, device="meta")
    parameters = sum(p.numel() for p in field.parameters())
    per_weight = _PER_WEIGHT + (_PER_SNAPSHOT if config.train.snapshot_every else 0)
    shares: list[tuple[float, ScoreField]] = [(1.0, field)]
    if isinstance(field, HybridField):
        low = _share_below(plain, source, field.sigma_c)
        shares = [(low, field.low), (1 - low, field.high)]
    counted = [(share, *_of_a_point(part)) for share, part in shares]
    call = sum(share * call for share, call, _ in counted)
    step = sum(share * step for share, _, step in counted)
    return Cost(parameters, call, step, parameters * per_weight)


def _share_below(config: Config, source: DataSource, sigma_c: float) -> float:
    """The share of training points at noise levels up to ``sigma_c``, of many draws."""
    sde, law = build_sde(config.sde), build_objective(config, source).denoising.law
    t = law.times(sde, Noise(0), torch.arange(_DRAWS), torch.zeros(1, dtype=torch.int64), "cost")
    return float((sde.noise_level(t) <= sigma_c).double().mean())


class _Whole(ModuleTracker):
    """Looks at no modules, whose hooks do not allow a gradient within a forward pass."""

    def __enter__(self) -> ModuleTracker:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def _counter() -> FlopCounterMode:
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _Whole()
    return counter


def _of_a_point(field: ScoreField) -> tuple[float, float]:
    """The multiply-adds of an evaluation at a point, and of a training step there."""
    x = torch.zeros(1, *field.domain.shape, device="meta")
    t = torch.full((1,), field.sde.t_max, device="meta")
    classes = None if field.classes is None else torch.zeros(1, dtype=torch.int64, device="meta")
    call = _counter()
    with torch.no_grad(), call:
        field.predict(x, t, "denoiser", classes)
    step = _counter()
    with step:
        field.predict(x, t, "denoiser", classes).sum().backward()
    return call.get_total_flops() / 2, step.get_total_flops() / 2

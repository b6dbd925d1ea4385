r"""What a configuration costs: parameters, multiply-adds, memory, counted without computing.

The field is built on the device ``meta``, where tensors have shapes and no values, and PyTorch's
counter adds up the products of matrices and convolutions of one point. All else, normalisations
and nonlinearities, is not counted. A step of denoising score matching is the forward pass and its
gradient in the weights; where a field is the gradient of a potential, the forward pass contains a
backward one. Of a hybrid field each branch has the share of the points at its noise levels.

A whole step has the teacher of a distillation too, and the regularisers that are due at it, each
counted with its own number of points and probes and divided by the number of steps between two of
its evaluations. How many cycles of a graph are short enough depends on the data: it is counted as
if as many were found as are sought.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from scorefield.calculus.circulation import circulation, quadrature
from scorefield.config import presets
from scorefield.config.base import build
from scorefield.config.build import build_field, build_objective, build_sde, build_source
from scorefield.config.config import Config
from scorefield.config.custom import Custom
from scorefield.config.resolve import load_config
from scorefield.data.source import DataSource
from scorefield.engine import device_of, exact
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.fields.composed import HybridField
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.noise import Noise
from scorefield.objectives.curl import CycleCirculation
from scorefield.objectives.denoising import NoiseLaw
from scorefield.objectives.distillation import Distillation
from scorefield.objectives.regression import BoundaryMatching
from scorefield.objectives.regularizer import Regularizer

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


@dataclass(frozen=True)
class Step:
    """A training step with its regularisers, on average over steps.

    Attributes:
        multiply_adds: The multiply-adds.
        calls: The evaluations of a network at a point.
    """

    multiply_adds: float
    calls: float


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
        source = build_source(config)
        cost, step = cost_of(config, source), step_of(config, source)
    except UserError as error:
        return (name, *("",) * 5, f"needs data: {error}")
    return (
        name,
        f"{cost.parameters:,}",
        _short(cost.call),
        _short(cost.step),
        _short(step.multiply_adds),
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
    plain, field = _bare(config, source)
    parameters = sum(p.numel() for p in field.parameters())
    per_weight = _PER_WEIGHT + (_PER_SNAPSHOT if config.train.snapshot_every else 0)
    shares: list[tuple[float, ScoreField]] = [(1.0, field)]
    if isinstance(field, HybridField):
        low = _share_below(plain, field.sigma_c)
        shares = [(low, field.low), (1 - low, field.high)]
    counted = [(share, *_of_a_point(part)) for share, part in shares]
    call = sum(share * call for share, call, _ in counted)
    step = sum(share * step for share, _, step in counted)
    return Cost(parameters, call, step, parameters * per_weight)


def step_of(config: Config, source: DataSource) -> Step:
    """What a training step of a configuration takes; errors are those of :func:`cost_of`."""
    plain, field = _bare(config, source)
    batch, device = config.train.batch_size, device_of(field)
    objective = build_objective(plain, source).to(device)
    # Each point of the batch is one call.
    total, calls = cost_of(config, source).step * batch, float(batch)
    if isinstance(objective.denoising, Distillation):
        teacher = objective.denoising.oracle.field.to(device)
        total, calls = total + batch * _of_a_point(teacher)[0], calls + batch
    x, law = torch.zeros(batch, *field.domain.shape, device=device), objective.denoising.law
    for term in objective.due(0).values():
        for share, part in _branches(field, term, law):
            flops, evaluations = _of_term(part, term, law, x)
            total += share * flops / term.every
            calls += share * evaluations / term.every
    return Step(total, calls)


def _bare(config: Config, source: DataSource) -> tuple[Config, ScoreField]:
    """A configuration that needs no statistics of its data, and its field without weights; with
    weights where code of the user makes a part of it, which may look at them.
    """
    given = {"sigma_data": config.field.sigma_data or 0.5}
    plain = config.model_copy(update={"field": config.field.model_copy(update=given)})
    parts = (*config.networks.values(), *config.objective.custom.values())
    own = any(isinstance(part, Custom) for part in parts)
    return plain, build_field(plain, source, device=None if own else "meta")


def _branches(
    field: ScoreField, term: Regularizer, law: NoiseLaw
) -> list[tuple[float, ScoreField]]:
    """The fields that a regulariser is evaluated on, each with the share of its points."""
    if not isinstance(field, HybridField) or isinstance(term, BoundaryMatching):
        return [(1.0, field)]
    index, step = torch.arange(_DRAWS), torch.zeros(1, dtype=torch.int64)
    level = field.sde.noise_level(term.times(field, law, Noise(0), index, step))
    low = float((level <= field.sigma_c).double().mean())
    return [(low, field.low), (1 - low, field.high)]


def _of_term(field: ScoreField, term: Regularizer, law: NoiseLaw, x: Tensor) -> tuple[float, float]:
    """The multiply-adds and the network calls of an evaluation of a regulariser, with gradient."""
    calls = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal calls
        calls += len(inputs[0])

    networks = [p.backbone for p in field.modules() if isinstance(p, PreconditionedField)]
    counter = _counter()
    with ExitStack() as stack:
        for network in networks:
            handle = network.register_forward_hook(count)
            stack.callback(handle.remove)
        with exact(), counter:
            if isinstance(term, CycleCirculation):
                energy: Tensor | None = _of_cycles(field, term, x)
            else:
                energy = term(field, law, x, Noise(0), 0)
            if energy is not None and energy.requires_grad:
                energy.backward()
    return counter.get_total_flops() / 2, float(calls)


def _of_cycles(field: ScoreField, term: CycleCirculation, x: Tensor) -> Tensor:
    """The circulation around as many cycles of each length as are sought."""
    rule, t = quadrature(term.quadrature), torch.full((term.cycles,), field.sde.t_max)
    sums = [
        circulation(
            field.score,
            x.new_zeros(term.cycles, length, *field.domain.shape),
            t.to(x),
            rule,
            field.domain,
        ).sum()
        for length in term.lengths
    ]
    return torch.stack(sums).sum()


def _share_below(config: Config, sigma_c: float) -> float:
    """The share of training points at noise levels up to ``sigma_c``, of many draws."""
    sde = build_sde(config.sde)
    law = build(config.objective.law, "objective.law", NoiseLaw, levels=config.levels)
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
    device = device_of(field)
    x = torch.zeros(1, *field.domain.shape, device=device)
    t = torch.full((1,), field.sde.t_max, device=device)
    classes = None if field.classes is None else torch.zeros(1, dtype=torch.int64, device=device)
    call = _counter()
    with torch.no_grad(), call:
        field.predict(x, t, "denoiser", classes)
    step = _counter()
    with step:
        field.predict(x, t, "denoiser", classes).sum().backward()
    return call.get_total_flops() / 2, step.get_total_flops() / 2

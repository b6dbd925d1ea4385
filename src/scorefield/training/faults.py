"""Where the numbers of a training step cease to be finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.engine import exact
from scorefield.fields.base import ScoreField
from scorefield.noise import Noise
from scorefield.objectives.denoising import Batch
from scorefield.objectives.objective import Objective
from scorefield.objectives.regularizer import Regularizer


@dataclass
class Fault:
    """The first layer that is not finite.

    Attributes:
        layer: The first module, in the order of the computation, with an output that is not finite;
            where all outputs are, the first on the way back whose output has a gradient that is
            not. ``None`` if there is none.
        what: What is not finite of it, in words.
        row: The first row of that.
    """

    layer: str | None = None
    what: str = ""
    row: int = 0

    def see(self, layer: str, what: str, value: Tensor) -> None:
        """Looks at the output of a layer, or its gradient."""
        bad = (~value.detach().isfinite()).nonzero()
        if self.layer is None and len(bad):
            self.layer, self.what = layer, what
            self.row = int(bad[0, 0]) if value.dim() else 0


@contextmanager
def watched(module: nn.Module) -> Iterator[Fault]:
    """Watches the outputs of all parts of a module, and their gradients, inside of the context."""
    fault = Fault()

    def look(name: str, part: nn.Module, inputs: Any, output: Any) -> None:
        for value in output if isinstance(output, tuple | list) else (output,):
            if isinstance(value, Tensor):
                fault.see(name, "output", value)
                if value.requires_grad:
                    value.register_hook(partial(fault.see, name, "gradient of the output"))

    with ExitStack() as stack:
        for name, part in module.named_modules():
            stack.enter_context(part.register_forward_hook(partial(look, name)))
        yield fault


def faulty_layer(field: ScoreField, objective: Objective, batch: Batch) -> str:
    """A clause that says where the numbers of denoising score matching, computed again, cease to be
    finite: the first layer, and the noise level of the point; empty where they are.
    """
    with watched(field) as fault:
        losses = objective.denoising(field, batch)
        bad = (~losses.detach().isfinite()).nonzero()
        losses.mean().backward()
    if fault.layer is None and not len(bad):
        return ""
    row = int(bad[0, 0]) if len(bad) else fault.row
    level = float(field.sde.noise_level(batch.t[row]))
    layer = "" if fault.layer is None else f" in the {fault.what} of {fault.layer or 'field'}"
    return f"{layer} at noise level {level:.4g}"


def faulty_term(
    field: ScoreField, objective: Objective, x: Tensor, base: Tensor, noise: Noise, step: int
) -> str:
    """A clause that names the first parameter to which a regulariser, computed again, gives a
    gradient that is not finite; empty where there is none. The arguments are those of
    :meth:`.Objective.regularize`.
    """
    named = _trained(field)
    for name, regularizer in objective.regularizers.items():
        assert isinstance(regularizer, Regularizer)
        alone = Objective(objective.denoising, [regularizer])
        with exact():
            total, _ = alone.regularize(field, x, base, noise, step)
            if total is None or not total.requires_grad:
                continue
            slopes = torch.autograd.grad(total, tuple(named.values()), allow_unused=True)
        for parameter, slope in zip(named, slopes, strict=True):
            if slope is not None and not bool(slope.isfinite().all()):
                return f" in the gradient of {parameter} from the regulariser {name!r}"
    return ""


def _trained(field: ScoreField) -> dict[str, nn.Parameter]:
    return {name: p for name, p in field.named_parameters() if p.requires_grad}

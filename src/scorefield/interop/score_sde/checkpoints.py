"""Checkpoints of the score_sde code, and of its rewrite in the same layout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from scorefield.checks import kind_of
from scorefield.interop import unpickling
from scorefield.interop.errors import InteropError

Layout = Literal["score_sde_pytorch", "rewrite"]
BUFFERS = ("sigmas",)
"""The tensors of a state that are not parameters."""
FREQUENCIES = "all_modules.0.W"
"""The random frequencies of a Fourier embedding: a parameter that is not trained."""

_PREFIX = "module."


@dataclass(frozen=True)
class Optimizer:
    """The optimiser state of a checkpoint; ``moments`` counts the tensors that have one."""

    lr: float
    betas: tuple[float, float] | None
    eps: float | None
    weight_decay: float
    moments: int


@dataclass(frozen=True)
class SongCheckpoint:
    """A checkpoint of the score_sde code (Song et al., 2021) or of its rewrite.

    Attributes:
        layout: ``score_sde_pytorch``, whose average is over the trained tensors, or
            ``rewrite``, whose average is over all parameters.
        step: The number of training steps done; ``None`` if the layout does not store it.
        state: The weights, without the prefix of a parallel wrapper.
        averaged: The same with averaged weights.
        decay: The decay of the averages.
        updates: The number of their updates; ``None`` if not counted.
        optimizer: The state of the optimiser; ``None`` if there is none.
    """

    layout: Layout
    step: int | None
    state: dict[str, Tensor]
    averaged: dict[str, Tensor]
    decay: float
    updates: int | None
    optimizer: Optimizer | None


def read_checkpoint(path: Path | str) -> SongCheckpoint:
    """Reads a checkpoint, such as ``checkpoint_24.pth``; nothing in the file is executed.

    Raises:
        InteropError: If the file cannot be read, refers to anything but tensors and numbers, or is
            not a checkpoint of this kind.
    """
    path = Path(path)
    content = unpickling.read(path)
    try:
        return _parsed(content)
    except InteropError as error:
        raise InteropError(f"{path} is not a checkpoint of score_sde: {error}") from None


def _parsed(content: Any) -> SongCheckpoint:
    state = {
        name.removeprefix(_PREFIX): tensor for name, tensor in _tensors(content, "model").items()
    }
    ema = _mapping(content, "ema")
    shadow = ema.get("shadow_params")
    if not isinstance(shadow, list) or not all(isinstance(s, Tensor) for s in shadow):
        raise InteropError("its ema has no list of tensors shadow_params")
    updates = ema.get("num_updates")
    step = content.get("step")
    rewritten = "collected_params" in ema or "step" not in content
    return SongCheckpoint(
        layout="rewrite" if rewritten else "score_sde_pytorch",
        step=None if step is None else int(_number(step, "step")),
        state=state,
        averaged=_averaged(state, shadow),
        decay=_number(ema.get("decay"), "ema.decay"),
        updates=None if updates is None else int(_number(updates, "ema.num_updates")),
        optimizer=_optimizer(content["optimizer"]) if "optimizer" in content else None,
    )


def _averaged(state: dict[str, Tensor], shadow: list[Tensor]) -> dict[str, Tensor]:
    """The state with averaged weights, which are stored in order but without names."""
    every = [name for name in state if name not in BUFFERS]
    trained = [name for name in every if name != FREQUENCIES or state[name].dim() != 1]
    names = every if len(shadow) == len(every) else trained
    if len(shadow) != len(names):
        raise InteropError(
            f"its average is over {len(shadow)} tensors, the model has {len(trained)} that are "
            f"trained and {len(every)} parameters"
        )
    for name, tensor in zip(names, shadow, strict=True):
        if tensor.shape != state[name].shape:
            raise InteropError(
                f"its average of {name} has the shape {tuple(tensor.shape)}, the parameter "
                f"{tuple(state[name].shape)}"
            )
    return {**state, **{name: s.detach() for name, s in zip(names, shadow, strict=True)}}


def _optimizer(content: Any) -> Optimizer:
    groups = content.get("param_groups") if isinstance(content, Mapping) else None
    if not isinstance(groups, list) or not groups or not isinstance(groups[0], Mapping):
        raise InteropError("its optimizer has no param_groups")
    group, moments = groups[0], content.get("state")
    betas, eps = group.get("betas"), group.get("eps")
    return Optimizer(
        lr=_number(group.get("lr"), "optimizer.lr"),
        betas=None if betas is None else (float(betas[0]), float(betas[1])),
        eps=None if eps is None else _number(eps, "optimizer.eps"),
        weight_decay=_number(group.get("weight_decay", 0.0), "optimizer.weight_decay"),
        moments=len(moments) if isinstance(moments, Mapping) else 0,
    )


def _mapping(content: Any, key: str) -> Mapping[Any, Any]:
    if not isinstance(content, Mapping):
        raise InteropError(f"it holds {kind_of(content)}, not a dictionary")
    found = content.get(key)
    if not isinstance(found, Mapping):
        raise InteropError(f"it has no dictionary {key}")
    return found


def _tensors(content: Any, key: str) -> dict[str, Tensor]:
    found = _mapping(content, key)
    if not found or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        raise InteropError(f"its {key} is not a dictionary of named tensors")
    return {name: tensor.detach() for name, tensor in found.items()}


def _number(found: Any, key: str) -> float:
    if isinstance(found, Tensor) and found.numel() == 1:
        found = found.item()
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise InteropError(f"its {key} is {found!r}, not a number")
    if not math.isfinite(found):
        raise InteropError(f"its {key} is {found}, which is not finite")
    return float(found)

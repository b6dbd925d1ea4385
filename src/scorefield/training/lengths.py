r"""Averages of the weights of any length, made after the training from stored ones.

A power function of the time,

.. math:: p_{t,\gamma}(\tau) = \frac{\gamma + 1}{t} \Big(\frac{\tau}{t}\Big)^\gamma, \qquad
    0 \le \tau \le t,

is the profile of an average of the weights over the past of step :math:`t`. Its length is its
standard deviation relative to :math:`t`,

.. math:: \ell = \sqrt{\frac{\gamma + 1}{(\gamma + 2)^2 (\gamma + 3)}} < \frac{1}{\sqrt{12}}.

Two such averages, of the lengths 0.05 and 0.10, are tracked during the training and stored from
time to time. The profile of a third one is approximated by the combination of the stored profiles
that is nearest to it in :math:`L^2` and sums to one.

References:
    Analyzing and improving the training dynamics of diffusion models (Karras et al., 2024),
    section 3 and appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scorefield.checks import check_positive
from scorefield.errors import CheckpointError, UserError
from scorefield.files import reason, write_folder
from scorefield.training import checkpoint
from scorefield.training.ema import Average

LENGTHS = (0.05, 0.10)
"""The lengths of the averages that are tracked."""

_FILES = {length: f"{length:.2f}.safetensors" for length in LENGTHS}
_LONGEST = 1 / math.sqrt(12)


class PowerAverage(Average):
    r"""The average of a length :math:`\ell`.

    .. math:: d_n = \Big(1 - \frac1n\Big)^{\gamma + 1},

    With this decay the weights of step :math:`k` have the integral of the profile over
    :math:`(k - 1, k]`.

    Raises:
        ValueError: If the length is not in :math:`(0, 1 / \sqrt{12})`.
    """

    def __init__(self, module: nn.Module, length: float) -> None:
        self._exponent = exponent(length) + 1
        super().__init__(module)

    def decay_at(self, n: int) -> float:
        return (1 - 1 / n) ** self._exponent


def exponent(length: float) -> float:
    r"""The exponent :math:`\gamma` of the profile of a length.

    Raises:
        ValueError: If the length is not in :math:`(0, 1 / \sqrt{12})`.
    """
    if not isinstance(length, (int, float)) or not 0 < length < _LONGEST:
        raise UserError(
            f"the length of an average lies between 0 and {_LONGEST:.4f}, that of all steps alike, "
            f"got {length}"
        )
    inverse = length**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


@dataclass(frozen=True)
class Combination:
    """What an average is made of.

    Attributes:
        weights: The weight of each stored average.
        error: The distance of the combined profile from the one that is wanted, relative to the
            norm of that.
    """

    weights: tuple[float, ...]
    error: float


def combine(stored: Sequence[tuple[float, float]], step: float, length: float) -> Combination:
    """The combination of stored averages, each of a step and a length, that is nearest to the
    average of a length at a step.

    Raises:
        ValueError: If a length is out of range, or nothing is stored.
    """
    if not stored:
        raise UserError("an average is made of stored ones, and there are none")
    check_positive("step", step)
    at = np.array([t for t, _ in stored] + [step], dtype=np.float64) / step
    gamma = np.array([exponent(each) for _, each in stored] + [exponent(length)])
    products = _products(at[:, None], gamma[:, None], at, gamma)
    n, wanted = len(stored), products[-1, -1]
    # Nearest under the condition that the sum is 1, by Lagrange's multiplier.
    system = np.ones((n + 1, n + 1))
    system[:n, :n], system[n, n] = products[:n, :n], 0
    found, *_ = np.linalg.lstsq(system, np.append(products[:n, -1], 1.0), rcond=1e-15)
    whole = np.append(found[:n], -1.0)
    error = math.sqrt(max(0.0, float(whole @ products @ whole)) / wanted)
    return Combination(tuple(map(float, found[:n])), error)


def save(
    folder: Path,
    step: int,
    averages: Mapping[float, Mapping[str, Tensor]],
    config: Mapping[str, Any] | None,
) -> None:
    """Stores the states of averages of the lengths :data:`LENGTHS` as
    ``step_XXXXXXXX/{length}.safetensors``, whole or not at all.

    Raises:
        CheckpointError: If they cannot be written.
    """
    files = {
        _FILES[length]: checkpoint.weights_file(state, step, config)
        for length, state in averages.items()
    }
    path = folder / checkpoint.name_of(step)
    try:
        write_folder(path, files, overwrite=True)
    except OSError as error:
        raise CheckpointError(f"cannot write the averages {path}: {reason(error)}") from error


def reconstruct(
    folder: Path, step: int, length: float, parameters: Sequence[str]
) -> tuple[dict[str, Tensor], Combination]:
    """The average of a length at a step, from what :func:`save` stored up to it.

    Arguments:
        folder: The folder of the stored averages.
        step: The step.
        length: The length.
        parameters: The names of the tensors that are averaged; the others are those of the last
            stored average.

    Raises:
        ValueError: If the length is out of range.
        CheckpointError: If nothing is stored up to the step, or cannot be read.
    """
    paths = [p for p in checkpoint.paths(folder) if checkpoint.step_of(p) <= step]
    if not paths:
        raise CheckpointError(
            f"{folder} has no averages up to step {step}: they are stored by a training with "
            "train.snapshot_every"
        )
    stored = [(path, each) for path in paths for each in LENGTHS]
    found = combine([(checkpoint.step_of(p), each) for p, each in stored], step, length)
    total: dict[str, Tensor] = {}
    for (path, each), weight in zip(stored, found.weights, strict=True):
        file = path / _FILES[each]
        tensors = checkpoint.read_weights(file).tensors
        missing = [name for name in parameters if name not in tensors]
        if missing:
            raise CheckpointError(f"{file} lacks the tensor {missing[0]}")
        if total and _shapes(tensors) != _shapes(total):
            raise CheckpointError(f"{file} is of another field than those before it")
        for name, tensor in tensors.items():
            # Sums of large terms of both signs.
            if name in parameters:
                total[name] = total.get(name, 0) + weight * tensor.to(torch.float64)
            else:
                total[name] = tensor
    return {name: t.to(tensors[name].dtype) for name, t in total.items()}, found


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _products(t: Any, gamma: Any, other_t: Any, other: Any) -> Any:
    """The integrals of the products of profiles."""
    last, ratio = np.maximum(t, other_t), t / other_t
    power = ratio ** np.where(t < other_t, other, -gamma)
    return (gamma + 1) * (other + 1) * power / ((gamma + other + 1) * last)

r"""The noise level as the networks see it.

A field hands its backbone one number for each point, the label
:math:`c_{noise} = \frac14\ln(\sigma/\alpha)`, which runs over a few units. A network cannot
resolve a single number well, so it is first spread over waves of many lengths.

References:
    Attention is all you need (Vaswani et al., 2017), section 3.5.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

_SLOWEST = 0.5
_FASTEST = 32.0


class SinusoidalEmbedding(nn.Module):
    r"""Cosines and sines of a label.

    .. math:: e_k = \cos(\omega_k c), \qquad e_{K + k} = \sin(\omega_k c), \qquad
        \omega_k = \tfrac12 \cdot 64^{k / (K - 1)}, \qquad k = 0 \dots K - 1.

    The wave lengths run from 50 to 0.8 nats of the noise level: all levels of a process lie
    within the longest wave, and the shortest is as long as the score takes to change.

    Arguments:
        features: The number :math:`2K` of features.

    Raises:
        ValueError: Unless ``features`` is even and at least 4.
    """

    frequencies: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        if features < 4 or features % 2:
            raise ValueError(f"an embedding has an even number >= 4 of features, got {features}")
        exponents = torch.linspace(0, 1, features // 2, dtype=torch.float64)
        frequencies = _SLOWEST * (_FASTEST / _SLOWEST) ** exponents
        # Derived, so it is not part of the weights.
        self.register_buffer("frequencies", frequencies.float(), persistent=False)

    def forward(self, label: Float[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
        phase = label[:, None] * self.frequencies.to(label.dtype)
        return torch.cat((phase.cos(), phase.sin()), dim=1)


class LevelEmbedding(nn.Sequential):
    """The embedding of a label: waves, then a network of one hidden layer.

    Arguments:
        features: The number of waves; see :class:`SinusoidalEmbedding`.
        hidden: The width of the hidden layer.
        outputs: The number of outputs.
    """

    def __init__(self, features: int, hidden: int, outputs: int) -> None:
        super().__init__(
            SinusoidalEmbedding(features),
            nn.Linear(features, hidden),
            nn.SiLU(),
            nn.Linear(hidden, outputs),
        )

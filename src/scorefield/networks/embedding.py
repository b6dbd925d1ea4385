r"""The noise level, and the class, as the networks see them.

A field hands its backbone one number for each point, the label
:math:`c_{noise} = \frac14\ln(\sigma/\alpha)`, which runs over a few units. A network cannot
resolve a single number well, so it is first spread over waves of many lengths.

References:
    Attention is all you need (Vaswani et al., 2017), section 3.5.

    Classifier-free diffusion guidance (Ho and Salimans, 2022), section 3.2.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from scorefield.errors import UnsupportedError, UserError
from scorefield.networks.inspection import within

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
            raise UserError(f"an embedding has an even number >= 4 of features, got {features}")
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


class ClassEmbedding(nn.Module):
    """One vector for each class, and one that stands for no class.

    Arguments:
        classes: The number :math:`K` of classes; the index :math:`K` means none of them.
        outputs: The length of a vector.
        unlabelled: Whether there is a vector for no class.

    Raises:
        ValueError: If there is no class; in a call, if a class is out of range, or classes are
            not given and there is no vector for none.
    """

    def __init__(self, classes: int, outputs: int, unlabelled: bool = True) -> None:
        super().__init__()
        if classes < 1:
            raise UserError(f"a network that knows classes needs classes >= 1, got {classes}")
        self.classes, self.unlabelled = classes, unlabelled
        self.vectors = nn.Embedding(classes + unlabelled, outputs)

    def forward(self, classes: Int[Tensor, " batch"] | None) -> Float[Tensor, "_ outputs"]:
        """The vector of each point; one for all where the classes are not given."""
        if classes is None:
            if not self.unlabelled:
                raise UserError(
                    "the network was trained on points of known classes only, and needs them"
                )
            return self.vectors.weight[-1:]
        within("classes", classes, 0, self.classes - 1 + self.unlabelled)
        vectors: Tensor = self.vectors(classes)
        return vectors


def embedded(
    level: Tensor, embedding: ClassEmbedding | None, classes: Tensor | None
) -> Float[Tensor, "batch outputs"]:
    """The embedded level plus the vectors of the classes, for networks that know any.

    Raises:
        TypeError: If classes are given to a network without any.
    """
    if embedding is not None:
        return level + embedding(classes)
    if classes is not None:
        raise UnsupportedError("classes were given to a network that knows none")
    return level

r"""The noise level, and the class, as the networks see them.

A field hands its backbone one number for each point, the label
:math:`c_{noise} = \frac14\ln(\sigma/\alpha)`, which runs over a few units. A network cannot
resolve a single number well, so it is first spread over waves of many lengths. Other labels are
places in a table of noise levels.

References:
    Attention is all you need (Vaswani et al., 2017), section 3.5.

    Fourier features let networks learn high frequency functions in low dimensional domains
    (Tancik et al., 2020), equation 3.

    Score-based generative modeling through stochastic differential equations (Song et al.,
    2021), appendix H.1.

    Classifier-free diffusion guidance (Ho and Salimans, 2022), section 3.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from scorefield.checks import check_count, inspect, within
from scorefield.errors import UnsupportedError, UserError
from scorefield.networks.checks import check_sizes

_SLOWEST = 0.5
_FASTEST = 32.0


def check_even(features: int) -> None:
    """Raises ``ValueError`` unless a number of waves is even and at least 4."""
    if not isinstance(features, int) or features < 4 or features % 2:
        raise UserError(f"an embedding has an even number >= 4 of features, got {features!r}")


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
        check_even(features)
        exponents = torch.linspace(0, 1, features // 2, dtype=torch.float64)
        frequencies = _SLOWEST * (_FASTEST / _SLOWEST) ** exponents
        # Derived, so it is not part of the weights.
        self.register_buffer("frequencies", frequencies.float(), persistent=False)

    def forward(self, label: Float[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
        phase = label[:, None] * self.frequencies.to(label.dtype)
        return torch.cat((phase.cos(), phase.sin()), dim=1)


class LevelEmbedding(nn.Sequential):
    """The embedding of a label: the waves of :class:`SinusoidalEmbedding`, then a network of one
    hidden layer.
    """

    def __init__(self, features: int, hidden: int, outputs: int) -> None:
        super().__init__(
            SinusoidalEmbedding(features),
            nn.Linear(features, hidden),
            nn.SiLU(),
            nn.Linear(hidden, outputs),
        )


class ClassEmbedding(nn.Module):
    """One vector for each of :math:`K` classes, and one, of the index :math:`K`, for no class if
    there are ``unlabelled`` points.

    Raises:
        ValueError: If there is no class; in a call, if a class is out of range, or classes are
            not given and there is no vector for none.
    """

    def __init__(self, classes: int, outputs: int, unlabelled: bool = True) -> None:
        super().__init__()
        check_sizes("a network that knows classes", classes=classes)
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


class FourierFeatures(nn.Module):
    r"""Waves of random frequency in the logarithm of the noise level.

    .. math:: e_k = \sin(2\pi w_k \ln\sigma), \qquad e_{K + k} = \cos(2\pi w_k \ln\sigma),

    with :math:`K` frequencies :math:`w` that stay as they were drawn. Phases reach thousands of
    radians, so they are computed in float64, whatever the network's dtype.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.zeros(features), requires_grad=False)

    def forward(self, sigma: Float[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
        wide = _widest(sigma.device)
        turns = sigma.to(wide).log()[:, None] * self.frequencies.to(wide)
        phase = 2 * math.pi * turns
        return torch.cat((phase.sin(), phase.cos()), dim=1).to(self.frequencies.dtype)


def positional_features(label: Num[Tensor, " batch"], features: int) -> Float[Tensor, "batch _"]:
    r"""Waves of geometrically falling frequency in a label.

    .. math:: e_k = \sin(\omega_k c), \qquad e_{K + k} = \cos(\omega_k c), \qquad
        \omega_k = 10^{-4 k / (K - 1)}, \qquad k = 0 \dots K - 1,

    in float64, with :math:`K` half of the features, of which there are at least 4; a zero follows
    where their number is odd.
    """
    wide = _widest(label.device)
    half = features // 2
    exponents = torch.arange(half, dtype=wide, device=label.device) / (half - 1)
    phase = label.to(wide)[:, None] * (-math.log(10_000) * exponents).exp()
    waves = torch.cat((phase.sin(), phase.cos()), dim=1)
    return waves if features % 2 == 0 else nn.functional.pad(waves, (0, 1))


class Conditioning(nn.Module):
    r"""The embedding of the noise level and the class for every block of a score network.

    .. math:: c = \varphi\big(A_2\,\varphi(A_1 e(label) + b_1) + b_2 + E_{class}\big),

    with the nonlinearity :math:`\varphi` and the features :math:`e` of the label: those of
    :class:`FourierFeatures`, of a noise level, or those of :func:`positional_features`, of any
    label. One more row of :math:`E` stands for no class.
    """

    def __init__(
        self,
        width: int,
        outputs: int,
        act: nn.Module,
        fourier: bool,
        noise: bool = True,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        self.width, self.act = width, act
        self.fourier = FourierFeatures(width) if fourier and noise else None
        inputs = 2 * width if fourier else width
        self.first = nn.Linear(inputs, outputs) if noise else None
        self.second = nn.Linear(outputs, outputs) if noise else None
        self.null = classes
        self.classes = None if classes is None else nn.Embedding(classes + 1, outputs)

    def forward(
        self, label: Num[Tensor, " batch"], classes: Num[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch outputs"]:
        total: Tensor | None = None
        if self.first is not None and self.second is not None:
            if self.fourier is not None:
                waves = self.fourier(label)
            else:
                waves = positional_features(label, self.width).to(self.first.weight.dtype)
            total = self.second(self.act(self.first(waves)))
        if self.classes is not None and self.null is not None:
            if classes is None:
                row = self.classes.weight[self.null].expand(label.shape[0], -1)
            else:
                within("classes", classes, 0, self.null)
                row = self.classes(classes)
            total = row if total is None else total + row
        assert total is not None, "there is a noise level or a class"
        return self.act(total)


@dataclass(frozen=True)
class NoiseTable:
    r"""Noise levels in geometric progression, the greatest first:
    :math:`\sigma_i = \sigma_{max} (\sigma_{min} / \sigma_{max})^{i / (N - 1)}`.

    A level is computed where it is used, in float64, so that neither storing nor casting a
    network rounds it.

    Raises:
        ValueError: Unless ``0 < sigma_min < sigma_max`` and ``levels >= 2``.

    References:
        Generative modeling by estimating gradients of the data distribution (Song and Ermon,
        2019), section 4.1.
    """

    sigma_min: float
    sigma_max: float
    levels: int

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise UserError(
                "0 < sigma_min < sigma_max must hold, got "
                f"sigma_min={self.sigma_min}, sigma_max={self.sigma_max}"
            )
        check_count("levels", self.levels, 2)

    def at(self, index: Tensor, like: Tensor) -> Tensor:
        """The levels at :func:`places` in the table, in the dtype of a tensor against whose rows
        they broadcast.
        """
        fraction = index.to(_widest(index.device)) / (self.levels - 1)
        log_max, log_min = math.log(self.sigma_max), math.log(self.sigma_min)
        sigma = torch.exp(
            torch.lerp(fraction.new_tensor(log_max), fraction.new_tensor(log_min), fraction)
        )
        return sigma.to(like.dtype).view(-1, *[1] * (like.dim() - 1))


def places(label: Tensor, levels: int, batch: int) -> Tensor:
    """Labels of any dtype as places in a table, in int64.

    Raises:
        ValueError: If there are not ``batch`` of them, or one is no whole number below ``levels``.
    """
    if label.shape != (batch,):
        raise UserError(f"label must have the shape ({batch},), got {tuple(label.shape)}")

    def check(numbers: Tensor) -> None:
        wrong = (numbers != numbers.to(torch.int64)) | (numbers < 0) | (numbers >= levels)
        if bool(wrong.any()):
            raise UserError(
                f"label must hold whole numbers from 0 to {levels - 1}, got {numbers[wrong][0]:g}"
            )

    inspect(label, check)
    return label.to(torch.int64)


def _widest(device: torch.device) -> torch.dtype:
    """Float64, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64

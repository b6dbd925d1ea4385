r"""Conditioning of a score network on the noise level and the class.

References:
    Score-based generative modeling through stochastic differential equations (Song et al.,
    2021), appendix H.1.

    Fourier features let networks learn high frequency functions in low dimensional domains
    (Tancik et al., 2020), equation 3.

    Attention is all you need (Vaswani et al., 2017), section 3.5.

    Classifier-free diffusion guidance (Ho and Salimans, 2022), section 3.2.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from scorefield.networks.inspection import within


class FourierFeatures(nn.Module):
    r"""Waves of random frequency in the logarithm of the noise level.

    .. math:: e_k = \sin(2\pi w_k \ln\sigma), \qquad e_{K + k} = \cos(2\pi w_k \ln\sigma),

    with frequencies :math:`w` that stay as they were drawn. Phases reach thousands of radians,
    so they are computed in float64, whatever the network's dtype.

    Arguments:
        features: The number :math:`K` of frequencies.
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

    in float64; a zero follows where the number of features is odd.

    Arguments:
        label: The labels :math:`c`.
        features: The number of features, at least 4, of which :math:`K` is half.
    """
    wide = _widest(label.device)
    half = features // 2
    exponents = torch.arange(half, dtype=wide, device=label.device) / (half - 1)
    phase = label.to(wide)[:, None] * (-math.log(10_000) * exponents).exp()
    waves = torch.cat((phase.sin(), phase.cos()), dim=1)
    return waves if features % 2 == 0 else nn.functional.pad(waves, (0, 1))


class Conditioning(nn.Module):
    r"""The embedding of the noise level and the class for every block.

    .. math:: c = \varphi\big(A_2\,\varphi(A_1 e(label) + b_1) + b_2 + E_{class}\big),

    with the features :math:`e` of the label.

    Arguments:
        width: The number of features.
        outputs: The length of the vector.
        act: The nonlinearity :math:`\varphi`.
        fourier: Whether the features are those of :class:`FourierFeatures`, of a noise level, or
            those of :func:`positional_features`, of any label.
        noise: Whether the blocks are conditioned on the noise level.
        classes: The number of classes, if class-conditional; one more row of :math:`E` stands for
            no class.
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
                row = self.classes.weight[self.null].expand(len(label), -1)
            else:
                within("classes", classes, 0, self.null)
                row = self.classes(classes)
            total = row if total is None else total + row
        assert total is not None, "there is something to tell"
        return self.act(total)


def _widest(device: torch.device) -> torch.dtype:
    """Float64, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64

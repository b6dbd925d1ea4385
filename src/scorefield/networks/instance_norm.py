r"""Normalisations of each image by itself, with or without a label.

Each is called as ``norm(x, index)``, with the places of the noise levels in their table, of
which those without a label take no notice.

References:
    Instance normalization: the missing ingredient for fast stylization (Ulyanov, Vedaldi and
    Lempitsky, 2016), equation 2.

    Generative modeling by estimating gradients of the data distribution (Song and Ermon, 2019),
    appendix A.1, equation 9 (InstanceNorm++).

    Improved techniques for training score-based generative models (Song and Ermon, 2020).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-5


class InstanceNorm(nn.Module):
    r"""Each channel of each image with mean 0 and variance 1:
    :math:`y_c = (x_c - \mu_c) / \sqrt{\sigma_c^2 + \varepsilon}`.
    """

    def __init__(self, epsilon: float = EPSILON) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return F.instance_norm(x, eps=self.epsilon)


class VarianceNorm(nn.Module):
    r"""Each channel of each image with variance 1, and its mean kept:
    :math:`y_c = \gamma_c x_c / \sqrt{s_c^2 + \varepsilon}`, with the unbiased variance
    :math:`s_c^2` of the pixels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        variance = x.var(dim=(2, 3), keepdim=True)
        return _image(self.scale) * x / torch.sqrt(variance + EPSILON)


class InstanceNormPlus(nn.Module):
    r"""Instance normalisation that keeps how the means of the channels compare (InstanceNorm++).

    .. math:: y_c = \gamma_c\Big(\frac{x_c - \mu_c}{\sqrt{\sigma_c^2 + \varepsilon}}
        + \alpha_c \frac{\mu_c - m}{\sqrt{v + \varepsilon}}\Big) + \beta_c,

    with mean :math:`m` and unbiased variance :math:`v` of the means :math:`\mu_c` over the
    channels of an image, of which there are at least 2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.mean_scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return _plus(x, _image(self.scale), _image(self.mean_scale), _image(self.shift))


class LabelledInstanceNormPlus(nn.Module):
    r"""InstanceNorm++ with its own :math:`\gamma, \alpha, \beta` for each noise level."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        # Of each level: the scales of the pixels, the scales of the means, the shifts.
        self.coefficients = nn.Embedding(levels, 3 * channels)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        scale, mean_scale, shift = self.coefficients(index)[..., None, None].chunk(3, dim=-3)
        return _plus(x, scale, mean_scale, shift)


class Unnormalized(nn.Module):
    """No normalisation: the input itself."""

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return x


def _plus(x: Tensor, scale: Tensor, mean_scale: Tensor, shift: Tensor) -> Tensor:
    means = x.mean(dim=(2, 3), keepdim=True)
    variance, mean = torch.var_mean(means, dim=1, keepdim=True)
    standardized = (means - mean) / torch.sqrt(variance + EPSILON)
    return scale * (F.instance_norm(x, eps=EPSILON) + mean_scale * standardized) + shift


def _image(vector: Tensor) -> Tensor:
    """A number a channel, shaped to broadcast against images."""
    return vector[:, None, None]

r"""The empirical distribution of images on a torus with all shifts equally likely."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.errors import UserError
from scorefield.noise import Noise
from scorefield.sde import SDE
from scorefield.targets.empirical import IdealScore, Posterior


class EquivariantScore(IdealScore):
    r"""The equivariant score (ES): the ideal score of all cyclic shifts of all images.

    It is the optimum of a network that is equivariant to shifts with the whole torus as receptive
    field, and the limit of :class:`~scorefield.targets.patches.EquivariantLocalScore` with
    ``circular`` padding for windows as large as the image. As the score of a distribution it is a
    gradient: equivariance alone causes no curl.

    All shifts' inner products with a point are a correlation, and their weighted mean is a
    convolution, both by the fast Fourier transform: :math:`O(N D \log D)` per point.

    Arguments:
        points: The images, of shape :math:`(N, C, H, W)`.
        sde: The forward process; ``EDM()`` if not given.
        labels: The class of each image, from 0, where there are classes.

    Raises:
        ValueError: If the points are not images, or as :class:`IdealScore`.

    References:
        An analytic theory of creativity in convolutional diffusion models (Kamb and Ganguli,
        2025), section 3.
    """

    def __init__(
        self,
        points: Float[Tensor, "n channels height width"],
        sde: SDE | None = None,
        labels: Int[Tensor, " n"] | None = None,
    ) -> None:
        if points.dim() != 4 or 0 in points.shape:
            raise UserError(
                f"shifted images have the shape (images, channels, height, width), got "
                f"{tuple(points.shape)}"
            )
        super().__init__(points, sde, labels)
        level = self.points.mean(dim=(0, 2, 3), keepdim=True)
        self.centre.copy_(level.expand(1, *self.domain.shape).reshape(-1))

    @property
    def count(self) -> int:
        return self.data.shape[0] * self.domain.shape[1] * self.domain.shape[2]

    def draw(
        self,
        noise: Noise,
        index: Tensor,
        step: int | Tensor = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "..."]:
        _, height, width = self.domain.shape
        image = super().draw(noise, index, step, torch.float64)
        down = noise.integers("data/rows", height, (), index, step)[..., None]
        right = noise.integers("data/columns", width, (), index, step)[..., None]
        rows = (torch.arange(height, device=down.device) - down) % height
        columns = (torch.arange(width, device=down.device) - right) % width
        image = image.gather(-2, rows[..., None, :, None].expand(image.shape))
        return image.gather(-1, columns[..., None, None, :].expand(image.shape)).to(dtype)

    def _posterior(self, u: Tensor, alpha: Tensor, sigma: Tensor) -> Posterior:
        channels, height, width = self.domain.shape
        batch, side = u.shape[0], (height, width)
        if not batch:
            return Posterior(u.new_empty(0), u)
        wave = torch.fft.rfft2(u.reshape(batch, channels, *side))
        square = u.square().sum(dim=1, keepdim=True)
        top = u.new_full((batch, 1), -math.inf)
        total, weighted = torch.zeros_like(top), torch.zeros_like(wave)
        for block in self._centred(batch * height * width):
            images = block.reshape(-1, channels, *side)
            waves = torch.fft.rfft2(images)
            product = torch.einsum("bchw,nchw->bnhw", wave, waves.conj())
            norm = images.square().sum(dim=(1, 2, 3))[None, :, None, None]
            inner = torch.fft.irfft2(product, s=side)
            scale = sigma[:, :, None, None] ** 2
            a = alpha[:, :, None, None]
            logits = (a * inner - 0.5 * (square[:, :, None, None] + a**2 * norm)) / scale
            new_top = torch.maximum(top, logits.detach().amax(dim=(1, 2, 3)).unsqueeze(1))
            decay = (top - new_top).exp()
            weights = (logits - new_top[:, :, None, None]).exp()
            total = decay * total + weights.sum(dim=(1, 2, 3)).unsqueeze(1)
            shifted = torch.einsum("bnhw,nchw->bchw", torch.fft.rfft2(weights), waves)
            weighted = decay[:, :, None, None] * weighted + shifted
            top = new_top
        mean = torch.fft.irfft2(weighted, s=side).reshape(batch, -1) / total
        return Posterior((top + total.log()).squeeze(1), mean)

    def _offsets(self, entries: int) -> Iterator[Tensor]:
        channels, height, width = self.domain.shape
        for block in self._centred(entries * height * width):
            image = block.reshape(-1, channels, height, width)
            for down in range(height):
                rolled = torch.stack(
                    [image.roll((down, right), dims=(2, 3)) for right in range(width)]
                )
                yield rolled.reshape(-1, self.domain.dim)

"""How the points of a model become images: as they are, or latents by their autoencoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from scorefield.data.latent_packs import INDEX
from scorefield.data.latents import LatentSource
from scorefield.data.source import DataSource
from scorefield.errors import UserError
from scorefield.evaluation.extractors import image_bytes
from scorefield.interop.diffusers.autoencoder import Autoencoder, open_autoencoder


@dataclass(frozen=True, eq=False)
class Pixels:
    """How points become images.

    Arguments:
        centered: Whether the values of images lie in [-1, 1]; in [0, 1] otherwise.
        autoencoder: What decodes points that are latents.
    """

    centered: bool
    autoencoder: Autoencoder | None = None

    @property
    def black(self) -> float:
        """The value of black; that of white is 1."""
        return -1.0 if self.centered else 0.0

    @property
    def factor(self) -> int:
        """How many pixels a side of the image has for one of the points."""
        return 1 if self.autoencoder is None else self.autoencoder.factor

    def on(self, device: torch.device) -> Pixels:
        """These, with latents decoded on a device."""
        opened = self.autoencoder
        return self if opened is None else replace(self, autoencoder=opened.on(device))

    def images(self, points: Tensor) -> Tensor:
        """The images of points."""
        return points if self.autoencoder is None else self.autoencoder.decode(points)

    def bytes(self, points: Tensor) -> Tensor:
        """The images of points in bytes, on the CPU."""
        return image_bytes(self.images(points), self.centered)


def pixels_of(
    source: DataSource | None,
    centered: bool,
    device: torch.device | str = "cpu",
    vae: Path | None = None,
) -> Pixels:
    """How points that are distributed as those of some data become images. Latents are decoded with
    the scale and shift that they have, whatever the configuration of the autoencoder says.

    Arguments:
        source: The data, where they are known.
        centered: As of :class:`Pixels`.
        device: Where latents are decoded.
        vae: Where the autoencoder of latents is; by default where it was when they were encoded.

    Raises:
        UserError: If latents are not there, or their autoencoder is not, or has other weights; or
            ``vae`` is given for points that are no latents.
    """
    if not isinstance(source, LatentSource):
        if vae is not None:
            raise UserError(f"{vae} decodes latents, and the points of the model are none")
        return Pixels(centered)
    codec = source.pack.codec
    if vae is None and not Path(codec.path).exists():
        raise UserError(
            f"the autoencoder of the latents {source.pack.folder} is no longer in {codec.path}: "
            f"give its folder with --vae, or write it into {INDEX}"
        )
    opened = open_autoencoder(codec.path if vae is None else vae, codec.sha256)
    opened = replace(opened, codec=replace(codec, path=opened.codec.path))
    return Pixels(True, opened.on(torch.device(device)))

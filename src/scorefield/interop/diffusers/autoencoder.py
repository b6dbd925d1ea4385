r"""Variational autoencoders of diffusers, which bring images to latents and back.

The encoder gives a normal distribution of latents :math:`z`, the decoder an image of a latent. What
diffusion models see are points :math:`a (z - b)` with the scale :math:`a` and the shift :math:`b`
of its configuration, ``scaling_factor`` and ``shift_factor``.

References:
    High-resolution image synthesis with latent diffusion models (Rombach, Blattmann, Lorenz, Esser
    and Ommer, 2022), section 3.1 and appendix G.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from scorefield.data.latent_packs import Codec
from scorefield.engine import device_of, exact
from scorefield.files import sha256_of
from scorefield.interop.diffusers.folders import from_folder, read_json
from scorefield.interop.errors import InteropError

_KIND, _WEIGHTS = "AutoencoderKL", "diffusion_pytorch_model.safetensors"
_CONFIG, _PIPELINE, _PART = "config.json", "model_index.json", "vae"
_AT_ONCE = 4


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """An autoencoder with its weights.

    Arguments:
        network: The ``AutoencoderKL``, in evaluation mode and single precision.
        codec: Where it is, the hash of its weights, and its scale.
    """

    network: Any
    codec: Codec

    @property
    def factor(self) -> int:
        """How many pixels a side of the image has for one of the latents."""
        return 2 ** (len(self.network.config.block_out_channels) - 1)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return device_of(self.network)

    def latent_shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """The shape of the latents of images of a shape.

        Raises:
            InteropError: If it takes no such images.
        """
        wanted, factor = self.network.config.in_channels, self.factor
        if channels != wanted or height % factor or width % factor:
            raise InteropError(
                f"the autoencoder in {self.codec.path} takes images of {wanted} channels with sides"
                f" that are multiples of {factor}, and these are {channels}×{height}×{width}"
            )
        return self.network.config.latent_channels, height // factor, width // factor

    def on(self, device: torch.device) -> Autoencoder:
        """This autoencoder, moved to a device."""
        self.network.to(device)
        return self

    def encode(
        self, images: UInt8[Tensor, "n channels height width"]
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
        """The means and the standard deviations of the latents of images in bytes, before scale and
        shift, float32, on the CPU; those of an image depend on its block of 4 by rounding only.
        """
        means, stds = [], []
        with torch.no_grad(), exact():
            for part in images.split(_AT_ONCE):
                x = part.to(self.device).to(torch.float32) / 127.5 - 1
                found = self.network.encode(x, return_dict=False)[0]
                means.append(found.mean.cpu())
                stds.append(found.std.cpu())
        return torch.cat(means), torch.cat(stds)

    def decode(self, points: Float[Tensor, "n c h w"]) -> Float[Tensor, "n channels height width"]:
        """The images of scaled and shifted latents, with values in [-1, 1] but for small excess,
        float32, on the CPU.
        """
        found = []
        with torch.no_grad(), exact():
            for part in points.split(_AT_ONCE):
                z = part.to(self.device, torch.float32)
                z = z / self.codec.scaling_factor + self.codec.shift_factor
                found.append(self.network.decode(z, return_dict=False)[0].cpu())
        return torch.cat(found)


def open_autoencoder(path: str | Path, sha256: str | None = None) -> Autoencoder:
    """The autoencoder in a folder; nothing is downloaded.

    Arguments:
        path: What ``save_pretrained`` of an ``AutoencoderKL`` wrote, or of a pipeline with one in
            ``vae``.
        sha256: The hash that its file of weights must have.

    Raises:
        UserError: If diffusers is not installed, there is no such folder, or its weights cannot be
            read or are others; if it holds another network.
    """
    given = Path(path).expanduser()
    folder = given / _PART if (given / _PIPELINE).is_file() else given
    if not (folder / _CONFIG).is_file():
        raise InteropError(
            f"there is no autoencoder in {given}: give the folder of an {_KIND} of diffusers, with "
            f"{_CONFIG} and {_WEIGHTS}"
        )
    kind = read_json(folder / _CONFIG).get("_class_name")
    if kind != _KIND:
        raise InteropError(f"{folder} holds a network of class {kind}, it must be {_KIND}")
    digest = sha256_of(folder / _WEIGHTS)
    if sha256 not in (None, digest):
        raise InteropError(
            f"the weights of the autoencoder in {folder} have the SHA-256 {digest[:12]}…, and the "
            f"latents were encoded by those of {str(sha256)[:12]}…"
        )
    network = from_folder(folder, _KIND, weights=True)
    config = network.config
    if config.latents_mean is not None or config.latents_std is not None:
        raise InteropError(
            f"{folder} scales its latents by latents_mean and latents_std, a scale for each "
            "channel: only scaling_factor and shift_factor are known here"
        )
    shift = 0.0 if config.shift_factor is None else float(config.shift_factor)
    codec = Codec(str(folder.resolve()), digest, float(config.scaling_factor), shift)
    return Autoencoder(network.float().eval().requires_grad_(False), codec)

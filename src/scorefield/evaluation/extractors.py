"""Networks whose features compare images, in files that the user names; nothing is downloaded.

An extractor is known by its kind and the SHA-256 of its file, and what is measured on its features
is reported with both. Of a file no code is executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield import archives
from scorefield.engine import device_of, exact
from scorefield.errors import UserError
from scorefield.files import open_file, sha256_of
from scorefield.interop.unpickling import read_state
from scorefield.networks.dinov2 import DinoV2
from scorefield.networks.inception import Inception

_NAMED = 12
_AT_ONCE = 32
_COUNTER = ".num_batches_tracked"


class Published(NamedTuple):
    """A file of weights that is published: its name, its address, and its SHA-256 where known."""

    file: str
    address: str
    sha256: str = ""


INCEPTION = Published(
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
"""The Inception network of FID; torch-fidelity publishes the same file as
``weights-inception-2015-12-05-6726825d.pth``."""
DINOV2 = Published(
    "dinov2_vitl14_pretrain.pth", "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/"
)
"""The network of FD-DINOv2; its smaller and larger kin are read too."""


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network whose features compare images.

    Arguments:
        network: The network.
        sha256: The hash of its file, as hexadecimal digits.
    """

    network: Inception | DinoV2
    sha256: str

    @property
    def kind(self) -> str:
        """``inception`` or ``dinov2``."""
        return self.network.kind

    @property
    def name(self) -> str:
        """The kind and the first 12 digits of the hash."""
        return f"{self.kind}:{self.sha256[:_NAMED]}"

    @property
    def of_fid(self) -> bool:
        """Whether these are the published weights whose distances are called FID."""
        return self.kind == "inception" and self.sha256 == INCEPTION.sha256

    @property
    def sizes(self) -> Mapping[str, int]:
        """The number of columns of each of its outputs."""
        return self.network.sizes

    @property
    def preprocessing(self) -> str:
        """What is done to images before the first layer, on which distances depend."""
        return f"bytes, grey as RGB, {self.network.resizing}"

    def on(self, device: torch.device) -> Extractor:
        """This extractor on a device."""
        return replace(self, network=self.network.to(device))

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs for images in bytes, ``(n, channels, height, width)``, single precision, on
        the CPU; those of an image depend on its block of 32 by rounding only.
        """
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
            raise UserError(
                "an extractor takes images in bytes with one channel or three, got "
                f"{images.dtype} of shape {tuple(images.shape[1:])}"
            )
        colours = images.expand(-1, 3, -1, -1)
        device, found = device_of(self.network), []
        with torch.no_grad(), exact():
            for part in colours.split(_AT_ONCE):
                found.append({k: v.cpu() for k, v in self.network(part.to(device)).items()})
        return {name: torch.cat([part[name] for part in found]) for name in self.sizes}


def open_extractor(path: str | Path) -> Extractor:
    """The extractor of a file, whose kind is found from its tensors.

    Raises:
        UserError: If there is no such file, or it holds another network; the sentence names the
            files that are read, and where they are published.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(
            f"there are no weights of an extractor at {path}: {INCEPTION.file} (FID, KID, "
            f"Inception Score) is published at {INCEPTION.address}, {DINOV2.file} at "
            f"{DINOV2.address}; put the file there, or give the path of the one that you have"
        )
    digest = sha256_of(path)
    state = _state(path, digest)
    try:
        network = Inception() if "Conv2d_1a_3x3.conv.weight" in state else DinoV2.of(state)
    except UserError as error:
        raise UserError(
            f"{path} is neither the Inception network of FID nor one of DINOv2: {error}"
        ) from error
    _fill(network, state, path)
    return Extractor(network, digest)


def image_bytes(samples: Tensor, centered: bool) -> Tensor:
    """Images of values in [-1, 1], or [0, 1] unless ``centered``, as the nearest bytes, on the CPU;
    values outside are cut off.
    """
    values = samples.to(torch.float64)
    values = (values + 1) * 127.5 if centered else values * 255
    return values.round().clamp(0, 255).to(torch.uint8).cpu()


def _state(path: Path, digest: str) -> Mapping[str, Tensor]:
    if digest != INCEPTION.sha256:
        recipe = "save the state dict of the network with torch.save"
        return read_state(path, recipe)
    try:
        with open_file(path) as file:
            found: Mapping[str, Tensor] = archives.load_known(file)
            return found
    except UserError as error:
        raise UserError(f"{path} {error}") from error


def _fill(network: Inception | DinoV2, state: Mapping[str, Tensor], path: Path) -> None:
    """Gives a network all tensors that it has, and no others; numbers of batches do not count."""
    wanted = {k: v for k, v in network.state_dict().items() if not k.endswith(_COUNTER)}
    given = {k: v for k, v in state.items() if not k.endswith(_COUNTER)}
    for name, tensor in wanted.items():
        if name not in given:
            raise UserError(f"{path} is no whole {network.kind} network: it lacks {name}")
        if given[name].shape != tensor.shape:
            raise UserError(
                f"{path} is no {network.kind} network: {name} has the shape "
                f"{tuple(given[name].shape)} in place of {tuple(tensor.shape)}"
            )
        if not bool(torch.isfinite(given[name]).all()):
            raise UserError(f"{path} is damaged: {name} has numbers that are not finite")
    for name in given.keys() - wanted.keys():
        raise UserError(f"{path} is no {network.kind} network: it has {name} too")
    network.load_state_dict(given, strict=False)

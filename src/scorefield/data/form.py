r"""What a picture is made to be on its way to a network: its channels, its sides, its background.

The order is: to bytes; transparent parts on a background; to the wanted channels; the crop; the
resampling, once, in float32 and rounded at the end. An image that has the wanted size is left as
it is.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import UInt8

from scorefield.errors import UserError

Filter = Literal["box", "bilinear", "hamming", "bicubic", "lanczos"]
"""The kernels of Pillow; all widen with the reduction, so that nothing is aliased."""
Crop = Literal["center", "adm", "stretch"]

MOST_SIDE = 1 << 15
"""The most pixels of a side of an image."""


@dataclass(frozen=True)
class Form:
    r"""The form of the images of a set.

    Arguments:
        channels: The number of channels. A picture in a file gives 1 (grey), 2 (grey and alpha),
            3 (colour) or 4 (colour and alpha); arrays have any number.
        size: The side of square images, or their height and width.
        crop: Which part of a picture is kept. ``"center"`` is the largest window of the wanted
            proportions, in the middle; a number the same, with a shorter side of no more than so
            many pixels. ``"stretch"`` is the whole picture. ``"adm"`` is the centre crop of the
            ADM code: halved by a box filter while the shorter side is at least twice the wanted
            one, resampled bicubically to the wanted shorter side, then cut, with bytes after each
            stage.
        filter: The kernel of the resampling.
        background: The grey level, 0 to 255, on which transparent pictures are shown.

    Raises:
        ValueError: If a value is out of bounds.

    References:
        Dhariwal and Nichol, Diffusion models beat GANs on image synthesis, 2021
        (``center_crop_arr`` of ``guided_diffusion/image_datasets.py``).
    """

    channels: int
    size: int | tuple[int, int]
    crop: int | Crop = "center"
    filter: Filter = "bilinear"
    background: int = 255

    def __post_init__(self) -> None:
        size = tuple(self.size) if isinstance(self.size, list | tuple) else (self.size,) * 2
        if len(size) != 2 or not all(_is_whole(side, 1, MOST_SIDE) for side in size):
            raise UserError(f"size has sides from 1 to {MOST_SIDE} pixels, got {self.size!r}")
        height, width = map(int, size)
        object.__setattr__(self, "size", height if height == width else (height, width))
        if not _is_whole(self.channels, 1):
            raise UserError(f"channels is a number from 1, got {self.channels!r}")
        if self.crop not in get_args(Crop) and not _is_whole(self.crop, 1):
            known = ", ".join(get_args(Crop))
            raise UserError(f"crop is {known} or a number of pixels, got {self.crop!r}")
        if self.filter not in get_args(Filter):
            raise UserError(f"filter is {', '.join(get_args(Filter))}, got {self.filter!r}")
        if not _is_whole(self.background, 0, 255):
            raise UserError(f"background is a grey level from 0 to 255, got {self.background!r}")

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return (self.channels, *self.sides)


def _is_whole(value: object, low: int, high: int = sys.maxsize) -> bool:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and bool(low <= value <= high)  # type: ignore[operator]


def fitted(
    pixels: UInt8[np.ndarray, "channels height width"], form: Form
) -> UInt8[np.ndarray, "channels rows columns"]:
    """An image, cropped and resampled to the sides of a form.

    Raises:
        ValueError: If it has other channels.
    """
    if len(pixels) != form.channels:
        raise UserError(f"the images have {len(pixels)} channels, {form.channels} are wanted")
    if pixels.shape[1:] == form.sides:
        return pixels
    if form.crop == "adm":
        return _adm(pixels, form)
    top, left, height, width = _window(pixels.shape[1], pixels.shape[2], form)
    window = pixels[:, top : top + height, left : left + width]
    if window.shape[1:] == form.sides:
        return window
    planes = [_resized(plane.astype(np.float32), form.sides, form.filter) for plane in window]
    return np.rint(np.stack(planes)).clip(0, 255).astype(np.uint8)


def _window(height: int, width: int, form: Form) -> tuple[int, int, int, int]:
    """The part of a picture that is kept: top, left, height, width."""
    if form.crop == "stretch":
        return 0, 0, height, width
    wanted_height, wanted_width = form.sides
    scale = min(height / wanted_height, width / wanted_width)
    if isinstance(form.crop, int):
        scale = min(scale, form.crop / min(form.sides))
    # Rounding must not leave the picture.
    rows = min(height, max(1, round(wanted_height * scale)))
    columns = min(width, max(1, round(wanted_width * scale)))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _adm(pixels: UInt8[np.ndarray, "c h w"], form: Form) -> UInt8[np.ndarray, "c r s"]:
    """The centre crop of ADM; for rectangles, the scale at which both sides are covered."""
    wanted_height, wanted_width = form.sides
    planes = list(pixels)
    while _scale(planes[0], form) >= 2:
        half = (planes[0].shape[0] // 2, planes[0].shape[1] // 2)
        planes = [_resized(plane, half, "box") for plane in planes]
    scale = 1 / _scale(planes[0], form)
    sides = (round(planes[0].shape[0] * scale), round(planes[0].shape[1] * scale))
    planes = [_resized(plane, sides, "bicubic") for plane in planes]
    top, left = (sides[0] - wanted_height) // 2, (sides[1] - wanted_width) // 2
    return np.stack(planes)[:, top : top + wanted_height, left : left + wanted_width]


def _scale(plane: np.ndarray, form: Form) -> float:
    return min(have / want for have, want in zip(plane.shape, form.sides, strict=True))


def _resized(plane: np.ndarray, sides: tuple[int, int], kernel: Filter) -> np.ndarray:
    from PIL import Image

    method = Image.Resampling[kernel.upper()]
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(sides[::-1], method))

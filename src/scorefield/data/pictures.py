"""One picture of a file, decoded by Pillow: every mode, or one clause that says why not.

The clauses of errors have the file as their subject.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from scorefield.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
}
"""What picture files can be, whatever their names, and how these end; nothing else is tried on
their bytes."""
ENDINGS = tuple(ending for endings in FORMATS.values() for ending in endings)
"""How the names of picture files end."""
MOST_PIXELS = 1 << 26
"""The most pixels of a picture."""
MOST_BYTES = 1 << 29
"""The most bytes of a file of one picture."""
_ORIENTATION = 0x0112
_FEW_BITS = {"L;2": 85, "L;4": 17}


def decoded(content: bytes) -> Image.Image:
    """The picture of a file, turned as its camera says.

    Raises:
        UserError: If it is none of :data:`FORMATS`, damaged, animated, or larger than
            :data:`MOST_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = _opened(content)
            if picture.format == "PNG":
                # Pillow does not compare the checksums of what it decodes.
                picture.verify()
                picture = _opened(content)
            picture.load()
            return _turned(picture)
    except UserError:
        raise
    except Exception as error:
        # Damaged bytes can cause any error of the decoders.
        raise UserError("is no image that can be read") from error


def channels_of(
    picture: Image.Image, channels: int, background: int
) -> UInt8[np.ndarray, "channels height width"]:
    """The bytes of a picture in so many channels: grey, grey and alpha, colour, colour and alpha.

    Grey is Rec. 601's luma. Without a channel for it, transparency is replaced by what is seen on
    a grey ``background``, :math:`(a p + (255 - a) b) / 255`; the colour of a transparent pixel is
    arbitrary. Grey of 16 bits is rounded to bytes; of colour of 16 bits, Pillow gives the higher
    byte.

    Raises:
        UserError: If there are no such channels, or the values of the picture are not bytes.
    """
    if not 1 <= channels <= 4:
        raise UserError(f"has up to 4 channels, {channels} are wanted: store such images as arrays")
    values = _grey_or_colour(picture)
    colour, alpha = values[..., :3] if values.shape[2] > 2 else values[..., :1], None
    if values.shape[2] in (2, 4):
        alpha = values[..., -1:]
    if alpha is not None and channels in (1, 3):
        a, c = alpha.astype(np.uint32), colour.astype(np.uint32)
        colour = ((a * c + (255 - a) * background + 127) // 255).astype(np.uint8)
    if colour.shape[2] == 3 and channels < 3:
        colour = _luma(colour)
    elif colour.shape[2] == 1 and channels > 2:
        colour = np.repeat(colour, 3, axis=2)
    if channels in (2, 4):
        opaque = np.full_like(colour[..., :1], 255)
        colour = np.concatenate((colour, opaque if alpha is None else alpha), axis=2)
    return np.ascontiguousarray(np.moveaxis(colour, 2, 0))


def _opened(content: bytes) -> Image.Image:
    from PIL import Image

    picture = Image.open(io.BytesIO(content), formats=tuple(FORMATS))
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise UserError(f"has {width} × {height} pixels, and at most {MOST_PIXELS} are read")
    frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        raise UserError(f"has {frames} pictures, and only files of one are read")
    # Pillow brings grey of few bits to bytes, but not the value that is transparent.
    key, raw = picture.info.get("transparency"), picture.tile[0][3] if picture.tile else None
    if raw in _FEW_BITS and isinstance(key, int):
        picture.info["transparency"] = key * _FEW_BITS[raw]
    if raw == "RGB;16B" and key is not None:
        raise UserError("has a transparent colour of 16 bits, which is not read")
    return picture


def _turned(picture: Image.Image) -> Image.Image:
    from PIL import ImageOps

    if picture.getexif().get(_ORIENTATION, 1) == 1:
        return picture
    return ImageOps.exif_transpose(picture)


def _grey_or_colour(picture: Image.Image) -> UInt8[np.ndarray, "height width planes"]:
    """Grey, grey and alpha, colour, or colour and alpha, as bytes."""
    if picture.mode.startswith("I;16"):
        return _sixteen_bits(picture)
    if picture.mode in ("I", "F"):
        raise UserError(f"has values of mode {picture.mode!r}, which are not bytes")
    transparent = picture.has_transparency_data
    base = "L" if picture.mode in ("1", "L", "LA", "La") else "RGB"
    if picture.mode == "1":
        picture = _of_one_bit(picture)
    try:
        converted = picture.convert(f"{base}A" if transparent else base)
    except ValueError as error:
        raise UserError(f"has colours of mode {picture.mode!r}, which are not read") from error
    return np.asarray(converted).reshape(*picture.size[::-1], -1)


def _sixteen_bits(picture: Image.Image) -> UInt8[np.ndarray, "height width planes"]:
    """Grey, rounded; Pillow's own conversion cuts off what is greater than a byte."""
    values = np.asarray(picture).astype(np.uint32)
    grey = ((values + 128) // 257).astype(np.uint8)[..., None]
    key = picture.info.get("transparency")
    if key is None:
        return grey
    return np.concatenate((grey, np.where(values == key, 0, 255).astype(np.uint8)[..., None]), 2)


def _of_one_bit(picture: Image.Image) -> Any:
    grey = picture.convert("L")
    if "transparency" in picture.info:
        grey.info["transparency"] = picture.info["transparency"]
    return grey


def _luma(colour: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 1"]:
    from PIL import Image

    return np.asarray(Image.fromarray(colour).convert("L"))[..., None]

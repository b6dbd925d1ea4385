"""Pictures of every kind with their values known: PNGs from the format's own description, others by
Pillow from plain pixels; and what a network should see of each, pixel by pixel.

Nothing here is taken from the package.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
DEPTHS = {
    GREY: (1, 2, 4, 8, 16), COLOUR: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16),
    COLOUR_ALPHA: (8, 16),
}  # fmt: skip
SAMPLES = {GREY: 1, COLOUR: 3, PALETTE: 1, GREY_ALPHA: 2, COLOUR_ALPHA: 4}


def chunk(kind, content):
    return (
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )  # fmt: skip


def row_bytes(row, depth):
    """The samples of a row, packed from the high bits on."""
    if depth == 16:
        return b"".join(struct.pack(">H", s) for s in row)
    bits = "".join(f"{s:0{depth}b}" for s in row)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[k : k + 8], 2) for k in range(0, len(bits), 8))


def to_byte(sample, depth, rounded):
    """A sample of a depth as a byte; of 16 bits the nearest, or the higher byte."""
    if depth == 16:
        return round(sample / 257) if rounded else sample >> 8
    return sample * 255 // (2**depth - 1)


def png(rng, height, width):
    """A PNG of a random kind, and the planes of its pixels: (r, g, b, a) or (y, a) as bytes."""
    kind = int(rng.choice(list(DEPTHS)))
    depth = int(rng.choice(DEPTHS[kind]))
    n = SAMPLES[kind]
    samples = rng.integers(0, 2**depth, (height, width, n))
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    chunks = [chunk(b"IHDR", head)]
    key = None
    if kind == PALETTE:
        colours = rng.integers(0, 256, (2**depth, 3))
        chunks.append(chunk(b"PLTE", colours.astype(np.uint8).tobytes()))
        alphas = np.full(2**depth, 255)
        if rng.random() < 0.6:
            some = int(rng.integers(1, 2**depth + 1))
            alphas[:some] = rng.integers(0, 256, some)
            chunks.append(chunk(b"tRNS", alphas[:some].astype(np.uint8).tobytes()))
        pixels = np.concatenate((colours, alphas[:, None]), 1)[samples[..., 0]]
    else:
        if kind == GREY and rng.random() < 0.5:
            key = [int(samples[0, 0, 0])]
        if kind == COLOUR and depth == 8 and rng.random() < 0.5:
            key = [int(s) for s in samples[0, 0]]
        if key is not None:
            chunks.append(chunk(b"tRNS", struct.pack(f">{n}H", *key)))
        rounded = kind == GREY  # of the others, Pillow keeps the higher byte
        pixels = np.vectorize(lambda s: to_byte(int(s), depth, rounded))(samples)
        if kind in (GREY, COLOUR):
            alpha = np.full((height, width, 1), 255)
            if key is not None:
                alpha[(samples == key).all(-1)] = 0
            pixels = np.concatenate((pixels, alpha), 2)
    rows = b"".join(b"\0" + row_bytes(row.ravel().tolist(), depth) for row in samples)
    chunks += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks), pixels.astype(int)


def by_pillow(rng, height, width):
    """A file of another format without losses, and the planes of its pixels."""
    kind = rng.choice(
        ["bmp", "ppm", "pgm", "pbm", "webp", "webp alpha", "tiff", "tiff grey", "gif"]
    )
    colours = rng.integers(0, 256, (height, width, 4), np.uint8)
    opaque = np.full((height, width, 1), 255)
    stream = io.BytesIO()
    if kind in ("pgm", "tiff grey"):
        pixels = np.concatenate((colours[..., :1], opaque), 2)
        Image.fromarray(colours[..., 0]).save(stream, "PPM" if kind == "pgm" else "TIFF")
    elif kind == "pbm":
        bits = colours[..., 0] > 127
        pixels = np.concatenate((bits[..., None] * 255, opaque), 2)
        Image.fromarray(bits).save(stream, "PPM")
    elif kind == "gif":
        # 16 colours, one of them transparent or none.
        palette = rng.integers(0, 256, (16, 3), np.uint8)
        numbers = (colours[..., 0] % 16).astype(np.uint8)
        picture = Image.new("P", (width, height))
        picture.putpalette(palette.tobytes())
        picture.putdata(numbers.ravel().tolist())
        hidden = int(rng.integers(0, 16)) if rng.random() < 0.5 else None
        picture.save(stream, "GIF", **({} if hidden is None else {"transparency": hidden}))
        alpha = opaque if hidden is None else np.where(numbers[..., None] == hidden, 0, 255)
        pixels = np.concatenate((palette[numbers], alpha), 2)
    elif kind == "webp alpha":
        pixels = colours
        Image.fromarray(colours).save(stream, "WEBP", lossless=True, exact=True)
    else:
        pixels = np.concatenate((colours[..., :3], opaque), 2)
        form = {"bmp": "BMP", "ppm": "PPM", "webp": "WEBP", "tiff": "TIFF"}[kind]
        more = {"lossless": True} if form == "WEBP" else {}
        Image.fromarray(colours[..., :3].copy()).save(stream, form, **more)
    return stream.getvalue(), pixels.astype(int)


def picture(rng, height, width):
    """A file of a random kind, its ending, and its pixels."""
    if rng.random() < 0.6:
        return png(rng, height, width)
    return by_pillow(rng, height, width)


def seen(pixels, channels, background):
    """What a network sees of pixels: ``(channels, height, width)``, as numbers that are no
    integers where grey is made of colour.
    """
    *colour, alpha = np.moveaxis(pixels.astype(float), 2, 0)
    if channels in (1, 3):
        colour = [np.round((alpha * c + (255 - alpha) * background) / 255) for c in colour]
    if channels in (1, 2) and len(colour) == 3:
        red, green, blue = colour
        colour = [0.299 * red + 0.587 * green + 0.114 * blue]
    if channels in (3, 4) and len(colour) == 1:
        colour = colour * 3
    return np.stack(colour + [alpha] * (channels in (2, 4)))


def center(values, side):
    """The square in the middle."""
    top, left = (values.shape[-2] - side) // 2, (values.shape[-1] - side) // 2
    return values[..., top : top + side, left : left + side]

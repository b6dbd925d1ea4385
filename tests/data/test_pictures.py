"""What a network sees of a picture: every mode, against pixels that are known."""

import io
import random
import zipfile

import numpy as np
import pytest
from PIL import Image

from scorefield.data.form import Form, fitted
from scorefield.data.layouts import contents_of
from scorefield.data.pictures import channels_of, decoded
from scorefield.errors import UserError
from tests.data import plain_pictures as plain
from tests.data.test_layouts import tarred, write, zipped
from tests.test_damaged_files import damaged

SIDE = 5


def saved(picture, kind="png", **settings):
    stream = io.BytesIO()
    picture.save(stream, kind, **settings)
    return stream.getvalue()


def check_set(seed, place):
    """A container of ten pictures of random kinds and sizes, cropped in the middle."""
    rng = np.random.default_rng(seed)
    channels, background = int(rng.integers(1, 5)), int(rng.integers(0, 256))
    files, expected = {}, []
    for k in range(10):
        height, width = rng.integers(SIDE, 4 * SIDE, 2)
        content, pixels = plain.picture(rng, int(height), int(width))
        files[f"{k:02d}.png"] = content  # whatever it is: the name says nothing
        expected.append(plain.center(plain.seen(pixels, channels, background), SIDE))
    container = rng.choice(["folder", "stored", "deflated", "tar"])
    if container == "folder":
        path = write(place / "set", files)
    elif container == "tar":
        path = tarred(place / "set.tar", files)
    else:
        kind = zipfile.ZIP_STORED if container == "stored" else zipfile.ZIP_DEFLATED
        path = zipped(place / "set.zip", files, kind)
    form = Form(channels, SIDE, crop=SIDE, background=background)
    records = contents_of(path).parts["train"].records
    for k, (found, wanted) in enumerate(zip(records.block(0, 10, form), expected, strict=True)):
        # Grey of colour is rounded in Pillow's own way; all else is exact.
        most = 0.51 if channels in (1, 2) else 0
        assert np.abs(found - wanted).max() <= most, (seed, k, container, channels)


@pytest.mark.parametrize("seed", range(40))
def test_pictures_of_every_kind_are_seen_as_they_are(tmp_path, seed):
    check_set(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1200))
def test_two_thousand_pictures_are_seen_as_they_are(tmp_path, seed):
    check_set(seed, tmp_path)


def test_the_colour_of_an_invisible_pixel_is_not_seen():
    """The same picture with any colour under what is transparent."""
    for mode, kind in (("RGBA", "png"), ("LA", "png"), ("RGBA", "webp"), ("RGBA", "tiff")):
        one = Image.new(mode, (4, 4), (200,) * (len(mode) - 1) + (0,))
        content = saved(one, kind, **({"exact": True, "lossless": True} if kind == "webp" else {}))
        for background in (0, 77, 255):
            found = channels_of(decoded(content), 3, background)
            assert (found == background).all()
    half = saved(Image.new("RGBA", (2, 2), (100, 0, 255, 128)))
    found = channels_of(decoded(half), 3, 255)[:, 0, 0]
    assert found.tolist() == [round((128 * c + 127 * 255) / 255) for c in (100, 0, 255)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_camera_says(orientation):
    """The eight orientations of EXIF, from its table: where row 0 and column 0 are to be shown."""
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    turns = {
        1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
        5: lambda p: p.T, 6: lambda p: np.rot90(p, -1), 7: lambda p: p[::-1, ::-1].T,
        8: lambda p: np.rot90(p),
    }  # fmt: skip
    about = Image.Exif()
    about[0x0112] = orientation
    content = saved(Image.fromarray(pixels), exif=about)
    assert np.array_equal(channels_of(decoded(content), 1, 255)[0], turns[orientation](pixels))


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "jpeg"), ("CMYK", "tiff"), ("L", "jpeg")])
def test_other_modes_are_those_of_pillow(mode, kind):
    rng = np.random.default_rng(0)
    planes = [Image.fromarray(rng.integers(0, 256, (9, 7), np.uint8)) for _ in mode]
    content = saved(planes[0] if len(mode) == 1 else Image.merge(mode, planes), kind)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.array_equal(channels_of(decoded(content), 3, 255), np.moveaxis(expected, 2, 0))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda: saved(Image.fromarray(np.zeros((2, 2), np.float32)), "tiff"), "mode 'F'"),
        (lambda: saved(Image.fromarray(np.zeros((2, 2), np.int32)), "tiff"), "mode 'I'"),
        (lambda: saved(Image.new("L", (1 << 14, 1 << 13)), "png"), "at most 67108864 are read"),
        (
            lambda: saved(
                Image.new("L", (2, 2)),
                "gif",
                save_all=True,
                append_images=[Image.new("L", (2, 2), 9)],
            ),
            "has 2 pictures, and only files of one are read",
        ),
        (lambda: b"", "no image that can be read"),
        (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "no image that can be read"),
    ],
)
def test_a_picture_that_is_none_for_a_network_is_refused(content, told):
    with pytest.raises(UserError) as error:
        channels_of(decoded(content()), 3, 255)
    assert told in str(error.value)


@pytest.mark.parametrize("seed", range(300))
def test_a_damaged_png_is_refused_or_what_it_was(seed):
    content, _ = plain.png(np.random.default_rng(seed), 9, 8)
    whole = channels_of(decoded(content), 3, 255)
    try:
        found = channels_of(decoded(damaged(content, random.Random(seed))), 3, 255)
    except UserError:
        return
    assert np.array_equal(found, whole)


def adm(picture, size):
    """``center_crop_arr`` of guided_diffusion/image_datasets.py, word for word."""
    while min(*picture.size) >= 2 * size:
        picture = picture.resize(tuple(x // 2 for x in picture.size), resample=Image.BOX)
    scale = size / min(*picture.size)
    picture = picture.resize(tuple(round(x * scale) for x in picture.size), resample=Image.BICUBIC)
    arr = np.array(picture)
    crop_y, crop_x = (arr.shape[0] - size) // 2, (arr.shape[1] - size) // 2
    return arr[crop_y : crop_y + size, crop_x : crop_x + size]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (37, 90), (200, 131), (16, 17), (9, 12)])
def test_the_crop_of_adm_is_that_of_its_code(height, width):
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    found = fitted(np.moveaxis(pixels, 2, 0), Form(3, 16, crop="adm"))
    assert np.array_equal(np.moveaxis(found, 0, 2), adm(Image.fromarray(pixels), 16))


KERNELS = {
    "box": (0.5, lambda x: np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)),
    "bilinear": (1.0, lambda x: np.maximum(1 - np.abs(x), 0)),
    "bicubic": (2.0, lambda x: np.where(
        np.abs(x) < 1, (1.5 * np.abs(x) - 2.5) * x**2 + 1,
        np.where(np.abs(x) < 2, ((-0.5 * np.abs(x) + 2.5) * np.abs(x) - 4) * np.abs(x) + 2, 0.0),
    )),
    "hamming": (1.0, lambda x: np.where(
        np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0.0
    )),
    "lanczos": (3.0, lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)),
}  # fmt: skip


def matrix(old, new, kind):
    """The resampling of one axis in float64: a kernel as wide as a new pixel, normalised."""
    support, kernel = KERNELS[kind]
    scale = old / new
    wide = max(scale, 1.0)
    found = np.zeros((new, old))
    for k in range(new):
        middle = (k + 0.5) * scale
        low, high = (
            int(max(0, middle - support * wide + 0.5)),
            int(min(old, middle + support * wide + 0.5)),
        )
        place = np.arange(low, high)
        found[k, low:high] = kernel((place - middle + 0.5) / wide)
    return found / found.sum(1, keepdims=True)


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize(
    ("old", "new"), [((40, 30), (13, 21)), ((7, 9), (20, 31)), ((64, 8), (8, 8))]
)
def test_resampling_is_that_of_float64_rounded_once(kind, old, new):
    pixels = np.random.default_rng(0).integers(0, 256, (2, *old), np.uint8)
    found = fitted(pixels, Form(2, new, crop="stretch", filter=kind))
    rows, columns = matrix(old[0], new[0], kind), matrix(old[1], new[1], kind)
    exact = (rows @ pixels.astype(float) @ columns.T).clip(0, 255)
    assert np.abs(found - exact).max() < 0.501


def test_the_window_has_the_wanted_proportions_and_is_in_the_middle():
    image = np.arange(40 * 30, dtype=np.uint8).reshape(1, 40, 30)
    assert np.array_equal(fitted(image, Form(1, (20, 30))), image[:, 10:30])
    assert np.array_equal(fitted(image, Form(1, (40, 10))), image[:, :, 10:20])
    assert np.array_equal(fitted(image, Form(1, (8, 6), crop=6)), image[:, 16:24, 12:18])
    assert np.array_equal(fitted(image, Form(1, 30)), image[:, 5:35])

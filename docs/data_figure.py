"""Draw `docs/data.png`, what is done to a picture on its way to a network:
`python docs/data_figure.py`. Every panel is made by the package's own functions.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from scorefield.data.form import Crop, Filter, Form, fitted
from scorefield.data.pictures import channels_of
from scorefield.files import write_file
from scorefield.plotting import new_figure, png
from scorefield.plotting.palette import INK

PLACE = Path(__file__).with_name("data.png")
WIDTH, HEIGHT, SIZE = 300, 200, 32


def drawing() -> Image.Image:
    """A picture with transparent parts, under which there is a colour that nobody sees."""
    picture = Image.new("RGBA", (WIDTH, HEIGHT), (255, 0, 200, 0))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 120, WIDTH, HEIGHT), fill=(70, 130, 80, 255))
    draw.polygon([(20, 120), (90, 30), (160, 120)], fill=(120, 110, 130, 255))
    draw.ellipse((110, 40, 190, 120), fill=(240, 190, 60, 255))
    draw.rectangle((205, 70, 275, 150), fill=(180, 70, 60, 255))
    draw.polygon([(195, 70), (240, 25), (285, 70)], fill=(90, 50, 50, 255))
    for x in range(0, WIDTH, 12):
        draw.line((x, 165, x + 40, HEIGHT), fill=(230, 230, 210, 255), width=4)
    for k in range(30):
        draw.line((0, k, WIDTH, k), fill=(60, 120, 220, 255 - 8 * k))
    return picture


def panels() -> dict[str, list[tuple[str, np.ndarray]]]:
    """The rows of the figure: captions, and images of shape (channels, height, width)."""
    picture = drawing()
    whole = channels_of(picture, 4, 255)
    on = {level: channels_of(picture, 3, level) for level in (255, 0)}
    crops: list[Crop | int] = ["center", 140, "stretch", "adm"]
    filters: list[Filter] = ["box", "bilinear", "hamming", "bicubic", "lanczos"]
    return {
        "decoded, and brought\nto bytes and channels": [
            ("the colours in the file", whole[:3]),
            ("its alpha: channels=4 and 2", whole[3:]),
            ("channels=3, background=255", on[255]),
            ("background=0", on[0]),
            ("channels=1", channels_of(picture, 1, 255)),
        ],
        f"cropped, and resampled\nto size={SIZE}": [
            *((f"crop={crop}", fitted(on[255], Form(3, SIZE, crop))) for crop in crops),
            ("size=[24, 40]", fitted(on[255], Form(3, (24, 40)))),
        ],
        "filters,\nwith size=12": [
            (f"filter={kind}", fitted(on[255], Form(3, 12, filter=kind))) for kind in filters
        ],
    }


def main() -> None:
    rows = panels()
    figure = new_figure(11, 5.6, layout=None)
    grid = figure.subplots(
        len(rows), 5, gridspec_kw={"left": 0.15, "right": 0.99, "top": 0.95, "bottom": 0.02,
                                   "hspace": 0.3, "wspace": 0.06}
    )  # fmt: skip
    for line, (heading, pictures) in zip(grid, rows.items(), strict=True):
        box = line[0].get_position()
        figure.text(0.01, (box.y0 + box.y1) / 2, heading, fontsize=9, color=INK, va="center")
        for axes, (caption, image) in zip(line, pictures, strict=True):
            shown = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
            axes.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title(caption, fontsize=8, color=INK, pad=3)
            axes.set_xticks([])
            axes.set_yticks([])
    write_file(PLACE, png(figure, 110))


if __name__ == "__main__":
    main()

"""The verbs of ``scorefield data``: show, pack and encode images of one's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from scorefield.cli.options import DEVICE, Jobs, Overwrite
from scorefield.cli.results import Results, ending_in_results
from scorefield.errors import UserError

_CPUS = os.cpu_count() or 1
_SHOWN = 64

data = typer.Typer(help="Show, pack and encode images.", rich_markup_mode=None)

Source = Annotated[Path, typer.Argument(metavar="SOURCE", help="A file or folder of images.")]
Size = Annotated[
    str | None, typer.Option(metavar="N|HxW", help="The side of the images, or height and width.")
]
Channels = Annotated[int | None, typer.Option(min=1, help="The number of channels.")]
Dataset = Annotated[str | None, typer.Option(help="A known data set, as in data.dataset.")]
CropOption = Annotated[
    str | None, typer.Option("--crop", help="center, adm, stretch, or a number of pixels.")
]
FilterOption = Annotated[
    str | None,
    typer.Option("--filter", help="box, bilinear, hamming, bicubic or lanczos."),
]
Background = Annotated[
    int | None,
    typer.Option(min=0, max=255, help="The grey level under transparent pixels."),
]


@data.command()
@ending_in_results
def pack(
    source: Source,
    out: Annotated[Path, typer.Option(help="The folder of the packed images.")],
    size: Size = None,
    channels: Channels = None,
    dataset: Dataset = None,
    crop: CropOption = None,
    filter: FilterOption = None,
    background: Background = None,
    jobs: Jobs = _CPUS,
    overwrite: Overwrite = False,
) -> Results:
    """Decode images once into a memory-mapped file; the same command resumes after a stop."""
    from scorefield.data.contents import Contents
    from scorefield.data.describe import sheet_of
    from scorefield.data.pack import pack as write
    from scorefield.progress import Stages

    settled = _settled(source, size, channels, dataset, crop, filter, background)
    if not isinstance(settled.found, Contents):
        raise UserError(f"{source} holds packed images already")
    with Stages() as stages:
        shown = _shown(stages, "packing")
        made = write(source, settled.found, settled.form, out, jobs, overwrite, shown)
    return _results(sheet_of(made), [out])


@data.command()
@ending_in_results
def encode(
    source: Annotated[
        Path, typer.Argument(metavar="PACK", help="Packed images, made by scorefield data pack.")
    ],
    vae: Annotated[Path, typer.Option(help="The folder of an AutoencoderKL of diffusers.")],
    out: Annotated[Path, typer.Option(help="The folder of the latents.")],
    device: Annotated[str, DEVICE] = "auto",
    overwrite: Overwrite = False,
) -> Results:
    """Encode packed images once into latents; the same command resumes after a stop."""
    from scorefield.data.describe import sheet_of_latents
    from scorefield.data.encode import encode as write
    from scorefield.data.packed import Pack, is_pack
    from scorefield.engine import Engine
    from scorefield.interop.diffusers.autoencoder import open_autoencoder
    from scorefield.progress import Stages

    if not is_pack(source.expanduser()):
        raise UserError(f"{source} holds no packed images: make them, with scorefield data pack")
    images = Pack.read(source.expanduser())
    encoder = open_autoencoder(vae).on(Engine(device).torch_device)
    with Stages() as stages:
        made = write(images, encoder, out, overwrite, _shown(stages, "encoding"))
    return _results(sheet_of_latents(made), [out])


@data.command()
@ending_in_results
def show(
    source: Source,
    size: Size = None,
    channels: Channels = None,
    dataset: Dataset = None,
    crop: CropOption = None,
    filter: FilterOption = None,
    background: Background = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n", min=1, max=4096, help="The number of images on the sheet; 64 by default."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The PNG file of the sheet.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare packed images with the hash of the pack.")
    ] = False,
) -> Results:
    """Describe images, and draw a sheet of what a network sees of them; or describe latents."""
    from scorefield.data.describe import drawn, sheet_of, sheet_of_latents
    from scorefield.data.latent_packs import LatentPack, holds_latents
    from scorefield.data.packed import Pack
    from scorefield.files import write_file

    if holds_latents(source.expanduser()):
        form: dict[str, object] = {"size": size, "channels": channels, "dataset": dataset}
        form |= {"crop": crop, "filter": filter, "background": background, "n": n, "out": out}
        given = [f"--{name}" for name, value in form.items() if value is not None]
        if given:
            raise UserError(f"{source} holds latents, and images only have {', '.join(given)}")
        latents = LatentPack.read(source.expanduser())
        if check:
            latents.check()
        return _results(sheet_of_latents(latents), [])
    settled = _settled(source, size, channels, dataset, crop, filter, background)
    if check:
        if not isinstance(settled.found, Pack):
            raise UserError(f"{source} holds no packed images: --check is for these")
        settled.found.check()
    assert settled.found is not None
    picture = None if out is None else drawn(settled.found, settled.form, n or _SHOWN)
    sheet = sheet_of(settled.found, settled.form)
    if out is None or picture is None:
        return _results(sheet, [])
    write_file(out, picture)
    return _results(sheet, [out])


def _shown(stages: Any, stage: str) -> Callable[[int, int, float], None]:
    """What shows how many images are done, and the time that is left."""
    from scorefield.progress import clock

    def show(done: int, total: int, rate: float) -> None:
        left, each = clock((total - done) / rate) if rate else "?", f"{rate:,.3g}"
        stages.show(stage, done, total, f"{each} images/s, {left} left")
        stages.follow(f"{done:,} of {total:,} images, {each} a second, {left} left")

    return show


def _settled(
    source: Path,
    size: str | None,
    channels: int | None,
    dataset: str | None,
    crop: str | None,
    filter: str | None,
    background: int | None,
) -> Any:
    from dataclasses import replace

    from scorefield.data.known import settle
    from scorefield.data.layouts import contents_of

    cut = int(crop) if crop is not None and _is_number(crop) else crop
    form = {"crop": cut, "filter": filter, "background": background}
    found = settle(source, dataset, None, _size(size), channels, None, None, **form)
    if found.found is not None:
        return found
    contents = contents_of(source.expanduser(), found.form.channels)
    names = found.names or ()
    if contents.classes is None and 0 < (contents.class_count or 0) <= len(names):
        contents = replace(contents, classes=names)
    return replace(found, found=contents)


def _size(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(map(_is_number, sides)):
        raise UserError(f"--size is {text!r}, it must be a number of pixels, or HxW as in 28x20")
    numbers = [int(side) for side in sides]
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) < 10


def _results(sheet: Any, files: list[Path]) -> Results:
    from scorefield.progress import warn

    for sentence in sheet.warnings:
        warn(sentence)
    return Results(sheet=sheet.sections, files=files)

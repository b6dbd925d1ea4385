"""Damaged files, thousands of them: each is read, or refused in one sentence, soon and small."""

import json
import random
import resource
import shutil
import time
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import yaml
from PIL import Image
from pyarrow import parquet

from scorefield.cli import main
from scorefield.config import presets
from scorefield.config.resolve import load_config
from scorefield.data.form import Form
from scorefield.data.image_files import read_images
from scorefield.data.images import images
from scorefield.data.layouts import contents_of
from scorefield.data.pack import pack
from scorefield.errors import UserError, sentence
from scorefield.interop import unpickling
from scorefield.noise import Noise
from scorefield.training import checkpoint
from tests import test_damaged_files as whole
from tests.data import test_columns as columns
from tests.data import test_layouts as layouts
from tests.test_damaged_files import FORM, PIXELS, damaged
from tests.training.disk import in_a_child

SECONDS, MEMORY = 60, 2 << 20  # KiB
ODD = [None, True, -1, 0, 1e308, 10**30, "", "x" * 1000, "=1", [], {}, [[]], "../..", "\u202e", 0.5]
CONTAINERS = ["npy", "npz", "idx", "python", "binary", "matlab", "zip", "tar", "h5", "parquet"]
CONTAINERS += ["pack"]
PICTURES = {
    "png": "PNG",
    "jpg": "JPEG",
    "webp": "WEBP",
    "bmp": "BMP",
    "png ": "EPS",
    "bmp ": "GIF",
    "tiff": "TIFF",
}


def places(document, path=()):
    """The places of all values in nested mappings and lists."""
    found = [path] if path else []
    entries = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in entries:
        nested = isinstance(value, (dict, list))
        found += places(value, (*path, key)) if nested else [(*path, key)]
    return found


def edited(document, rng):
    """A document with one to three of its values removed, replaced, or under another name."""
    document = json.loads(json.dumps(document))
    for _ in range(rng.randint(1, 3)):
        *above, last = rng.choice(places(document) or [("new",)])
        part = document
        for key in above:
            part = part[key]
        match rng.randrange(4):
            case 0:
                del part[last]
            case 1 if isinstance(part, dict):
                part[f"{last}x"] = part.pop(last)
            case _:
                part[last] = deepcopy(rng.choice(ODD))
    return document


def configuration(folder, rng):
    """A preset with other values, or other bytes."""
    document = load_config(rng.choice(presets.names())).document()
    text = yaml.safe_dump(edited(document, rng), sort_keys=False).encode()
    (folder / "x.yaml").write_bytes(damaged(text, rng) if rng.random() < 0.3 else text)
    load_config(folder / "x.yaml")


def archived(folder, kind):
    """A zip or tar of pictures in folders of classes."""
    make = layouts.zipped if kind == "zip" else layouts.tarred
    grey = {f"{k % 2}/{k}.png": layouts.png(x) for k, x in enumerate(np.stack([PIXELS] * 3, 1))}
    path = make(folder / f"x.{kind}", grey)
    content = path.read_bytes()
    path.unlink()
    return {path.name: content}


def picture(folder, rng):
    """A file of images of any kind, damaged."""
    kind = rng.choice([*PICTURES, *CONTAINERS])
    files = {}
    if kind in PICTURES:
        ending = kind.strip()
        for k in range(2):
            Image.fromarray(PIXELS[k]).save(folder / f"{k}.tmp", format=PICTURES[kind])
            files[f"{k}.{ending}"] = (folder / f"{k}.tmp").read_bytes()
            (folder / f"{k}.tmp").unlink()
    elif kind == "npy":
        files = whole.of_array("x.npy")
    elif kind == "npz":
        files = whole.of_arrays("x.npz", train=PIXELS, test=PIXELS)
    elif kind == "idx":
        files = whole.of_idx()
    elif kind in ("zip", "tar"):
        files = archived(folder, kind)
    elif kind in ("h5", "parquet"):
        if kind == "h5":
            with h5py.File(folder / "x.tmp", "w") as file:
                file.create_dataset("images", data=PIXELS, compression="gzip")
        else:
            parquet.write_table(columns.table(range(6)), folder / "x.tmp", row_group_size=2)
        files = {f"x.{kind}": (folder / "x.tmp").read_bytes()}
        (folder / "x.tmp").unlink()
    elif kind == "pack":
        np.save(folder / "x.tmp.npy", PIXELS)
        contents = contents_of(folder / "x.tmp.npy")
        pack(folder / "x.tmp.npy", contents, FORM, folder / "x.tmp")
        (folder / "x.tmp.npy").unlink()
        files = {f"x.pack/{p.name}": p.read_bytes() for p in (folder / "x.tmp").iterdir()}
        shutil.rmtree(folder / "x.tmp")
        (folder / "x.pack").mkdir()
    else:
        files = layouts.cifar(kind)
    victim = rng.choice(sorted(files))
    for name, content in files.items():
        (folder / name).write_bytes(damaged(content, rng) if name == victim else content)
    single = kind in ("npy", "npz", "zip", "tar", "h5", "parquet", "pack")
    place = folder / f"x.{kind}" if single else folder
    if kind == "pack":
        source = images(place)
        _ = source.std, source.batch(Noise(0), 0, 4)
        return
    form = Form(3, 32) if kind in ("python", "binary", "matlab") else FORM
    read_images(place, form)


def run(folder, rng):
    """A run whose files are edited or damaged, inspected and reported."""
    place = folder / "runs" / "toy" / "small" / "seed0"
    shutil.copytree(whole.FIRST, place)
    other = place.with_name("seed1")
    shutil.copytree(whole.FIRST, other)
    victims = [p for p in other.rglob("*") if p.is_file() and "checkpoints" not in p.parts]
    file = rng.choice(sorted(victims))
    content = file.read_bytes()
    if file.suffix == ".json" and rng.random() < 0.8:
        file.write_text(json.dumps(edited(json.loads(content), rng)))
    else:
        file.write_bytes(damaged(content, rng))
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as errors:
        for command in (
            ["inspect", str(other)],
            ["report", "--root", str(folder / "runs"), "--out", str(folder / "out"), "--overwrite"],
        ):
            status = main(command)
            if status not in (0, 2):
                raise AssertionError(f"{command[0]} ended with {status}: {errors.getvalue()}")


def archive(folder, rng):
    """A file of ``torch.save`` or a checkpoint, damaged."""
    if rng.random() < 0.5:
        (content,) = whole.of_state("x.pt").values()
        (folder / "x.pt").write_bytes(damaged(content, rng))
        unpickling.read(folder / "x.pt")
        return
    files = whole.of_folder(whole.FIRST / "checkpoints" / "step_00000006")
    victim = rng.choice(sorted(files))
    path = folder / "step_00000006"
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(damaged(content, rng) if name == victim else content)
    checkpoint.read(path)


KINDS = {"configurations": configuration, "images": picture, "runs": run, "archives": archive}


def attempt(kind, seed):
    """What is wrong with how one damaged file is read; ``None`` if nothing is."""
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    try:
        with TemporaryDirectory() as folder:
            KINDS[kind](Path(folder), random.Random(f"{kind} {seed}"))
    except (UserError, OSError, MemoryError) as error:
        if not sentence(error):
            return f"{kind} {seed}: {type(error).__name__} without a sentence"
    except Exception as error:
        return f"{kind} {seed}: {type(error).__name__}: {error}"
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if taken > MEMORY:
        return f"{kind} {seed}: {taken >> 10} MiB more memory"
    seconds = time.monotonic() - begin
    return f"{kind} {seed}: {seconds:.0f} s" if seconds > SECONDS else None


def fuzz(kind, seeds, batch=50):
    """What is wrong with so many damaged files; each batch is read in a process of its own."""
    wrong = []
    for first in range(0, len(seeds), batch):
        with TemporaryDirectory() as folder:
            said = Path(folder) / "said"

            def work(first=first, said=said):
                from tests.hostile.verbs import small_world

                small_world()
                found = [attempt(kind, seed) for seed in seeds[first : first + batch]]
                said.write_text("\n".join(w for w in found if w is not None))

            status = in_a_child(work)
            if status != 0:
                wrong.append(f"{kind}: seeds from {seeds[first]} ended with {status}")
            wrong += said.read_text().splitlines() if said.exists() else []
    return wrong

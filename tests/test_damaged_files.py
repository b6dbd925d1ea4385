"""Files of a user that are cut short or changed: they are read, or refused in one sentence."""

import gzip
import io
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from scorefield.comparison import timing
from scorefield.config import document
from scorefield.data.form import Form
from scorefield.data.image_files import read_images
from scorefield.errors import UserError, sentence
from scorefield.evaluation.records import Evaluation
from scorefield.interop import convolutional
from scorefield.runs.run import Run
from scorefield.studies.networks import read_scales
from scorefield.training import checkpoint
from scorefield.training.classifier import read_classifier
from scorefield.training.record import Record

FIRST = Path(__file__).parent / "data" / "first_version" / "runs" / "toy" / "small" / "seed0"
FORM = Form(1, 8)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)


def of_arrays(name, **arrays):
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return {name: content.getvalue()}


def of_array(name):
    content = io.BytesIO()
    np.save(content, PIXELS)
    return {name: content.getvalue()}


def of_picture(name, form):
    content = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(content, format=form)
    return {f"{k}{name}": content.getvalue() for k in range(20)}


def of_idx():
    head = bytes((0, 0, 8, 3)) + np.array([6, 8, 8], ">i4").tobytes()
    labels = bytes((0, 0, 8, 1)) + np.array([6], ">i4").tobytes() + bytes(6)
    files = {"images": head + PIXELS.tobytes(), "labels": labels}
    return {
        f"{split}-{name}-ubyte.gz": gzip.compress(content)
        for split in ("train", "t10k")
        for name, content in files.items()
    }


def of_folder(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def of_weights(name):
    folder = Path("weights")
    folder.mkdir()
    about = '{"format": "scorefield classifier 1", "sizes": {"shape": [1, 8, 8], "classes": 2}}'
    save_file({"a": torch.ones(3)}, folder / name, {"scorefield": about})
    return of_folder(folder)


def of_state(name):
    content = io.BytesIO()
    torch.save({"a.weight": torch.ones(3, 3)}, content)
    return {name: content.getvalue()}


def metrics(folder):
    Record(folder, 5)


SCALES = b'{"sigmas": [1.0, 2.0], "median": [3, 5], "chosen": "median"}'
TIMES = b'{"rounds": {"a": [1.0, 2.0], "b": [1.0, 1.5]}, "told": "x"}'
CASES = {
    "npy": (lambda: of_array("x.npy"), lambda at: read_images(at / "x.npy", FORM)),
    "npz": (
        lambda: of_arrays("x.npz", train=PIXELS, test=PIXELS),
        lambda at: read_images(at / "x.npz", FORM),
    ),
    "idx": (of_idx, lambda at: read_images(at, FORM)),
    "png": (lambda: of_picture("x.png", "png"), lambda at: read_images(at, FORM)),
    "jpeg": (lambda: of_picture("x.jpg", "jpeg"), lambda at: read_images(at, FORM)),
    "checkpoint": (
        lambda: of_folder(FIRST / "checkpoints" / "step_00000006"),
        checkpoint.read,
    ),
    "classifier": (
        lambda: of_weights("x.safetensors"),
        lambda at: read_classifier(at / "x.safetensors"),
    ),
    "state dict": (
        lambda: of_state("x.pt"),
        lambda at: convolutional.load(at / "x.pt", padding="zeros"),
    ),
    "evaluation": (lambda: of_folder(FIRST), Evaluation.read),
    "metrics": (lambda: {"metrics.csv": (FIRST / "metrics.csv").read_bytes()}, metrics),
    "environment": (lambda: of_folder(FIRST), lambda at: Run.open(at).environment()),
    "configuration": (
        lambda: {"x.yaml": (FIRST / "config_resolved.yaml").read_bytes()},
        lambda at: document.read(at / "x.yaml"),
    ),
    "scales": (lambda: {"x.json": SCALES}, lambda at: read_scales(at / "x.json")),
    "times": (lambda: {timing.STEP_TIMES: TIMES}, timing.timed_models),
}


def damaged(content, rng):
    """The content cut short, with other bytes here and there, or with a part of it repeated."""
    match rng.randrange(4):
        case 0:
            return content[: rng.randrange(len(content) + 1)]
        case 1:
            changed = bytearray(content)
            for _ in range(rng.randint(1, 8)):
                if changed:
                    changed[rng.randrange(len(changed))] = rng.randrange(256)
            return bytes(changed)
        case 2:
            start = rng.randrange(len(content) + 1)
            return content[:start] + content[rng.randrange(len(content) + 1) :]
        case _:
            start = rng.randrange(len(content) + 1)
            filling = rng.choice([b"[" * 100_000, b"\x00\xff", b"9" * 5000, b'"', b"\n,,\n", b"{}"])
            return content[:start] + filling + content[start:]


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_refused_in_one_sentence(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    make, read = CASES[kind]
    whole = make()
    rng = random.Random(kind)
    sentences = []
    for attempt in range(60):
        folder = tmp_path / f"{attempt}"
        names = sorted(whole)
        victim = rng.choice(names)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            content = whole[name]
            (folder / name).write_bytes(damaged(content, rng) if name == victim else content)
        try:
            read(folder)
        except (UserError, OSError, MemoryError) as error:
            sentences.append(sentence(error))
        shutil.rmtree(folder)
    assert all(sentences)
    assert sentences or kind in ("environment", "metrics")

"""What is measured of models of emoji, for ``emoji.py``: their samples by the features of a
classifier of the images' categories, their denoising losses, and what their evaluations have.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pages import RESULTS
from PIL import Image
from torch import Tensor

import scorefield as sf
from scorefield.data.arrays import LabelledSource
from scorefield.data.form import Form
from scorefield.data.image_files import of_pictures
from scorefield.data.images import ImageSource
from scorefield.estimate import Estimate, mean
from scorefield.evaluation.records import Evaluation
from scorefield.metrics.kernel import kid
from scorefield.metrics.neighbours import coverage, density, memorisation, nearest
from scorefield.metrics.neighbours import precision as precision_of
from scorefield.metrics.neighbours import recall as recall_of
from scorefield.networks.features import Features
from scorefield.noise import Noise
from scorefield.plotting.axes import image_grid
from scorefield.progress import Stages
from scorefield.runs.run import Run
from scorefield.training.classifier import classifier_features, read_classifier

SAMPLES, SHOWN, CALLS = 256, 10, 35
LEVELS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


def labelled(source: ImageSource, package: Path) -> LabelledSource:
    """The images of a source with their categories, which the package has by the file."""
    known = json.loads((package / "emoji.json").read_text())
    kinds = sorted({each["category"] for each in known})
    form, of_bytes = Form(3, 32), {}
    for each in known:
        for one in (each, *each.get("skin_variations", {}).values()):
            file = package / "img" / "google" / "64" / one["image"]
            if file.exists():
                with Image.open(file) as picture:
                    pixels = of_pictures([picture], form)[0]
                of_bytes[pixels.numpy().tobytes()] = kinds.index(each["category"])
    parts = {}
    for split in ("train", "test"):
        pixels = source.stored(split)
        labels = [of_bytes.get(image.numpy().tobytes(), -1) for image in pixels]
        kept = torch.tensor([k for k, label in enumerate(labels) if label >= 0])
        points = source.points(split, kept, Noise(0), torch.float32)
        parts[split] = points, torch.tensor(labels)[kept]
    (x, a), (y, b) = parts["train"], parts["test"]
    return LabelledSource(x, y, a, b, "emoji")


def drawn(field: sf.ScoreField) -> Tensor:
    """Samples, from the same noise for all fields."""
    return sf.Heun.for_nfe(CALLS).sample(field, SAMPLES, seed=0)


def denoising(field: sf.ScoreField, images: Tensor) -> Tensor:
    """The denoising loss of each image, the mean over noise levels, from the same noise for all
    fields.
    """
    index, found = torch.arange(len(images)), []
    with torch.no_grad():
        for k, sigma in enumerate(LEVELS):
            z = Noise(0).normal("benchmark", images.shape[1:], index, k)
            t = field.sde.time(torch.full((len(images),), sigma))
            error = field.predict_noise(images + sigma * z, t) - z
            found.append(error.square().flatten(1).mean(dim=1))
    return torch.stack(found).mean(dim=0).double()


def compared(x: Tensor, train: Tensor, test: Tensor, features: Features) -> dict[str, Estimate]:
    """Samples compared with the training images, by features."""
    seen, known, held_out = features(x), features(train), features(test)
    blocks = [known]
    return {
        "frechet": sf.frechet_distance(x, train, features),
        "kid": kid(seen, known),
        "precision": precision_of(seen, known),
        "recall": recall_of(seen, known),
        "density": density(seen, known),
        "coverage": coverage(seen, known),
        "memorisation": memorisation(nearest(seen, blocks), nearest(held_out, blocks)),
    }


def over_levels(evaluation: Evaluation, metric: str) -> Estimate:
    """The root mean square of a diagnostic over noise levels; errors add up, since the levels have
    their points in common.
    """
    levels = [level.estimate for level in evaluation.profile(metric)]
    value = math.sqrt(sum(e.value**2 for e in levels) / len(levels))
    error = sum(abs(e.value) * e.standard_error for e in levels) / len(levels) / value
    return Estimate(value, error, min(e.n for e in levels))


def measured(runs: Path, package: Path) -> Iterator[dict[str, Any]]:
    """The numbers of each run, M0 of a seed before the others of that seed, and those of held-out
    images in the place of samples; the sheet of samples is drawn.
    """
    folders = sorted(runs.glob("m?_small*/seed*"), key=lambda f: (f.name, f.parent.name))
    source = Run.open(folders[0]).source()
    if not isinstance(source, ImageSource):
        raise SystemExit(f"{folders[0]} was not trained on images")
    labels = labelled(source, package)
    with Stages() as stages:
        features = classifier_features(labels, runs.parent / "classifiers" / "emoji", stages)
    known = read_classifier(runs.parent / "classifiers" / "emoji" / "classifier.safetensors")
    train, test = (
        source.points(split, torch.arange(source.count(split)), Noise(0), torch.float32)
        for split in ("train", "test")
    )
    real = compared(test, train, test.flip(0), features)
    accuracy = {"accuracy": known.accuracy}
    yield _row("held out", 0, {**real, **accuracy}, n=len(test), training=len(train))
    losses: dict[int, Tensor] = {}
    sheet = {"data": source.reference(SHOWN, 0, "train"), "held out": source.reference(SHOWN, 0)}
    for folder in folders:
        run, evaluation = Run.open(folder), Evaluation.read(folder)
        name, seed = folder.parent.name[:2], run.config.seed
        field = run.field("ema").requires_grad_(False)
        x = drawn(field)
        if name not in sheet:
            sheet[name] = x[:SHOWN]
        own = denoising(field, test)
        losses.setdefault(seed, own)
        numbers = {
            **compared(x, train, test, features),
            "denoising": mean(own.tolist()),
            "denoising_difference": mean((own - losses[seed]).tolist()),
            "relative_asymmetry": over_levels(evaluation, "relative_asymmetry"),
            "consistency": over_levels(evaluation, "consistency"),
            "fokker_planck": over_levels(evaluation, "fokker_planck"),
        }
        yield _row(name, seed, numbers, **evaluation.compute)
    pixels = torch.cat([image_grid(images.clamp(-1, 1), SHOWN) for images in sheet.values()], 1)
    picture = pixels.add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
    sheets = Image.fromarray(picture)
    sides = 2 * sheets.width, 2 * sheets.height
    sheets.resize(sides, Image.Resampling.NEAREST).save(RESULTS / "emoji.png", optimize=True)


def _row(model: str, seed: int, numbers: Mapping[str, Estimate], **more: Any) -> dict[str, Any]:
    plain = {key: (e.value, e.standard_error, e.n, *e.interval()) for key, e in numbers.items()}
    print(model, seed, {key: f"{value[0]:.4g}" for key, value in plain.items()}, flush=True)
    return {"model": model, "seed": seed, "numbers": plain, **more}

"""Metrics of images by the features of an extractor, which their names contain.

Only distances between the 2,048 features of the published Inception network are called FID.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue.metric import OfImages
from scorefield.evaluation.features import ImageSets
from scorefield.metrics.inception_score import inception_score
from scorefield.metrics.kernel import kid
from scorefield.metrics.neighbours import coverage, density, memorisation, precision, recall

_SQUARED = "squared units of the features"
_AT_SIZE = (
    "Squared, between the normal distributions with the mean and the covariance of {of} of "
    "generated images and of the training set, at the number of generated images, whose bias it "
    "contains."
)
_LIMIT = "The same, extrapolated to an infinite number of generated images, linear in its inverse."
_TITLES = {"inception": "Inception", "dinov2": "DINOv2"}


def _frechet(output: str, infinite: bool, sets: ImageSets) -> Estimate:
    found = sets.frechet(output)
    return found.infinity if infinite else found.at_size


def _warned(output: str, sets: ImageSets) -> str:
    return sets.frechet(output).warning


def _distances(
    name: str, title: str, of: str, output: str, applies: str, holds: Callable[[ImageSets], bool]
) -> list[OfImages]:
    shared: dict[str, Any] = {"unit": _SQUARED, "applies": applies, "holds": holds}
    return [
        OfImages(
            name=name,
            title=title,
            label=title.split(" (")[0],
            caption=_AT_SIZE.format(of=of),
            shown=("table",),
            estimate=partial(_frechet, output, False),
            warning=partial(_warned, output),
            **shared,
        ),
        OfImages(
            name=f"{name}_infinity",
            title=f"{title}, of infinitely many samples",
            label=f"{title.split(' (')[0]}, extrapolated",
            caption=_LIMIT,
            shown=("table", "differences"),
            estimate=partial(_frechet, output, True),
            **shared,
        ),
    ]


def _of(kind: str, sets: ImageSets) -> bool:
    return sets.extractor.startswith(f"{kind}:")


def _pairs(kind: str) -> list[OfImages]:
    """The metrics of pairs of images on the features of a kind of extractor."""
    title, holds = _TITLES[kind], partial(_of, kind)
    shared: dict[str, Any] = {"applies": f"images, features of {title}", "holds": holds}

    def on_pair(metric: Callable[..., Estimate]) -> Callable[[ImageSets], Estimate]:
        return lambda sets: metric(*sets.pair)

    return [
        OfImages(
            name=f"kid_{kind}",
            title=f"Kernel distance of {title} features",
            label=f"kernel distance, {title}",
            caption="The squared maximum mean discrepancy with the cubic kernel, unbiased, of the "
            "first 10,000 images of both sets (KID on the features of Inception).",
            shown=("table", "differences"),
            estimate=on_pair(kid),
            **shared,
        ),
        OfImages(
            name=f"precision_{kind}",
            title=f"Precision by {title} features",
            caption="The share of generated images in the neighbourhood of a training image that "
            "reaches its third nearest, of the first 10,000 of both sets.",
            better="higher",
            estimate=on_pair(precision),
            **shared,
        ),
        OfImages(
            name=f"recall_{kind}",
            title=f"Recall by {title} features",
            caption="The share of training images in the neighbourhood of a generated image that "
            "reaches its third nearest, of the first 10,000 of both sets.",
            better="higher",
            estimate=on_pair(recall),
            **shared,
        ),
        OfImages(
            name=f"density_{kind}",
            title=f"Density by {title} features",
            caption="The mean number of neighbourhoods of five training images that a generated "
            "one is in, over five, of the first 10,000 of both sets: 1 for equal distributions.",
            better="higher",
            estimate=on_pair(density),
            **shared,
        ),
        OfImages(
            name=f"coverage_{kind}",
            title=f"Coverage by {title} features",
            caption="The share of training images whose neighbourhood of five contains a "
            "generated one, of the first 10,000 of both sets: 0.97 for equal distributions.",
            better="higher",
            estimate=on_pair(coverage),
            **shared,
        ),
        OfImages(
            name=f"memorisation_{kind}",
            title=f"Memorisation by {title} features",
            caption="The probability that the nearest training image is nearer to a generated "
            "image than to a held-out one: 0.5 for samples distributed as the data, 1 for copies.",
            estimate=lambda s: None if s.to_training is None else memorisation(*s.to_training),
            **shared,
        ),
    ]


OF_IMAGES: tuple[OfImages, ...] = (
    *_distances(
        "fid",
        "FID (Fréchet Inception distance)",
        "the 2,048 features of Inception",
        "features",
        "images, published Inception weights",
        lambda s: s.of_fid,
    ),
    *_distances(
        "sfid",
        "sFID (spatial FID)",
        "2,023 spatial features of Inception",
        "spatial",
        "images, published Inception weights",
        lambda s: s.of_fid and "spatial" in s.known,
    ),
    *_distances(
        "frechet_inception",
        "Fréchet distance of Inception features",
        "the features of another Inception network than that of FID",
        "features",
        "images, other Inception weights",
        lambda s: _of("inception", s) and not s.of_fid,
    ),
    *_distances(
        "frechet_dinov2",
        "FD-DINOv2 (Fréchet distance of DINOv2 features)",
        "the features of DINOv2",
        "features",
        "images, features of DINOv2",
        partial(_of, "dinov2"),
    ),
    OfImages(
        name="inception_score",
        title="Inception Score",
        caption="The exponential of the mean divergence of an image's classes from those of all, "
        "of all samples at once, corrected for their number.",
        better="higher",
        shown=("table",),
        applies="images, features of Inception",
        holds=partial(_of, "inception"),
        estimate=lambda sets: inception_score(sets.score_moments),
    ),
    *_pairs("inception"),
    *_pairs("dinov2"),
)
